package proxy_test

import (
	"strings"
)

// smugglesOfChunks are faults within a chunked body. The upstream may see its beginning but not its
// end.
func smugglesOfChunks(post string) []smuggle {
	var rows []smuggle
	for name, body := range map[string]string{
		"size with 0x":                "0x5\r\nhello\r\n0\r\n\r\n",
		"negative size":               "-5\r\nhello\r\n0\r\n\r\n",
		"size with a sign":            "+5\r\nhello\r\n0\r\n\r\n",
		"empty size":                  "\r\nhello\r\n0\r\n\r\n",
		"size in words":               "five\r\nhello\r\n0\r\n\r\n",
		"size with a space before it": " 5\r\nhello\r\n0\r\n\r\n",
		"size with a tab before it":   "\t5\r\nhello\r\n0\r\n\r\n",
		"size with an underscore":     "0_5\r\nhello\r\n0\r\n\r\n",
		"size with NUL":               "5\x00\r\nhello\r\n0\r\n\r\n",
		"size with VT":                "5\v\r\nhello\r\n0\r\n\r\n",
		"size of 2^64":                "10000000000000000\r\nhello\r\n0\r\n\r\n",
		"size of 2^64+5":              "10000000000000005\r\nhello\r\n0\r\n\r\n",
		"size of many zeros":          strings.Repeat("0", 40) + "5\r\nhello\r\n0\r\n\r\n",
		"bare LF after the size":      "5\nhello\r\n0\r\n\r\n",
		"bare CR after the size":      "5\rhello\r\n0\r\n\r\n",
		"bare CR in an extension":     "5;a\rb\r\nhello\r\n0\r\n\r\n",
		"bare LF in an extension":     "5;a\nb\r\nhello\r\n0\r\n\r\n",
		"no CRLF after the data":      "5\r\nhello0\r\n\r\n",
		"bare LF after the data":      "5\r\nhello\n0\r\n\r\n",
		"bare CR after the data":      "5\r\nhello\r0\r\n\r\n",
		"two bytes after the data":    "5\r\nhelloXX0\r\n\r\n",
		"a size too small":            "4\r\nhello\r\n0\r\n\r\n",
		"huge extension":              "5;" + strings.Repeat("a", 10_000) + "\r\nhello\r\n0\r\n\r\n",
		"many extensions":             strings.Repeat("1;"+strings.Repeat("a", 2000)+"\r\nx\r\n", 15) + "0\r\n\r\n",
		"bare LF after the last size": "5\r\nhello\r\n0\n\r\n",
		"space in a trailer's name":   "5\r\nhello\r\n0\r\nX Y: a\r\n\r\n",
		"bare CR in a trailer":        "5\r\nhello\r\n0\r\nX: a\rb\r\n\r\n",
		"NUL in a trailer":            "5\r\nhello\r\n0\r\nX: a\x00b\r\n\r\n",
		"a trailer without a colon":   "5\r\nhello\r\n0\r\nX\r\n\r\n",
		"NUL in a trailer's name":     "5\r\nhello\r\n0\r\nX\x00: a\r\n\r\n",
		"huge trailers":               "5\r\nhello\r\n0\r\n" + strings.Repeat("X: "+strings.Repeat("a", 1000)+"\r\n", 20) + "\r\n",
	} {
		rows = append(rows, smuggle{"chunks: " + name, post + "Transfer-Encoding: chunked\r\n\r\n" + body + "{s}", "400", ""})
	}
	chunks := "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n"
	return append(rows,
		smuggle{"chunks: trailer Content-Length announced", post + "Trailer: Content-Length\r\n" + chunks + "\r\n{s}", "400", ""},
		smuggle{"chunks: trailer Transfer-Encoding announced", post + "Trailer: Transfer-Encoding\r\n" + chunks + "\r\n{s}", "400", ""},
		smuggle{"chunks: trailer Host announced", post + "{c}Trailer: Host\r\n" + chunks + "Host: evil.test\r\n\r\n", "200", "POST {p} hello"},
		smuggle{"chunks: framing in trailers", post + "{c}" + chunks + "Content-Length: 3\r\nTransfer-Encoding: gzip\r\nHost: evil.test\r\n\r\n", "200", "POST {p} hello"},
		smuggle{"chunks: credentials in trailers", post + "{c}" + chunks + "Authorization: Bearer x\r\nCookie: a=b\r\nContent-Type: text/x\r\n\r\n", "200", "POST {p} hello"},
	)
}

