package message_test

import (
	"errors"
	"slices"
	"testing"

	"sallyport/proxy/message"
)

func head(fields ...message.Field) *message.Head {
	return &message.Head{Version: message.HTTP11, Method: "POST", Scheme: "https", Authority: "A.example", Target: "/p?q=1", Fields: fields}
}

func TestSettleComputesTheCanonicalReading(t *testing.T) {
	h := head(
		message.Field{Name: "connection", Value: "keep-alive, Upgrade"},
		message.Field{Name: "upgrade", Value: "WebSocket"},
		message.Field{Name: "cookie", Value: "a=1"},
		message.Field{Name: "te", Value: "trailers"},
		message.Field{Name: "expect", Value: "100-Continue"},
		message.Field{Name: "cookie", Value: "b=2"},
		message.Field{Name: "x-a", Value: "1"},
		message.Field{Name: "x-a", Value: "2"},
	)
	if err := h.Settle(); err != nil {
		t.Fatal(err)
	}
	if h.Path != "/p" || h.Query != "q=1" || !h.HasQuery || h.PathAndQuery() != "/p?q=1" || h.Host != "a.example" {
		t.Errorf("path %q, query %q (%v), host %q", h.Path, h.Query, h.HasQuery, h.Host)
	}
	if h.Upgrade != "websocket" || !h.Expect || !h.Trailers {
		t.Errorf("upgrade %q, expect %v, trailers %v; want websocket, true, true", h.Upgrade, h.Expect, h.Trailers)
	}
	if got := h.Fields.Get("cookie"); got != "a=1; b=2" || h.Fields.Count("cookie") != 1 {
		t.Errorf("cookie %q in %d lines; want one joined line", got, h.Fields.Count("cookie"))
	}
	for _, name := range []string{"connection", "upgrade", "expect"} {
		if h.Fields.Has(name) {
			t.Errorf("%s was not removed from the fields", name)
		}
	}
	if h.Fields.Count("x-a") != 2 {
		t.Errorf("x-a has %d lines; want 2", h.Fields.Count("x-a"))
	}
}

// Readers would pick different lines.
func TestSettleRefusesDuplicates(t *testing.T) {
	values := map[string]string{"host": "a.example", "content-length": "0", "expect": "100-continue"}
	for _, name := range []string{"authorization", "host", "content-length", "content-type", "content-encoding", "content-digest", "signature", "signature-input",
		"dpop", "x-api-key", "api-key", "range", "expect", "upgrade", "from", "user-agent", "if-modified-since", "if-unmodified-since"} {
		f := message.Field{Name: name, Value: values[name]}
		if err := head(f).Settle(); err != nil {
			t.Errorf("one %s: %v", name, err)
		}
		if err := head(f, message.Field{Name: "accept", Value: "*/*"}, f).Settle(); !errors.Is(err, message.ErrDuplicate) {
			t.Errorf("two of %s: %v", name, err)
		}
	}
	accept := message.Field{Name: "accept", Value: "*/*"}
	if err := head(accept, accept).Settle(); err != nil {
		t.Errorf("two of accept: %v", err)
	}
}

