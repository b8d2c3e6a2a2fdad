package differential

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// draft is a request before it is bytes, so that mutations know what they touch.
type draft struct {
	line  string   // the request line
	lines []string // field lines
	ends  []string // of the request line, each field line, and the head
	body  string
}

// generate makes the n-th case of a seed: an honest request for /case/ID, with up
// to four things wrong with it, and honest requests behind it. HOST stands for the
// host of the reader; all are of one length.
func generate(seed uint64, n int) string {
	r := rand.New(rand.NewPCG(seed, uint64(n)))
	id := fmt.Sprintf("/case/%06d", n)
	d := honest(r, id)
	for range r.IntN(5) {
		mutations[r.IntN(len(mutations))](r, d)
	}
	raw := d.String()
	if r.IntN(4) == 0 {
		raw = bend(r, raw)
	}
	if r.IntN(3) == 0 {
		raw += honest(r, id+"/2").String()
	}
	return raw + "GET " + id + "/end HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n"
}

const marker = "GET /smuggled HTTP/1.1\r\nHost: any.test\r\n\r\n"

// honest is a request without fault. Its content may be such as a reader that ends
// it too early, or too late, takes for a request.
func honest(r *rand.Rand, id string) *draft {
	d := &draft{line: pick(r, "GET", "POST", "POST", "PUT", "DELETE", "BREW") + " " + id + pick(r, "", "", "?a=b", "/x") + " HTTP/1.1", lines: []string{"Host: HOST"}}
	content := pick(r, "", "hello", marker, "0\r\n\r\n"+marker, "a\x00\xff\r\n", strings.Repeat("x", 3000))
	switch r.IntN(4) {
	case 0, 1:
		d.lines, d.body = append(d.lines, fmt.Sprintf("Content-Length: %d", len(content))), content
	case 2:
		d.lines, d.body = append(d.lines, "Transfer-Encoding: chunked"), chunked(r, content)
	}
	if r.IntN(2) == 0 {
		d.lines = append(d.lines, pick(r, "Accept: */*", "X-A: b", "Cookie: a=b", "TE: trailers", "Connection: keep-alive", "User-Agent: x"))
	}
	for range len(d.lines) + 2 {
		d.ends = append(d.ends, "\r\n")
	}
	return d
}

func chunked(r *rand.Rand, content string) string {
	var b strings.Builder
	for content != "" {
		n := 1 + r.IntN(len(content))
		fmt.Fprintf(&b, "%x%s\r\n%s\r\n", n, pick(r, "", "", "", ";x", ";x=\"y\""), content[:n])
		content = content[n:]
	}
	return b.String() + "0\r\n" + pick(r, "", "", "X-Sum: 1\r\n") + "\r\n"
}

func (d *draft) String() string {
	var b strings.Builder
	b.WriteString(d.line + d.ends[0])
	for i, l := range d.lines {
		b.WriteString(l + d.ends[i+1])
	}
	return b.String() + d.ends[len(d.lines)+1] + d.body
}

// add puts a field line at a random place.
func (d *draft) add(r *rand.Rand, line string) {
	i := r.IntN(len(d.lines) + 1)
	d.lines = append(d.lines[:i], append([]string{line}, d.lines[i:]...)...)
	d.ends = append(d.ends, "\r\n")
}

// field changes the value of a field, if it is there; otherwise it is added.
func (d *draft) field(r *rand.Rand, name, value string) {
	for i, l := range d.lines {
		if strings.HasPrefix(l, name+":") {
			d.lines[i] = name + ": " + value
			return
		}
	}
	d.add(r, name+": "+value)
}

func pick(r *rand.Rand, from ...string) string { return from[r.IntN(len(from))] }

// replace replaces old in a random place of s where it stands.
func replace(r *rand.Rand, s, old, with string) string {
	n := strings.Count(s, old)
	if n == 0 {
		return s
	}
	at := 0
	for range r.IntN(n) {
		at += strings.Index(s[at:], old) + len(old)
	}
	at += strings.Index(s[at:], old)
	return s[:at] + with + s[at+len(old):]
}

