package proxy_test

import "strings"

// probesOfLines are about the request line and the ends of lines.
func probesOfLines() []probe {
	long := strings.Repeat("a", 7900)
	return []probe{
		{id: "a plain request", section: "3", raw: "GET /p HTTP/1.1\r\n{h}\r\n", want: "200", end: stays, sees: "GET /p HTTP/1.1\r\n{h}\r\n"},
		{id: "a bare LF behind the request line", section: "2.2", raw: "GET /p HTTP/1.1\n{h}\r\n", want: "400 bad_syntax"},
		{id: "a bare LF behind a field", section: "2.2", raw: "GET /p HTTP/1.1\r\n{h}X-Test: value\nX-More: value\r\n\r\n", want: "400 bad_syntax"},
		{id: "a bare LF at the head's end", section: "2.2", raw: "GET /p HTTP/1.1\r\n{h}\n", want: "400 bad_syntax"},
		{id: "a bare CR behind the request line", section: "2.2", raw: "GET /p HTTP/1.1\r{h}\r\n", want: "400 bad_syntax"},
		{id: "a bare CR behind a field", section: "2.2", raw: "GET /p HTTP/1.1\r\n{h}X-Test: value\rX-More: value\r\n\r\n", want: "400 bad_syntax"},
		{id: "an empty line first", section: "2.2", raw: "\r\nGET /p HTTP/1.1\r\n{h}\r\n", want: "400 bad_syntax"},
		{id: "two empty lines first", section: "2.2", raw: "\r\n\r\nGET /p HTTP/1.1\r\n{h}\r\n", want: "400 bad_syntax"},
		{id: "a line of blanks alone", section: "3", raw: "   \r\n\r\n", want: "400 bad_syntax"},
		{id: "blanks before the first field", section: "2.2", raw: "GET /p HTTP/1.1\r\n \r\n{h}\r\n", want: "400 bad_syntax"},
		{id: "bytes of no protocol", section: "2.2", raw: "\x83\x00\x1f\xfe\x90\x04\r\n\x7f\xc1\x02\r\n\r\n", want: "400 bad_syntax"},
		{id: "the preface of HTTP/2", section: "9113 3.4", raw: "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", want: "505 bad_version"},
		{id: "no bytes at all", section: "9.3", raw: "", want: "-", end: cut},
		{id: "a head that ends in the middle", section: "8", raw: "GET /p HTTP/1.1\r\n{h}X-Test: value", want: "-", end: cut},

		{id: "two spaces before the target", section: "3", raw: "GET  /p HTTP/1.1\r\n{h}\r\n", want: "400 bad_syntax"},
		{id: "two spaces behind the target", section: "3", raw: "GET /p  HTTP/1.1\r\n{h}\r\n", want: "400 bad_syntax"},
		{id: "a space behind the version", section: "3", raw: "GET /p HTTP/1.1 \r\n{h}\r\n", want: "400 bad_syntax"},
		{id: "a space before the method", section: "3", raw: " GET /p HTTP/1.1\r\n{h}\r\n", want: "400 bad_syntax"},
		{id: "a tab behind the method", section: "3", raw: "GET\t/p HTTP/1.1\r\n{h}\r\n", want: "400 bad_syntax"},
		{id: "no target", section: "3", raw: "GET HTTP/1.1\r\n{h}\r\n", want: "400 bad_syntax"},
		{id: "no method", section: "3", raw: "/p HTTP/1.1\r\n{h}\r\n", want: "400 bad_syntax"},
		{id: "a space in the target", section: "3.2", raw: "GET /p q HTTP/1.1\r\n{h}\r\n", want: "400 bad_syntax"},
		{id: "no version", section: "2.3", raw: "GET /p\r\n{h}\r\n", want: "400 bad_syntax"},
		{id: "a request of HTTP/0.9", section: "2.3", raw: "GET /p\r\n", want: "-", end: cut},
		{id: "version 9.9", section: "2.3", raw: "GET /p HTTP/9.9\r\n{h}\r\n", want: "505 bad_version"},
		{id: "version 1.2", section: "2.5", raw: "GET /p HTTP/1.2\r\n{h}\r\n", want: "505 bad_version"},
		{id: "version 1", section: "2.3", raw: "GET /p HTTP/1\r\n{h}\r\n", want: "400 bad_syntax"},
		{id: "version 01.01", section: "2.3", raw: "GET /p HTTP/01.01\r\n{h}\r\n", want: "400 bad_syntax"},
		{id: "a blank in the version", section: "2.3", raw: "GET /p HTTP/ 1.1\r\n{h}\r\n", want: "400 bad_syntax"},
		{id: "the version in small letters", section: "2.3", raw: "GET /p http/1.1\r\n{h}\r\n", want: "400 bad_syntax"},
		{id: "another protocol", section: "2.3", raw: "GET /p ICAP/1.0\r\n{h}\r\n", want: "400 bad_syntax"},

		{id: "a fragment in the target", section: "3.2", raw: "GET /p#part HTTP/1.1\r\n{h}\r\n", want: "400 ambiguous_path"},
		{id: "the asterisk with GET", section: "3.2.4", raw: "GET * HTTP/1.1\r\n{h}\r\n", want: "400 bad_target"},
		{id: "the asterisk with OPTIONS", section: "3.2.4", raw: "OPTIONS * HTTP/1.1\r\n{h}\r\n", want: "400 bad_target"},
		{id: "the absolute form", section: "3.2.2", raw: "GET https://models.test/p?q=1 HTTP/1.1\r\n{h}\r\n", want: "200", end: stays, sees: "GET /p?q=1 HTTP/1.1\r\n{h}\r\n"},
		{id: "the absolute form with an empty path", section: "3.2.2", raw: "GET https://models.test HTTP/1.1\r\n{h}\r\n", want: "200", end: stays, sees: "GET / HTTP/1.1\r\n{h}\r\n"},
		{id: "the absolute form of another host", section: "3.2.2", raw: "GET https://other.test/p HTTP/1.1\r\n{h}\r\n", want: "400 bad_target"},
		{id: "the absolute form of http over TLS", section: "3.2.2", raw: "GET http://models.test/p HTTP/1.1\r\n{h}\r\n", want: "400 bad_target"},
		{id: "the absolute form with a user", section: "9110 4.2.4", raw: "GET https://user@models.test/p HTTP/1.1\r\n{h}\r\n", want: "400 bad_target"},
		{id: "the authority form with GET", section: "3.2.3", raw: "GET models.test:443 HTTP/1.1\r\n{h}\r\n", want: "400 bad_target"},
		{id: "a target without a slash", section: "3.2.1", raw: "GET p HTTP/1.1\r\n{h}\r\n", want: "400 bad_target"},

		{id: "NUL in the target", section: "3.2", raw: "GET /p\x00q HTTP/1.1\r\n{h}\r\n", want: "400 bad_syntax"},
		{id: "a control in the target", section: "3.2", raw: "GET /p\x01q HTTP/1.1\r\n{h}\r\n", want: "400 bad_syntax"},
		{id: "raw UTF-8 in the target", section: "3.2", raw: "GET /caf\xc3\xa9 HTTP/1.1\r\n{h}\r\n", want: "400 bad_syntax"},
		{id: "UTF-8 in escapes", section: "3986 2.5", raw: "GET /caf%C3%A9 HTTP/1.1\r\n{h}\r\n", want: "200", end: stays, sees: "GET /caf%C3%A9 HTTP/1.1\r\n{h}\r\n"},
		{id: "UTF-8 longer than it need be", section: "3629 3", raw: "GET /p%C0%AFq HTTP/1.1\r\n{h}\r\n", want: "400 ambiguous_path"},
		{id: "raw UTF-8 longer than it need be", section: "3629 3", raw: "GET /p\xc0\xafq HTTP/1.1\r\n{h}\r\n", want: "400 bad_syntax"},
		{id: "an escaped NUL", section: "3986 2.1", raw: "GET /p%00q HTTP/1.1\r\n{h}\r\n", want: "400 ambiguous_path"},
		{id: "an escaped CRLF", section: "3986 2.1", raw: "GET /p%0d%0aX-Test:%20value HTTP/1.1\r\n{h}\r\n", want: "400 ambiguous_path"},
		{id: "a backslash in the path", section: "3986 3.3", raw: "GET /p\\q HTTP/1.1\r\n{h}\r\n", want: "400 ambiguous_path"},
		{id: "an escape that is none", section: "3986 2.1", raw: "GET /p%zz HTTP/1.1\r\n{h}\r\n", want: "400 ambiguous_path"},
		{id: "a dot segment", section: "3986 5.2.4", raw: "GET /read/../p HTTP/1.1\r\n{h}\r\n", want: "400 ambiguous_path"},
		{id: "a target of 7,900 bytes", section: "3", raw: "GET /" + long + " HTTP/1.1\r\n{h}\r\n", want: "200", end: stays, sees: "GET /" + long + " HTTP/1.1\r\n{h}\r\n"},
		{id: "a target of 100,000 bytes", section: "3", raw: "GET /" + strings.Repeat("A", 100_000) + " HTTP/1.1\r\n{h}\r\n", want: "414 target_too_long"},
		{id: "a method of 100,000 bytes", section: "3", raw: strings.Repeat("A", 100_000) + " /p HTTP/1.1\r\n{h}\r\n", want: "414 target_too_long"},
	}
}

