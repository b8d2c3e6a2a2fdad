package h1

import (
	"bytes"
	"fmt"
	"net/http"
	"strconv"

	"sallyport/proxy/message"
)

// appendHead writes a status line and fields. It refuses ambiguous ones even if the caller has
// checked them: this is the last check before the wire.
func appendHead(b []byte, status int, fields message.Fields) ([]byte, error) {
	if status == 200 {
		b = append(b, "HTTP/1.1 200 OK\r\n"...)
	} else {
		b = append(strconv.AppendInt(append(b, "HTTP/1.1 "...), int64(status), 10), ' ')
		b = append(append(b, http.StatusText(status)...), "\r\n"...)
	}
	return appendServerFields(b, fields)
}

// appendServerFields writes names in canonical case (Content-Type), because some clients compare
// names case-sensitively.
func appendServerFields(b []byte, fields message.Fields) ([]byte, error) {
	for i := range fields {
		f := &fields[i]
		if message.OfConnection(f.Name) {
			return nil, fmt.Errorf("%w: %s", errFieldBanned, f.Name)
		}
		if !lowerName(f.Name) || !message.ValidValue(f.Value) {
			return nil, fmt.Errorf("%w: %q", errFieldBytes, f.Name)
		}
		at := len(b)
		b = append(b, f.Name...)
		for at < len(b) {
			if c := b[at]; 'a' <= c && c <= 'z' {
				b[at] = c - ('a' - 'A')
			}
			dash := bytes.IndexByte(b[at:], '-')
			if dash < 0 {
				break
			}
			at += dash + 1
		}
		b = append(append(append(b, ": "...), f.Value...), "\r\n"...)
	}
	return b, nil
}

func appendDate(b []byte, date string) []byte {
	return append(append(append(b, "Date: "...), date...), "\r\n"...)
}