var (
	lengths = []string{"0", "5", "05", "+5", "-5", "0x5", "5,5", "5, 6", "", " ", "5 5", "5\v", "1e1", "5.0", "5;", "\"5\"", "\u0665",
		"9223372036854775808", "18446744073709551621", "99999999999999999999999", "37", "38", "3000"}
	codings = []string{"chunked", "Chunked", "xchunked", "chunked, chunked", "identity", "gzip, chunked", "chunked, gzip", "chunked;q=1", "\"chunked\"", "", "chun ked",
		"chunked,", ", chunked", "\vchunked", "chunked\x00", "chun\u212aed", "\u00a0chunked", "trailers", "chunked\t"}
	sizes = []string{"0", "5", "05", "+5", "-5", "0x5", "5 ", " 5", "5\t", "5;", "5;a\rb", "5;a\nb", "5 ;a", "fffffffffffffffff", "10000000000000005", "5h", "", "5\x00", "5_0", "g", ";a"}
	hosts = []string{"HOST", "HOST:80", "evil.test", "", "HOST, evil.test", "HOST evil.test", "u@HOST", "HOST/case", "HOST.", "[::1]", "HOST:0", "HOST\x00", "ho\xc3\xa9"}
	ends  = []string{"\n", "\r", "\r\r\n", "\n\r", "\r\n\r\n", "\r\n ", "\r\n\t", "\v\r\n", " \r\n", "\x00\r\n", "\r\n\n", "\u0085", "\r\n\r"}
	blank = []string{" ", "\t", "  ", "\v", "\f", "\x00", "\r", "\u00a0", ""}
)

