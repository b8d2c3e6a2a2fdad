package setting

import (
	"errors"
	"net"
	"os"
	"strconv"
	"unicode/utf8"
)

// Quoted returns s in quotes for a message to the operator. The text within the quotes has at most
// most bytes: longer text is cut, and an ellipsis follows. Bytes that do not print are escaped,
// because s may come from a stranger.
func Quoted(s string, most int) string {
	return string(appendQuoted(nil, s, most))
}

// QuotedList returns values in quotes, separated by commas. It cuts each value as [Quoted] does, and
// leaves out values once the text is longer than most bytes.
func QuotedList(values []string, most int) string {
	var b []byte
	for i, v := range values {
		if i > 0 {
			b = append(b, ", "...)
		}
		if len(b) > most {
			return string(append(b, "…"...))
		}
		b = appendQuoted(b, v, most)
	}
	return string(b)
}

func appendQuoted(b []byte, s string, most int) []byte {
	b = append(b, '"')
	var array [16]byte
	for end := len(b) + most; s != ""; {
		_, size := utf8.DecodeRuneInString(s)
		one := strconv.AppendQuote(array[:0], s[:size])
		one = one[1 : len(one)-1]
		if len(b)+len(one) > end {
			b = append(b, "…"...)
			break
		}
		b, s = append(b, one...), s[size:]
	}
	return append(b, '"')
}

// Shortened returns s, cut to at most most bytes; an ellipsis follows if it was cut. It escapes
// nothing, so s must not come from a stranger.
func Shortened(s string, most int) string {
	if len(s) <= most {
		return s
	}
	for most > 0 && !utf8.RuneStart(s[most]) {
		most--
	}
	return s[:most] + "…"
}

// PlainError returns the cause in err, without the names of calls and the addresses that package net
// puts before it.
func PlainError(err error) error {
	var operation *net.OpError
	if errors.As(err, &operation) {
		err = operation.Err
	}
	var call *os.SyscallError
	if errors.As(err, &call) {
		err = call.Err
	}
	return err
}
