package h1

import (
	"fmt"
	"strconv"

	"sallyport/proxy/message"
	"sallyport/proxy/wire"
)

// appendRequest writes the head of r and its Content. It refuses every ambiguous head even if the
// caller has checked it, because nothing checks the bytes afterwards.
func appendRequest(b []byte, r *wire.Request) ([]byte, error) {
	if err := r.Check(); err != nil {
		return nil, err
	}
	b = append(b, r.Method...)
	b = append(b, ' ')
	b = append(b, r.Target...)
	b = append(b, " HTTP/1.1\r\nHost: "...)
	b = append(b, r.Host...)
	b = append(b, "\r\n"...)
	var err error
	if b, err = appendFields(b, r.Fields); err != nil {
		return nil, err
	}
	if r.Upgrade != "" {
		if r.Streams() || len(r.Content) > 0 {
			return nil, errNoUpgrade
		}
		if !message.ValidName(r.Upgrade) {
			return nil, wire.ErrBadHead
		}
		b = append(b, "Connection: Upgrade\r\nUpgrade: "...)
		b = append(b, r.Upgrade...)
		b = append(b, "\r\n"...)
	}
	b = appendFraming(b, r)
	b = append(b, "\r\n"...)
	return append(b, r.Content...), nil
}

// appendFraming announces the content exactly once. Without content, it writes Content-Length: 0
// for methods that define a meaning for content (RFC 9110, section 8.6).
func appendFraming(b []byte, r *wire.Request) []byte {
	switch {
	case r.Streams() && r.Length < 0:
		return append(b, "Transfer-Encoding: chunked\r\n"...)
	case r.Streams():
		b = strconv.AppendInt(append(b, "Content-Length: "...), r.Length, 10)
	case len(r.Content) > 0 || r.Method == "POST" || r.Method == "PUT" || r.Method == "PATCH":
		b = strconv.AppendInt(append(b, "Content-Length: "...), int64(len(r.Content)), 10)
	default:
		return b
	}
	return append(b, "\r\n"...)
}

func appendFields(b []byte, fields message.Fields) ([]byte, error) {
	for i := range fields {
		f := &fields[i]
		if message.OfConnection(f.Name) {
			return nil, fmt.Errorf("%w: %s", errFieldBanned, f.Name)
		}
		if !lowerName(f.Name) || !message.ValidValue(f.Value) {
			return nil, fmt.Errorf("%w: %q", errFieldBytes, f.Name)
		}
		b = append(b, f.Name...)
		b = append(b, ": "...)
		b = append(b, f.Value...)
		b = append(b, "\r\n"...)
	}
	return b, nil
}

// lowerName reports whether s is a field name in lower case. An upper-case name would evade every
// check that compares names.
func lowerName(s string) bool {
	for i := 0; i < len(s); i++ {
		if nameByte[s[i]] != s[i] || s[i] == 0 {
			return false
		}
	}
	return s != ""
}

// sizeHint estimates how many bytes the request takes.
func sizeHint(r *wire.Request) int {
	n := len(r.Method) + len(r.Target) + len(r.Host) + len(r.Upgrade) + len(r.Content) + 128
	for i := range r.Fields {
		n += len(r.Fields[i].Name) + len(r.Fields[i].Value) + 4
	}
	return n
}