// mutations are one thing each that clients do to be read in two ways.
var mutations = []func(*rand.Rand, *draft){
	// What ends the content.
	func(r *rand.Rand, d *draft) { d.field(r, "Content-Length", pick(r, lengths...)) },
	func(r *rand.Rand, d *draft) { d.add(r, "Content-Length: "+pick(r, lengths...)) },
	func(r *rand.Rand, d *draft) { d.field(r, "Transfer-Encoding", pick(r, codings...)) },
	func(r *rand.Rand, d *draft) { d.add(r, "Transfer-Encoding: "+pick(r, codings...)) },
	func(r *rand.Rand, d *draft) {
		name := pick(r, "Transfer-Encoding", "Content-Length")
		other := pick(r, name+" ", name+"\t", " "+name, strings.ReplaceAll(name, "-", "_"), strings.ReplaceAll(name, "-", "."), strings.ToUpper(name), name+"\x00", name+"\r", "X\r\n"+name, "X:y\n"+name, "\v"+name, name+":", "")
		for i, l := range d.lines {
			d.lines[i] = strings.Replace(l, name, other, 1)
		}
	},
	func(r *rand.Rand, d *draft) {
		d.add(r, pick(r, "Transfer_Encoding: chunked", "Transfer-Encoding : chunked", "Transfer-Encoding\n: chunked", "transfer-encoding:chunked", "Content_Length: 5", "Content-Length : 5", "Content-Length\t: 5"))
	},
	func(r *rand.Rand, d *draft) {
		d.add(r, pick(r, "Connection: transfer-encoding", "Connection: content-length", "Connection: host, keep-alive", "Connection: close, x-a", "Connection: close", "Connection: upgrade", "Connection: \u212aeep-alive", "Proxy-Connection: close", "Keep-Alive: 5"))
	},
	func(r *rand.Rand, d *draft) {
		d.add(r, pick(r, "Trailer: content-length", "Trailer: X-Sum", "TE: chunked", "TE: trailers, gzip", "Content-Encoding: chunked", "X-HTTP-Method-Override: DELETE", "X-Original-URL: /smuggled", "X-Rewrite-URL: /smuggled"))
	},
	func(r *rand.Rand, d *draft) {
		d.add(r, pick(r, "Expect: 100-continue", "Expect: 200-ok", "Expect: 100-continue, x", "Expect:", "Upgrade: h2c", "Upgrade: websocket\r\nConnection: upgrade", "HTTP2-Settings: AAMAAABk\r\nUpgrade: h2c\r\nConnection: upgrade, http2-settings"))
	},

	// The chunks.
	func(r *rand.Rand, d *draft) { d.body = replace(r, d.body, "0\r\n", pick(r, sizes...)+"\r\n") },
	func(r *rand.Rand, d *draft) { d.body = replace(r, d.body, "\r\n", pick(r, ends...)) },
	func(r *rand.Rand, d *draft) { d.body = replace(r, d.body, "\r\n", "") },
	func(r *rand.Rand, d *draft) {
		d.body = pick(r, sizes...) + "\r\n" + pick(r, "", "hello", "hello\r\n", "hell\r\n", "hello!\r\n", marker) + d.body
	},
	func(r *rand.Rand, d *draft) {
		d.body = strings.TrimSuffix(d.body, "\r\n") + pick(r, "Content-Length: 5\r\n\r\n", "Transfer-Encoding: gzip\r\n\r\n", "Host: evil.test\r\n\r\n", "X : y\r\n\r\n", "X: y\n\r\n", "X\r\n\r\n", " x\r\n\r\n", "X: y\x00\r\n\r\n", marker)
	},
	func(r *rand.Rand, d *draft) {
		d.body += pick(r, marker, "\r\n", "\n", "\x00", "0\r\n\r\n", "\r\n"+marker, "x"+marker)
	},

	// The lines.
	func(r *rand.Rand, d *draft) { d.ends[r.IntN(len(d.ends))] = pick(r, ends...) },
	func(r *rand.Rand, d *draft) { d.ends[r.IntN(len(d.ends))] = "" },
	func(r *rand.Rand, d *draft) { d.line = replace(r, d.line, " ", pick(r, blank...)) },
	func(r *rand.Rand, d *draft) {
		i := r.IntN(len(d.lines))
		d.lines[i] = strings.Replace(d.lines[i], ":", pick(r, " :", "\t:", "", "::", ":\v", ":\r", ":\x00", ":\r\n ", ";"), 1)
	},
	func(r *rand.Rand, d *draft) {
		d.add(r, pick(r, "X\x00: y", "X Y: z", "X(: y", "\xc3\xa9: y", ": y", "X", "", " X: y", "\tX: y", "X: y\x00", "X: y\x1b", "X: y\x7f", "X: \xff\xfe", "X: y\rZ: w", "X_Y: z", "X.Y: z", "!#$%&'*+-.^_`|~: y", "X: "+strings.Repeat("y", 20000)))
	},

	// The request line.
	func(r *rand.Rand, d *draft) {
		d.line = replace(r, d.line, "HTTP/1.1", pick(r, "HTTP/1.0", "HTTP/1.2", "HTTP/2.0", "HTTP/0.9", "http/1.1", "HTTP/1.1 ", "HTTP/1.10", "HTTP/+1.1", "", "HTTP/1.1\rX: y"))
	},
	func(r *rand.Rand, d *draft) {
		_, rest, _ := strings.Cut(d.line, " ")
		d.line = pick(r, "HEAD", "OPTIONS", "PATCH", "TRACE", "CONNECT", "get", "Post", "G", "GE/T", "GET:", "\"GET\"", "G\x00ET", "PRI", "M-SEARCH", "X#Y", "X_Y", "!", "X1", strings.Repeat("X", 21), strings.Repeat("X", 500)) + " " + rest
	},
	func(r *rand.Rand, d *draft) {
		d.line = replace(r, d.line, "/case/", pick(r, "http://HOST/case/", "http://evil.test/case/", "https://HOST/case/", "//case/", "/./case/", "/x/../case/", "/smuggled/../case/", "/case/%2e%2e/case/", "\\case/", "/CASE/", "/%63ase/", "*", "HOST:80", "/case;x/", "/case/\xc3\xa9", "?/case/"))
	},
	func(r *rand.Rand, d *draft) {
		d.line = replace(r, d.line, " HTTP", pick(r, "?q", "#f", "?a#b", "%00", "%0d%0aHost:%20evil.test", "%2f", "%5c", "%zz", "%", "?%zz", "?a=|^`\"{}", "?a=<", "?\\", "??", ";p", "/..", "/.", "//", ":80", "@evil.test", "?http://evil.test", "\x7f", "%C3%A9", "%c3%a9", "%ff", "?%00", strings.Repeat("a", 9000))+" HTTP")
	},

	// Host.
	func(r *rand.Rand, d *draft) { d.field(r, "Host", pick(r, hosts...)) },
	func(r *rand.Rand, d *draft) {
		d.add(r, pick(r, "Host: ", "HOST: ", "Host:\t", "Host : ")+pick(r, hosts...))
	},
}

// bend changes a byte somewhere, but for where the case is named.
func bend(r *rand.Rand, raw string) string {
	i := r.IntN(len(raw))
	if at := strings.Index(raw, "/case/"); at >= 0 && i >= at && i < at+len("/case/000000") {
		return raw
	}
	c := pick(r, "\x00", "\r", "\n", " ", "\t", ":", ",", ";", "\x80", "\xff", "0", "a", "\r\n", "\x7f", "/")
	switch r.IntN(3) {
	case 0:
		return raw[:i] + c + raw[i:]
	case 1:
		return raw[:i] + c + raw[i+1:]
	}
	return raw[:i] + raw[i+1:]
}