// probeToken is the credential of rows that have their own Host.
const probeToken = "Authorization: Bearer TOKEN\r\n"

// probesOfHosts are about Host.
var probesOfHosts = []probe{
	{id: "no Host", section: "3.2", raw: "GET /p HTTP/1.1\r\n" + probeToken + "\r\n", want: "400 bad_authority"},
	{id: "two Hosts", section: "3.2", raw: "GET /p HTTP/1.1\r\n{h}Host: other.test\r\n\r\n", want: "400 bad_field"},
	{id: "one Host twice", section: "3.2", raw: "GET /p HTTP/1.1\r\n{h}Host: models.test\r\n\r\n", want: "400 bad_field"},
	{id: "a list in Host", section: "9110 7.2", raw: "GET /p HTTP/1.1\r\nHost: models.test, other.test\r\n" + probeToken + "\r\n", want: "400 bad_authority"},
	{id: "a user in Host", section: "3.2", raw: "GET /p HTTP/1.1\r\nHost: user@models.test\r\n" + probeToken + "\r\n", want: "400 bad_authority"},
	{id: "a path in Host", section: "3.2", raw: "GET /p HTTP/1.1\r\nHost: models.test/path\r\n" + probeToken + "\r\n", want: "400 bad_authority"},
	{id: "an empty Host", section: "3.2", raw: "GET /p HTTP/1.1\r\nHost: \r\n" + probeToken + "\r\n", want: "400 bad_authority"},
	{id: "Host with an empty port", section: "3986 3.2.3", raw: "GET /p HTTP/1.1\r\nHost: models.test:\r\n" + probeToken + "\r\n", want: "200", end: stays, sees: "GET /p HTTP/1.1\r\n{h}\r\n"},
	{id: "a port that is no number", section: "3986 3.2.3", raw: "GET /p HTTP/1.1\r\nHost: models.test:x\r\n" + probeToken + "\r\n", want: "400 bad_authority"},
	{id: "a host that is not served", section: "9110 7.4", raw: "GET /p HTTP/1.1\r\nHost: other.test\r\n" + probeToken + "\r\n", want: "404 no_route", end: stays},
	{id: "HTTP/1.0 without Host, where one host is all", section: "3.2", raw: "GET /p HTTP/1.0\r\n" + probeToken + "\r\n", want: "200", sees: "GET /p HTTP/1.1\r\n{h}\r\n"},
}