// smugglesOfLines are faults of the request line, expectations and upgrades.
func smugglesOfLines() []smuggle {
	rows := []smuggle{
		{"no version", "GET {p}\r\n{h}\r\n{s}", "400", ""},
		{"HTTP/0.9", "GET {p} HTTP/0.9\r\n{h}\r\n{s}", "505", ""},
		{"HTTP/1.2", "GET {p} HTTP/1.2\r\n{h}\r\n{s}", "505", ""},
		{"HTTP/1.9", "POST {p} HTTP/1.9\r\n{h}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{s}", "505", ""},
		{"HTTP/2.0", "GET {p} HTTP/2.0\r\n{h}\r\n{s}", "505", ""},
		{"HTTP/3.0", "GET {p} HTTP/3.0\r\n{h}\r\n{s}", "505", ""},
		{"HTTP/1.10", "GET {p} HTTP/1.10\r\n{h}\r\n{s}", "400", ""},
		{"HTTP/01.1", "GET {p} HTTP/01.1\r\n{h}\r\n{s}", "400", ""},
		{"HTTP/1.1 in lower case", "GET {p} http/1.1\r\n{h}\r\n{s}", "400", ""},
		{"HTTP/1,1", "GET {p} HTTP/1,1\r\n{h}\r\n{s}", "400", ""},
		{"HTTP/+1.1", "GET {p} HTTP/+1.1\r\n{h}\r\n{s}", "400", ""},
		{"HTTP /1.1", "GET {p} HTTP /1.1\r\n{h}\r\n{s}", "400", ""},
		{"another protocol", "GET {p} RTSP/1.0\r\n{h}\r\n{s}", "400", ""},
		{"the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{s}", "505", ""},
		{"the preface of HTTP/2 with fields", "PRI * HTTP/2.0\r\n{h}\r\n{s}", "505", ""},
		{"two spaces before the target", "GET  {p} HTTP/1.1\r\n{h}\r\n{s}", "400", ""},
		{"two spaces before the version", "GET {p}  HTTP/1.1\r\n{h}\r\n{s}", "400", ""},
		{"a space at the end", "GET {p} HTTP/1.1 \r\n{h}\r\n{s}", "400", ""},
		{"a space at the beginning", " GET {p} HTTP/1.1\r\n{h}\r\n{s}", "400", ""},
		{"a space in the target", "GET {p}/a b HTTP/1.1\r\n{h}\r\n{s}", "400", ""},
		{"a tab for a space", "GET\t{p} HTTP/1.1\r\n{h}\r\n{s}", "400", ""},
		{"a tab in the target", "GET {p}\ta HTTP/1.1\r\n{h}\r\n{s}", "400", ""},
		{"a bare CR in the line", "GET {p} HTTP/1.1\rX: y\r\n{h}\r\n{s}", "400", ""},
		{"a bare CR in the target", "GET {p}\rX HTTP/1.1\r\n{h}\r\n{s}", "400", ""},
		{"NUL in the target", "GET {p}\x00 HTTP/1.1\r\n{h}\r\n{s}", "400", ""},
		{"a target that is not ASCII", "GET {p}\xc3\xa9 HTTP/1.1\r\n{h}\r\n{s}", "400", ""},
		{"a version in the target", "GET {p}%20HTTP/1.1%0d%0aHost:%20evil.test HTTP/1.1\r\n{h}\r\n{s}", "400", ""},
		{"an empty line first", "\r\nGET {p} HTTP/1.1\r\n{h}\r\n{s}", "400", ""},
		{"an empty target", "GET  HTTP/1.1\r\n{h}\r\n{s}", "400", ""},
		{"absolute form", "GET http://models.test{p} HTTP/1.1\r\n{h}\r\n{s}", "400", ""},
		{"absolute form of another host", "GET http://evil.test{p} HTTP/1.1\r\n{h}\r\n{s}", "400", ""},
		{"absolute form with https", "GET https://models.test{p} HTTP/1.1\r\n{h}{c}\r\n", "200", "GET {p}"},
		{"absolute form with another port", "GET https://models.test:8443{p} HTTP/1.1\r\n{h}\r\n{s}", "400", ""},
		{"absolute form with a user", "GET https://models.test@evil.test{p} HTTP/1.1\r\n{h}\r\n{s}", "400", ""},
		{"absolute form without a host", "GET http:{p} HTTP/1.1\r\n{h}\r\n{s}", "400", ""},
		{"a scheme without a meaning", "GET x:{p} HTTP/1.1\r\n{h}\r\n{s}", "400", ""},
		{"a target with a host", "GET //evil.test{p} HTTP/1.1\r\n{h}\r\n{s}", "400", ""},
		{"authority form", "GET models.test:443 HTTP/1.1\r\n{h}\r\n{s}", "400", ""},
		{"asterisk form", "OPTIONS * HTTP/1.1\r\n{h}\r\n{s}", "400", ""},
		{"a backslash first", "GET \\{p} HTTP/1.1\r\n{h}\r\n{s}", "400", ""},
		{"CONNECT", "CONNECT models.test:443 HTTP/1.1\r\n{h}\r\n{s}", "501", ""},
		{"CONNECT to a path", "CONNECT {p} HTTP/1.1\r\n{h}\r\n{s}", "501", ""},
		{"TRACE", "TRACE {p} HTTP/1.1\r\n{h}\r\n{s}", "501", ""},
		{"TRACK", "TRACK {p} HTTP/1.1\r\n{h}\r\n{s}", "501", ""},
		{"a method with a slash", "GE/T {p} HTTP/1.1\r\n{h}\r\n{s}", "400", ""},
		{"a method with a colon", "GET: {p} HTTP/1.1\r\n{h}\r\n{s}", "400", ""},
		{"a method in quotes", "\"GET\" {p} HTTP/1.1\r\n{h}\r\n{s}", "400", ""},
		{"a method that is not ASCII", "G\xc3\x89T {p} HTTP/1.1\r\n{h}\r\n{s}", "400", ""},
		{"a method with NUL", "GE\x00T {p} HTTP/1.1\r\n{h}\r\n{s}", "400", ""},
		{"an unknown method", "BREW {p} HTTP/1.1\r\n{h}{c}\r\n", "200", "BREW {p}"},
		{"TLS in TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n{s}", "400", ""},
		{"garbage", "\x80\x81\x82\x83\r\n\r\n{s}", "400", ""},

		{"an odd expectation", "POST {p} HTTP/1.1\r\n{h}Expect: 200-ok\r\nContent-Length: 5\r\n\r\nhello{s}", "417", ""},
		{"two expectations", "POST {p} HTTP/1.1\r\n{h}Expect: 100-continue\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello{s}", "400", ""},
		{"a list of expectations", "POST {p} HTTP/1.1\r\n{h}Expect: 100-continue, 200-ok\r\nContent-Length: 5\r\n\r\nhello{s}", "417", ""},
		{"an expectation with a parameter", "POST {p} HTTP/1.1\r\n{h}Expect: 100-continue;q=1\r\nContent-Length: 5\r\n\r\nhello{s}", "417", ""},
		{"an expectation that is met", "POST {p} HTTP/1.1\r\n{h}{c}Expect: 100-Continue\r\nContent-Length: 5\r\n\r\nhello", "100 200", "POST {p} hello"},
		{"an expectation without a body", "GET {p} HTTP/1.1\r\n{h}{c}Expect: 100-continue\r\n\r\n", "200", "GET {p}"},
		{"an expectation refused early", "POST {p} HTTP/1.1\r\nHost: models.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello{s}", "401", ""},
		{"an expectation of HTTP/1.0", "POST {p} HTTP/1.0\r\n{h}Expect: 100-continue\r\nContent-Length: 5\r\n\r\nhello", "200", "POST {p} hello"},

		{"h2c upgrade with a body", "POST {p} HTTP/1.1\r\n{h}Connection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\nContent-Length: 5\r\n\r\nhello", "200", "POST {p} hello"},
		{"websocket upgrade where none is", "GET {p} HTTP/1.1\r\n{h}Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n{s}GET / HTTP/1.1\r\n\r\n", "200 401 400", "GET {p}"},
		{"an empty cookie line beside another", "GET {p} HTTP/1.1\r\n{h}{c}Cookie: a=1\r\nCookie: \r\n\r\n", "400", ""},
		{"two upgrades", "GET {p} HTTP/1.1\r\n{h}Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n\r\n{s}", "400", ""},
	}
	return rows
}

