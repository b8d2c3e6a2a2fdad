package story

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
)

// FieldNumber is the number of a field of a protobuf message.
type FieldNumber = protowire.Number

// Text is a field of a protobuf message that holds a string, bytes or a message.
func Text[T ~string | ~[]byte](number FieldNumber, content T) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, number, protowire.BytesType), []byte(content))
}

// Number is a field of a protobuf message that holds an integer.
func Number(number FieldNumber, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(nil, number, protowire.VarintType), v)
}

// Message joins fields to a message.
func Message(fields ...[]byte) []byte { return slices.Concat(fields...) }

// Frames puts the five bytes of gRPC before each message.
func Frames(messages ...[]byte) []byte {
	var b []byte
	for _, m := range messages {
		b = append(binary.BigEndian.AppendUint32(append(b, 0), uint32(len(m))), m...)
	}
	return b
}

// Squeezed is one message of gRPC, compressed with gzip.
func Squeezed(message []byte) []byte {
	squeezed := Gzipped(string(message))
	return append(binary.BigEndian.AppendUint32([]byte{1}, uint32(len(squeezed))), squeezed...)
}

// Messages are the messages in frames that are not compressed.
func Messages(frames []byte) [][]byte {
	var all [][]byte
	for len(frames) >= 5 {
		n := int(binary.BigEndian.Uint32(frames[1:5]))
		if len(frames) < 5+n {
			break
		}
		all = append(all, frames[5:5+n])
		frames = frames[5+n:]
	}
	return all
}

// Fields are the contents of the length-delimited fields with a number.
func Fields(message []byte, number FieldNumber) [][]byte {
	var all [][]byte
	for len(message) > 0 {
		n, kind, k := protowire.ConsumeTag(message)
		if k < 0 {
			return all
		}
		size := protowire.ConsumeFieldValue(n, kind, message[k:])
		if size < 0 {
			return all
		}
		if n == number && kind == protowire.BytesType {
			content, _ := protowire.ConsumeBytes(message[k:])
			all = append(all, content)
		}
		message = message[k+size:]
	}
	return all
}

// Plain is a request of HTTP/1.1 without the gateway's fields: the head lines are joined
// by CRLF, and Content-Length is added if there is a body or the method is POST.
func Plain(line, body string, fields ...string) []byte {
	head := append([]string{line + " HTTP/1.1", "Host: localhost"}, fields...)
	if body != "" || strings.HasPrefix(line, "POST ") {
		head = append(head, fmt.Sprintf("Content-Length: %d", len(body)))
	}
	return []byte(strings.Join(head, "\r\n") + "\r\n\r\n" + body)
}

// Gzipped is text, compressed with gzip.
func Gzipped(text string) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = w.Write([]byte(text))
	_ = w.Close()
	return b.String()
}
