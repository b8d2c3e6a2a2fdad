package interop_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"sallyport/auth/httpsig"
)

// choices are decisions, one a byte, so that a fuzzer can find its way; when they
// have run out, the first option is taken.
type choices struct{ data []byte }

func (c *choices) below(n int) int {
	if len(c.data) == 0 {
		return 0
	}
	b := c.data[0]
	c.data = c.data[1:]
	return int(b) % n
}

func (c *choices) of(options ...string) string { return options[c.below(len(options))] }

// covered is one component; its query parameter is kept as it is decoded.
type covered struct {
	name, key, param string
	sf, bs, tr, req  bool
}

// String writes it as our policies and profiles have it.
func (c covered) String() string {
	s := c.name
	if c.key != "" {
		s += `;key="` + c.key + `"`
	}
	if c.param != "" {
		s += `;name="` + encoded(c.param) + `"`
	}
	for _, flag := range []struct {
		on   bool
		text string
	}{{c.sf, ";sf"}, {c.bs, ";bs"}, {c.tr, ";tr"}, {c.req, ";req"}} {
		if flag.on {
			s += flag.text
		}
	}
	return s
}

func names(all []covered) []string {
	var texts []string
	for _, c := range all {
		texts = append(texts, c.String())
	}
	return texts
}

// encoded is the percent-encoding of RFC 9421, section 2.2.8.
func encoded(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if strings.IndexByte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789*-._", s[i]) >= 0 {
			b.WriteByte(s[i])
		} else {
			fmt.Fprintf(&b, "%%%02X", s[i])
		}
	}
	return b.String()
}

// sample is a message to be signed, and what is to be covered.
type sample struct {
	method, scheme, host, path, query string // query with its "?"
	fields                            http.Header
	status                            int // 0: the request is signed
	response, trailers                http.Header
	cover                             []covered
	ed25519, alg                      bool
}

// made makes a sample of choices.
func made(c *choices) *sample {
	s := &sample{
		method: c.of("POST", "GET", "PUT", "get", "M-SEARCH"),
		scheme: c.of("https", "http"),
		host:   c.of("example.com", "EXAMPLE.com", "example.com:443", "example.com:80", "example.com:8443", "[2001:db8::1]", "[2001:DB8::1]:443"),
		fields: fields(c),
	}
	for range c.below(5) {
		s.path += "/" + c.of("a", "", "v1", "%2F", "%2f", "%61", "%C3%A4", "~x", "a:b@c", "!$&'()*+,;=", "..", ".", "%25")
	}
	if s.path == "" {
		s.path = c.of("/", "")
	}
	for i := range c.below(5) {
		s.query += []string{"?", "&"}[min(i, 1)] + c.of("q=1", "", "q=a%20b", "z=a+b", "q=%7E~", "p=*-._", "na%20me=v", "empty=", "flag", "x=%C3%A4", "semi=a;b", "bad=%zz")
	}
	s.ed25519, s.alg = c.below(2) == 1, c.below(2) == 1
	requested := []covered{{name: "@method"}, {name: "@authority"}, {name: "@path"}, {name: "@query"}, {name: "@target-uri"},
		{name: "@scheme"}, {name: "@request-target"}, {name: "@query-param", param: "q"}, {name: "@query-param", param: "na me"},
		{name: "@query-param", param: "empty"}, {name: "@query-param", param: "p"}, {name: "@query-param", param: "z"}}
	all := append(requested, ofFields(s.fields)...)
	if c.below(3) == 0 {
		s.status = []int{200, 404, 503}[c.below(3)]
		s.response, s.trailers = fields(c), fields(c)
		for i := range all {
			all[i].req = true
		}
		all = append(all, covered{name: "@status"})
		all = append(all, ofFields(s.response)...)
		for _, t := range ofFields(s.trailers) {
			t.tr = true
			all = append(all, t)
		}
	}
	for range 1 + c.below(8) {
		if one := all[c.below(len(all))]; !slices.Contains(s.cover, one) {
			s.cover = append(s.cover, one)
		}
	}
	return s
}