// smugglesOfHosts are faults of Host.
func smugglesOfHosts() []smuggle {
	auth := "Authorization: Bearer TOKEN\r\n"
	rows := []smuggle{
		{"host: missing", "GET {p} HTTP/1.1\r\n" + auth + "\r\n{s}", "400", ""},
		{"host: missing in HTTP/1.0", "GET {p} HTTP/1.0\r\n" + auth + "\r\n{s}", "200", "GET {p}"},
		{"host: with an empty port", "GET {p} HTTP/1.1\r\nHost: models.test:\r\n" + auth + "{c}\r\n", "200", "GET {p}"},
		{"host: twice", "GET {p} HTTP/1.1\r\nHost: models.test\r\n{h}\r\n{s}", "400", ""},
		{"host: twice in two cases", "GET {p} HTTP/1.1\r\nHOST: evil.test\r\n{h}\r\n{s}", "400", ""},
		{"host: another by absolute form", "GET http://models.test{p} HTTP/1.1\r\nHost: evil.test\r\n" + auth + "\r\n{s}", "400", ""},
		{"host: in other letters", "GET {p} HTTP/1.1\r\nHost: MODELS.test.:443\r\n" + auth + "{c}\r\n", "200", "GET {p}"},
	}
	for _, host := range []string{
		"", " ", "user@models.test", "user:pw@models.test", "models.test/x", "models.test/../x", "models.test?x", "models.test#x", ":", "models.test::", "models.test:0", "models.test:x", "models.test:443x",
		"models.test:+443", "models.test:-1", "models.test:99999", "models.test:0443", "models.test:443:443", "models.test, evil.test", "models.test evil.test", "models.test\tevil.test", "models.test,", "models..test", ".models.test", "models.test..",
		"http://models.test", "[models.test]", "[::1", "::1", "models.test%00", "models%2etest", "models.test\\x", "mod\xc3\xa9ls.test", "models.test\x00", "models.test\x00.evil.test", "*.test", "(models.test)", "'models.test'", "models.test;x", "models.test&x", "{models.test}",
	} {
		rows = append(rows, smuggle{"host: " + strings.ToValidUTF8(host, "?"), "GET {p} HTTP/1.1\r\nHost: " + host + "\r\n" + auth + "\r\n{s}", "400", ""})
	}
	return rows
}