func TestSettleRefusesFaultyHeads(t *testing.T) {
	for _, c := range []struct {
		name string
		head *message.Head
		want error
	}{
		{"fault of the engine", &message.Head{Version: message.HTTP11, Method: "GET", Target: "/", Authority: "a", Fault: message.ErrFraming}, message.ErrFraming},
		{"HTTP/1.2", &message.Head{Version: 12, Method: "GET", Target: "/", Authority: "a"}, message.ErrBadVersion},
		{"CONNECT", &message.Head{Method: "CONNECT", Target: "/", Authority: "a"}, message.ErrBadMethod},
		{"TRACE", &message.Head{Method: "Trace", Target: "/", Authority: "a"}, message.ErrBadMethod},
		{"method with space", &message.Head{Method: "GE T", Target: "/", Authority: "a"}, message.ErrBadTarget},
		{"absolute form", &message.Head{Method: "GET", Target: "http://b/", Authority: "a"}, message.ErrBadTarget},
		{"asterisk form", &message.Head{Method: "OPTIONS", Target: "*", Authority: "a"}, message.ErrBadTarget},
		{"fragment", &message.Head{Method: "GET", Target: "/a#b", Authority: "a"}, message.ErrAmbiguousPath},
		{"fragment in query", &message.Head{Method: "GET", Target: "/a?b#c", Authority: "a"}, message.ErrBadTarget},
		{"control in query", &message.Head{Method: "GET", Target: "/a?b\rc", Authority: "a"}, message.ErrBadTarget},
		{"no host", &message.Head{Method: "GET", Target: "/"}, message.ErrBadAuthority},
		{"user in host", &message.Head{Method: "GET", Target: "/", Authority: "u@a"}, message.ErrBadAuthority},
		{"two credentials", head(message.Field{Name: "authorization", Value: "Bearer a"}, message.Field{Name: "authorization", Value: "Bearer b"}), message.ErrDuplicate},
		{"two digests", head(message.Field{Name: "content-digest", Value: "a"}, message.Field{Name: "content-digest", Value: "b"}), message.ErrDuplicate},
		{"empty name", head(message.Field{Name: "", Value: "x"}), message.ErrBadField},
		{"space in name", head(message.Field{Name: "x ", Value: "x"}), message.ErrBadField},
		{"line break in value", head(message.Field{Name: "x", Value: "a\r\nb: c"}), message.ErrBadField},
		{"NUL in value", head(message.Field{Name: "x", Value: "a\x00"}), message.ErrBadField},
		{"an empty cookie line beside another", head(message.Field{Name: "cookie", Value: "a=1"}, message.Field{Name: "cookie", Value: ""}), message.ErrBadField},
		{"Connection strips identity", head(message.Field{Name: "connection", Value: "close, X-Sallyport-Principal"}), message.ErrConnection},
		{"Connection strips forwarding", head(message.Field{Name: "connection", Value: "X-Forwarded-For"}), message.ErrConnection},
		{"a length that is not that of the content", head(message.Field{Name: "content-length", Value: "5"}), message.ErrLength},
		{"a length with a sign", head(message.Field{Name: "content-length", Value: "+0"}), message.ErrLength},
		{"no length", head(message.Field{Name: "content-length", Value: ""}), message.ErrLength},
		{"two lengths", head(message.Field{Name: "content-length", Value: "0"}, message.Field{Name: "content-length", Value: "0"}), message.ErrDuplicate},
		{"another host", head(message.Field{Name: "host", Value: "b.example"}), message.ErrBadAuthority},
		{"a host twice", head(message.Field{Name: "host", Value: "a.example"}, message.Field{Name: "host", Value: "a.example"}), message.ErrDuplicate},
		{"unknown expectation", head(message.Field{Name: "expect", Value: "200-ok"}), message.ErrExpectation},
		{"too many fields", head(make(message.Fields, 1001)...), message.ErrTooManyLines},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.head.Version == 0 {
				c.head.Version = message.HTTP11
			}
			if err := c.head.Settle(); !errors.Is(err, c.want) {
				t.Errorf("got %v; want %v", err, c.want)
			}
		})
	}
}

func TestFoldUnifiesSpellings(t *testing.T) {
	for _, name := range []string{"X-Sallyport-Principal", "x_sallyport_principal", "X.Sallyport.Principal", "x~sallyport`principal", "X-SALLYPORT_PRINCIPAL"} {
		if got := message.Fold(name); got != "x-sallyport-principal" {
			t.Errorf("Fold(%q) = %q", name, got)
		}
	}
}

func TestFieldsHasToken(t *testing.T) {
	f := message.Fields{{Name: "connection", Value: "keep-alive , Upgrade"}, {Name: "connection", Value: "close"}}
	for token, want := range map[string]bool{"upgrade": true, "close": true, "keep": false, "": false} {
		if got := f.HasToken("connection", token); got != want {
			t.Errorf("HasToken(%q) = %v; want %v", token, got, want)
		}
	}
}

// All lines of cookies count as one field.
func TestSettleCountsCookiesAsOneField(t *testing.T) {
	crumbs := slices.Repeat(message.Fields{{Name: "cookie", Value: "a=1"}}, 2000)
	others := slices.Repeat(message.Fields{{Name: "x-a", Value: "1"}}, 999)
	h := head(append(slices.Clone(others), crumbs...)...)
	if err := h.Settle(); err != nil || len(h.Fields) != 1000 || len(h.Fields.Get("cookie")) != 2000*len("a=1; ")-2 {
		t.Errorf("%v, %d fields", err, len(h.Fields))
	}
	if err := head(slices.Concat(others, others[:1], crumbs)...).Settle(); !errors.Is(err, message.ErrTooManyLines) {
		t.Errorf("1001 fields: %v", err)
	}
}