func fields(c *choices) http.Header {
	h := http.Header{"Content-Type": {"text/plain"}}
	for range 1 + c.below(3) {
		h.Add("X-Plain", c.of("v", "", "a, b", "a,b", "two  spaces", `"q"; x=1`, "  padded\t", "~!@#$%^&*()", "-0.0"))
		h.Add("X-Dict", c.of("a=1,    b=2;x=1", "c=(a   b), d", "e, f;x", `g="a, b";y=?1`, "h=:AA==:;z=1.50", "i=-0.0"))
		h.Add("X-List", c.of("1,  2", "(a   b);x", `"q",:AA==:`, "?0"))
		if len(h["X-Dict"]) > 1 { // no key twice
			if d := h["X-Dict"]; slices.Contains(d[:len(d)-1], d[len(d)-1]) {
				h["X-Dict"] = d[:len(d)-1]
			}
		}
	}
	h.Set("X-Item", c.of("1.50", "tok;x", `"q"`, ":AA==:; y"))
	return h
}

// ofFields are the components that such fields can be.
func ofFields(h http.Header) []covered {
	all := []covered{{name: "content-type"}, {name: "x-plain"}, {name: "x-plain", bs: true}, {name: "x-dict"}, {name: "x-dict", sf: true},
		{name: "x-dict", bs: true}, {name: "x-list"}, {name: "x-list", sf: true}, {name: "x-item", sf: true}}
	for _, key := range strings.Split("abcdefghi", "") {
		if strings.Contains(strings.Join(h["X-Dict"], " "), key) {
			all = append(all, covered{name: "x-dict", key: key})
		}
	}
	return all
}

// lines are those of the field that a component is about.
func (s *sample) lines(c covered) []string {
	h := s.fields
	switch {
	case c.tr:
		h = s.trailers
	case s.status != 0 && !c.req:
		h = s.response
	}
	return h[http.CanonicalHeaderKey(c.name)]
}

// request is the sample as net/http has it at a client.
func (s *sample) request(t testing.TB) *http.Request {
	t.Helper()
	r, err := http.NewRequest(s.method, s.scheme+"://"+s.host+s.path+s.query, bytes.NewReader(nil))
	if err != nil {
		t.Fatal(err)
	}
	r.Header = s.fields.Clone()
	return r
}

// answer is the sample as net/http has a response.
func (s *sample) answer(t testing.TB) *http.Response {
	return &http.Response{StatusCode: s.status, Header: s.response.Clone(), Trailer: s.trailers.Clone(),
		Request: s.request(t), Body: io.NopCloser(strings.NewReader(""))}
}

// message is the sample as ours has it: the target byte for byte.
func (s *sample) message() *httpsig.Message {
	kinds := map[string]httpsig.Kind{"x-dict": httpsig.Dictionary, "x-list": httpsig.List, "x-item": httpsig.Item}
	m := &httpsig.Message{Method: s.method, Scheme: s.scheme, Authority: s.host, Path: s.path,
		Fields: httpsig.Header(s.fields), Structured: kinds}
	m.Query, m.HasQuery = strings.CutPrefix(s.query, "?")
	if s.status == 0 {
		return m
	}
	return &httpsig.Message{Status: s.status, Request: m, Fields: httpsig.Header(s.response),
		Trailers: httpsig.Header(s.trailers), Structured: kinds}
}

// clone is a copy to be changed.
func (s *sample) clone() *sample {
	c := *s
	c.fields, c.response, c.trailers = s.fields.Clone(), s.response.Clone(), s.trailers.Clone()
	return &c
}

// changed is the sample with another value of one component that is covered.
func (s *sample) changed(c covered) *sample {
	o := s.clone()
	switch c.name {
	case "@method":
		o.method += "X"
	case "@authority", "@target-uri":
		o.host = "other.example"
	case "@scheme":
		o.scheme = map[string]string{"http": "https", "https": "http"}[s.scheme]
	case "@path", "@request-target":
		o.path += "/changed"
	case "@query":
		o.query = "?changed"
	case "@query-param":
		o.query = "?" + encoded(c.param) + "=changed"
	case "@status":
		o.status++
	default:
		lines := o.lines(c)
		for i := range lines {
			lines[i] = "changed"
		}
		if c.key != "" {
			lines[0] = c.key + "=changed"
		}
	}
	return o
}

// attach adds a signature to the fields of what is signed.
func (s *sample) attach(input, signature string) *sample {
	o := s.clone()
	h := o.fields
	if s.status != 0 {
		h = o.response
	}
	h.Set("Signature-Input", input)
	h.Set("Signature", signature)
	return o
}
