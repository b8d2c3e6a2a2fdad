package h1

import (
	"bytes"
	"fmt"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"sallyport/proxy/message"
)

// appendHead writes a status line and fields. What could be read in two ways is
// refused, whatever the caller has checked: this is the last door before the wire.
func appendHead(b []byte, status int, fields message.Fields) ([]byte, error) {
	if status == 200 {
		b = append(b, "HTTP/1.1 200 OK\r\n"...)
	} else {
		b = append(strconv.AppendInt(append(b, "HTTP/1.1 "...), int64(status), 10), ' ')
		b = append(append(b, http.StatusText(status)...), "\r\n"...)
	}
	return appendServerFields(b, fields)
}

// appendServerFields writes names as Content-Type: there are clients that compare
// letter by letter.
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

// dates writes the Date of answers, made once a second. The zero value is ready
// for use. It is safe for concurrent use.
type dates struct{ last atomic.Pointer[date] }

type date struct {
	second int64
	line   []byte
}

func (d *dates) append(b []byte, now time.Time) []byte {
	last := d.last.Load()
	if last == nil || last.second != now.Unix() {
		last = &date{now.Unix(), now.UTC().AppendFormat(nil, "Date: Mon, 02 Jan 2006 15:04:05 GMT\r\n")}
		d.last.Store(last)
	}
	return append(b, last.line...)
}