// probesOfFields are about names and values of fields.
func probesOfFields() []probe {
	return []probe{
		{id: "a blank before the colon", section: "5.1", raw: "GET /p HTTP/1.1\r\n{h}X-Test : value\r\n\r\n", want: "400 bad_syntax"},
		{id: "a tab before the colon", section: "5.1", raw: "GET /p HTTP/1.1\r\n{h}X-Test\t: value\r\n\r\n", want: "400 bad_syntax"},
		{id: "a length with a blank before the colon", section: "5.1", raw: "POST /p HTTP/1.1\r\n{h}Content-Length: 11\r\nContent-Length : 5\r\n\r\nhello world", want: "400 bad_syntax"},
		{id: "a tab in a name", section: "5", raw: "POST /p HTTP/1.1\r\n{h}Content-Length: 11\r\nContent\tLength: 99\r\n\r\nhello world", want: "400 bad_syntax"},
		{id: "no name", section: "5", raw: "GET /p HTTP/1.1\r\n{h}: value\r\n\r\n", want: "400 bad_syntax"},
		{id: "no colon", section: "5", raw: "GET /p HTTP/1.1\r\n{h}X-Test\r\n\r\n", want: "400 bad_syntax"},
		{id: "a bracket in a name", section: "5", raw: "GET /p HTTP/1.1\r\n{h}X[Test: value\r\n\r\n", want: "400 bad_syntax"},
		{id: "a name that is not ASCII", section: "5", raw: "GET /p HTTP/1.1\r\n{h}X-T\xc3\xabst: value\r\n\r\n", want: "400 bad_syntax"},
		{id: "a folded value", section: "5.2", raw: "GET /p HTTP/1.1\r\n{h}X-Test: value\r\n more\r\n\r\n", want: "400 bad_syntax"},
		{id: "a value folded by a tab", section: "5.2", raw: "GET /p HTTP/1.1\r\n{h}X-Test: value\r\n\tmore\r\n\r\n", want: "400 bad_syntax"},
		{id: "NUL in a value", section: "9110 5.5", raw: "GET /p HTTP/1.1\r\n{h}X-Test: a\x00b\r\n\r\n", want: "400 bad_syntax"},
		{id: "bare CR in a value", section: "9110 5.5", raw: "GET /p HTTP/1.1\r\n{h}X-Test: a\rb\r\n\r\n", want: "400 bad_syntax"},
		{id: "BEL, BS and VT in a value", section: "9110 5.5", raw: "GET /p HTTP/1.1\r\n{h}X-Test: a\a\b\vb\r\n\r\n", want: "400 bad_syntax"},
		{id: "bytes above ASCII in a value", section: "9110 5.5", raw: "GET /p HTTP/1.1\r\n{h}X-Test: caf\xc3\xa9\r\n\r\n", want: "200", end: stays, sees: "GET /p HTTP/1.1\r\n{h}x-test: caf\xc3\xa9\r\n\r\n"},
		{id: "an empty value", section: "9110 5.5", raw: "GET /p HTTP/1.1\r\n{h}X-Test:\r\n\r\n", want: "200", end: stays, sees: "GET /p HTTP/1.1\r\n{h}x-test: \r\n\r\n"},
		{id: "blanks around a value", section: "5.1", raw: "GET /p HTTP/1.1\r\n{h}X-Test:\t a b \t\r\n\r\n", want: "200", end: stays, sees: "GET /p HTTP/1.1\r\n{h}x-test: a b\r\n\r\n"},
		{id: "one name twice", section: "9110 5.3", raw: "GET /p HTTP/1.1\r\n{h}X-Test: a\r\nX-Test: b\r\n\r\n", want: "200", end: stays, sees: "GET /p HTTP/1.1\r\n{h}x-test: a\r\nx-test: b\r\n\r\n"},
		{id: "two lines that look like one in the log", section: "9110 5.5", raw: "GET /p HTTP/1.1\r\n{h}X-Test: val\r\nInjected: yes\r\n\r\n", want: "200", end: stays, sees: "GET /p HTTP/1.1\r\n{h}x-test: val\r\ninjected: yes\r\n\r\n"},
		{id: "two types of content", section: "9110 5.3", raw: "POST /p HTTP/1.1\r\n{h}Content-Length: 5\r\nContent-Type: text/plain\r\nContent-Type: text/html\r\n\r\nhello", want: "400 bad_field"},
		{id: "a length under another spelling", section: "9110 5.1", raw: "POST /p HTTP/1.1\r\n{h}Content-Length: 11\r\nContent_Length: 99\r\n\r\nhello world", want: "400 protected_field"},
		{id: "a coding under another spelling", section: "9110 5.1", raw: "POST /p HTTP/1.1\r\n{h}Transfer_Encoding: chunked\r\n\r\nB\r\nhello world\r\n0\r\n\r\n", want: "400 protected_field"},
		{id: "a coding under another spelling beside a length", section: "9110 5.1", raw: "POST /p HTTP/1.1\r\n{h}Transfer_Encoding: chunked\r\nContent-Length: 5\r\n\r\nhello", want: "400 protected_field"},
		{id: "a value of 100,000 bytes", section: "9110 5.4", raw: "GET /p HTTP/1.1\r\n{h}X-Test: " + strings.Repeat("B", 100_000) + "\r\n\r\n", want: "431 head_too_large"},
		{id: "a name of 100,000 bytes", section: "9110 5.4", raw: "GET /p HTTP/1.1\r\n{h}" + strings.Repeat("A", 100_000) + ": value\r\n\r\n", want: "431 head_too_large"},
		{id: "10,000 fields", section: "9110 5.4", raw: "GET /p HTTP/1.1\r\n{h}" + strings.Repeat("X-Test: value\r\n", 10_000) + "\r\n", want: "431 head_too_large"},

		{id: "a cookie", section: "6265 5.4", raw: "GET /p HTTP/1.1\r\n{h}Cookie: foo=bar\r\n\r\n", want: "200", end: stays, sees: "GET /p HTTP/1.1\r\n{h}cookie: foo=bar\r\n\r\n"},
		{id: "three cookies in a line", section: "6265 5.4", raw: "GET /p HTTP/1.1\r\n{h}Cookie: a=1; b=2; c=3\r\n\r\n", want: "200", end: stays, sees: "GET /p HTTP/1.1\r\n{h}cookie: a=1; b=2; c=3\r\n\r\n"},
		{id: "two lines of cookies", section: "6265 5.4", raw: "GET /p HTTP/1.1\r\n{h}Cookie: a=1\r\nCookie: b=2\r\n\r\n", want: "200", end: stays, sees: "GET /p HTTP/1.1\r\n{h}cookie: a=1; b=2\r\n\r\n"},
		{id: "an empty line of cookies", section: "6265 5.4", raw: "GET /p HTTP/1.1\r\n{h}Cookie: \r\n\r\n", want: "200", end: stays, sees: "GET /p HTTP/1.1\r\n{h}cookie: \r\n\r\n"},
		{id: "a cookie without a value", section: "6265 5.4", raw: "GET /p HTTP/1.1\r\n{h}Cookie: foo=\r\n\r\n", want: "200", end: stays, sees: "GET /p HTTP/1.1\r\n{h}cookie: foo=\r\n\r\n"},
		{id: "a cookie with odd characters", section: "6265 4.1.1", raw: "GET /p HTTP/1.1\r\n{h}Cookie: foo=a=b&c%20d\r\n\r\n", want: "200", end: stays, sees: "GET /p HTTP/1.1\r\n{h}cookie: foo=a=b&c%20d\r\n\r\n"},
		{id: "a line of cookies without any", section: "6265 5.4", raw: "GET /p HTTP/1.1\r\n{h}Cookie: ===;;;\r\n\r\n", want: "200", end: stays, sees: "GET /p HTTP/1.1\r\n{h}cookie: ===;;;\r\n\r\n"},
		{id: "NUL in a cookie", section: "9110 5.5", raw: "GET /p HTTP/1.1\r\n{h}Cookie: foo=\x00bar\r\n\r\n", want: "400 bad_syntax"},
		{id: "controls in a cookie", section: "9110 5.5", raw: "GET /p HTTP/1.1\r\n{h}Cookie: foo=\x01\x02\x03\r\n\r\n", want: "400 bad_syntax"},
		{id: "a cookie of 65,536 bytes", section: "9110 5.4", raw: "GET /p HTTP/1.1\r\n{h}Cookie: big=" + strings.Repeat("A", 65_536) + "\r\n\r\n", want: "431 head_too_large"},
		{id: "1,000 cookies in a line", section: "6265 6.1", raw: "GET /p HTTP/1.1\r\n{h}Cookie: k=v" + strings.Repeat("; k=v", 999) + "\r\n\r\n", want: "200", end: stays, sees: "GET /p HTTP/1.1\r\n{h}cookie: k=v" + strings.Repeat("; k=v", 999) + "\r\n\r\n"},
	}
}