// smugglesOfLenience are requests that net/http and other lenient servers accept: two framings,
// repeated framings, bare LF, folded lines.
func smugglesOfLenience() []smuggle {
	post := "POST {p} HTTP/1.1\r\n{h}"
	refused := func(name, raw string) smuggle { return smuggle{name, raw + "{s}", "400", ""} }
	return []smuggle{
		refused("length beside chunks", post+"Content-Length: 30\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
		refused("chunks beside length", post+"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
		refused("one length twice", post+"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello"),
		refused("chunks in HTTP/1.0", "POST {p} HTTP/1.0\r\n{h}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\nhello"),
		refused("bare LF at the end of the request line", "GET {p} HTTP/1.1\n{h}\r\n"),
		refused("bare LF at the end of a field", "GET {p} HTTP/1.1\r\n{h}X: y\n{c}\r\n"),
		refused("bare LF at the end of the head", "GET {p} HTTP/1.1\r\n{h}\n"),
		refused("a folded value", "GET {p} HTTP/1.1\r\n{h}X: a\r\n b\r\n{c}\r\n"),
		refused("a value folded by a tab", "GET {p} HTTP/1.1\r\n{h}X: a\r\n\tb\r\n{c}\r\n"),
		refused("a folded coding", post+"Transfer-Encoding:\r\n chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
		refused("a folded length", post+"Content-Length:\r\n 5\r\n\r\nhello"),
		refused("space after a chunk's size", post+"Transfer-Encoding: chunked\r\n\r\n5 \r\nhello\r\n0\r\n\r\n"),
		refused("bare LF in trailers", post+"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\nZ: z\r\n\r\n"),
		refused("a folded trailer", post+"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n z\r\n\r\n"),
	}
}
