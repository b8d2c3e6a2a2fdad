package proxy_test

// probeHidden is a request with a credential, within the content of another request. A server that sees
// the content's end elsewhere than the gateway does would serve it.
const probeHidden = "GET /hidden HTTP/1.1\r\n{h}\r\n"

// probesOfSequences contain bytes that one server reads as content and another as the next request. A
// refused probe ends the connection. In an accepted one, all these bytes are content.
func probesOfSequences() []probe {
	both := func(id, section, fields, content, want string) probe {
		return probe{id: id, section: section, raw: probePost + fields + "\r\n" + content, want: want}
	}
	head := "HEAD /hidden HTTP/1.1\r\n{h}\r\n"
	hidden := "Content-Length: 4\r\n"
	return []probe{
		both("a hidden GET by length and coding", "6.1", hidden+"Transfer-Encoding: chunked\r\n", "0\r\n\r\n"+probeHidden, "400 bad_framing"),
		both("a hidden HEAD by length and coding", "6.1", hidden+"Transfer-Encoding: chunked\r\n", "0\r\n\r\n"+head, "400 bad_framing"),
		both("a hidden GET by coding and length", "6.1", "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", "2d\r\n"+probeHidden+"0\r\n\r\n", "400 bad_framing"),
		both("a hidden GET by two lengths", "6.3", "Content-Length: 5\r\nContent-Length: 0\r\n", probeHidden, "400 bad_framing"),
		both("a hidden GET by two codings", "6.1", hidden+"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", "0\r\n\r\n"+probeHidden, "400 bad_framing"),
		both("a hidden GET by a blank behind the coding", "6.1", hidden+"Transfer-Encoding: chunked \r\n", "0\r\n\r\n"+probeHidden, "400 bad_framing"),
		both("a hidden GET by a comma before the coding", "6.1", hidden+"Transfer-Encoding: , chunked\r\n", "0\r\n\r\n"+probeHidden, "400 bad_framing"),
		both("a hidden GET by the coding's letters", "6.1", hidden+"Transfer-Encoding: Chunked\r\n", "0\r\n\r\n"+probeHidden, "400 bad_framing"),
		both("a hidden GET by a folded coding", "5.2", hidden+"Transfer-Encoding:\r\n chunked\r\n", "0\r\n\r\n"+probeHidden, "400 bad_syntax"),
		both("a hidden GET by a length with a plus", "6.3", "Content-Length: +4\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"+probeHidden, "400 bad_framing"),
		both("a hidden GET by a length with letters", "6.3", "Content-Length: 4abc\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"+probeHidden, "400 bad_framing"),
		both("a byte behind length and coding", "6.1", "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\nX", "400 bad_framing"),
		both("a byte behind coding and length", "6.1", "Transfer-Encoding: chunked\r\nContent-Length: 6\r\n", "0\r\n\r\nX", "400 bad_framing"),
		both("a hidden GET behind a bad chunk", "7.1", "Transfer-Encoding: chunked\r\n", "+0\r\n\r\n"+probeHidden, "400 bad_body"),
		both("a hidden GET in an extension", "7.1.1", "Transfer-Encoding: chunked\r\n", "2;\n"+probeHidden+"xx\r\n0\r\n\r\n", "400 bad_body"),

		{id: "a request as content", section: "6.2", raw: "GET /p HTTP/1.1\r\n{h}Content-Length: 22\r\n\r\nGET /hidden HTTP/1.1\r\n", want: "200", end: stays, sees: "GET /p HTTP/1.1\r\n{h}Content-Length: 22\r\n\r\nGET /hidden HTTP/1.1\r\n"},
		{id: "half a request as content", section: "6.2", raw: "GET /p HTTP/1.1\r\n{h}Content-Length: 5\r\n\r\nGET /", want: "200", end: stays, sees: "GET /p HTTP/1.1\r\n{h}Content-Length: 5\r\n\r\nGET /"},
		{id: "content of OPTIONS before a request", section: "6.2", raw: "OPTIONS /p HTTP/1.1\r\n{h}Content-Length: 1\r\n\r\nX", want: "200", end: stays, sees: "OPTIONS /p HTTP/1.1\r\n{h}Content-Length: 1\r\n\r\nX"},
		{id: "a byte behind a length of 0", section: "6.2", raw: probePost + "Content-Length: 0\r\n\r\nX" + "GET /q HTTP/1.1\r\n{h}\r\n", want: "200 200", end: stays, sees: probePost + "Content-Length: 0\r\n\r\nXGET /q HTTP/1.1\r\n{h}\r\n"},
		{id: "a byte behind a length of 0, where methods are listed", section: "6.2", raw: probePost + "Content-Length: 0\r\n\r\nX" + "GET /read HTTP/1.1\r\n{h}\r\n", want: "200 405 method_not_allowed", end: stays, sees: probePost + "Content-Length: 0\r\n\r\n"},
		{id: "two requests at once", section: "9.3.2", raw: "GET /p HTTP/1.1\r\n{h}\r\nGET /q HTTP/1.1\r\n{h}\r\n", want: "200 200", end: stays, sees: "GET /p HTTP/1.1\r\n{h}\r\nGET /q HTTP/1.1\r\n{h}\r\n"},
		{id: "two requests with content at once", section: "9.3.2", raw: probeHello + probePost + "Content-Length: 5\r\n\r\nhello", want: "200 200", end: stays, sees: probeHello + probePost + "Content-Length: 5\r\n\r\nhello"},
		{id: "a refused request behind a good one", section: "9.3.2", raw: "GET /p HTTP/1.1\r\n{h}\r\nGET  /q HTTP/1.1\r\n{h}\r\n", want: "200 400 bad_syntax", sees: "GET /p HTTP/1.1\r\n{h}\r\n"},
	}
}

// probesOfConnections are about Connection, Upgrade and Expect.
var probesOfConnections = []probe{
	{id: "Connection: close", section: "9.6", raw: "GET /p HTTP/1.1\r\n{h}Connection: close\r\n\r\n", want: "200", sees: "GET /p HTTP/1.1\r\n{h}\r\n", answer: "Connection: close"},
	{id: "Connection: keep-alive", section: "9.3", raw: "GET /p HTTP/1.1\r\n{h}Connection: keep-alive\r\n\r\n", want: "200", end: stays, sees: "GET /p HTTP/1.1\r\n{h}\r\n"},
	{id: "HTTP/1.0", section: "9.3", raw: "GET /p HTTP/1.0\r\n{h}\r\n", want: "200", sees: "GET /p HTTP/1.1\r\n{h}\r\n"},
	{id: "HTTP/1.0 with keep-alive", section: "9.3", raw: "GET /p HTTP/1.0\r\n{h}Connection: keep-alive\r\n\r\n", want: "200", sees: "GET /p HTTP/1.1\r\n{h}\r\n"},
	{id: "Connection names a field of the message", section: "9110 7.6.1", raw: "GET /p HTTP/1.1\r\n{h}Connection: Authorization\r\n\r\n", want: "400 bad_field"},
	{id: "Connection names a field of its own", section: "9110 7.6.1", raw: "GET /p HTTP/1.1\r\n{h}Connection: X-Test\r\nX-Test: value\r\n\r\n", want: "400 bad_field"},

	{id: "an upgrade to WebSocket of version 99", section: "6455 4.4", raw: "GET /ws HTTP/1.1\r\n{h}Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 99\r\n\r\n", want: "426", answer: "Sec-Websocket-Version: 13", end: stays, sees: "GET /ws HTTP/1.1\r\n{h}sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 99\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"},
	{id: "an upgrade by POST", section: "6455 4.1", raw: "POST /ws HTTP/1.1\r\n{h}Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n", want: "400 upgrade_not_get"},
	{id: "an upgrade with content", section: "6455 4.1", raw: "GET /ws HTTP/1.1\r\n{h}Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nContent-Length: 5\r\n\r\nhello", want: "400 upgrade_with_body"},
	{id: "Upgrade without Connection", section: "9110 7.8", raw: "GET /ws HTTP/1.1\r\n{h}Upgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n", want: "200", end: stays, sees: "GET /ws HTTP/1.1\r\n{h}sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n"},
	{id: "an upgrade to nothing known", section: "9110 7.8", raw: "GET /ws HTTP/1.1\r\n{h}Connection: Upgrade\r\nUpgrade: totally-made-up/1.0\r\n\r\n", want: "200", end: stays, sees: "GET /ws HTTP/1.1\r\n{h}\r\n"},
	{id: "an upgrade to h2c", section: "9113 3.1", raw: "GET /p HTTP/1.1\r\n{h}Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n", want: "200", end: stays, sees: "GET /p HTTP/1.1\r\n{h}\r\n"},
	{id: "an upgrade in HTTP/1.0", section: "9110 7.8", raw: "GET /ws HTTP/1.0\r\n{h}Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n", want: "200", sees: "GET /ws HTTP/1.1\r\n{h}sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n"},
	{id: "an upgrade where the route allows none", section: "9110 7.8", raw: "GET /p HTTP/1.1\r\n{h}Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n", want: "200", end: stays, sees: "GET /p HTTP/1.1\r\n{h}\r\n"},

	{id: "an expectation that is met", section: "9110 10.1.1", raw: probePost + "Expect: 100-continue\r\nContent-Length: 5\r\n\r\nhello", want: "100 200", end: stays, sees: probePost + "Content-Length: 5\r\n\r\nhello"},
	{id: "an expectation with two requests behind it", section: "9110 10.1.1", raw: probePost + "Expect: 100-continue\r\nContent-Length: 5\r\n\r\nhelloGET /q HTTP/1.1\r\n{h}\r\n", want: "100 200 200", end: stays, sees: probePost + "Content-Length: 5\r\n\r\nhelloGET /q HTTP/1.1\r\n{h}\r\n"},
	{id: "an unknown expectation", section: "9110 10.1.1", raw: "GET /p HTTP/1.1\r\n{h}Expect: 200-ok\r\n\r\n", want: "417 bad_expectation"},
	{id: "an expectation in HTTP/1.0", section: "9110 15.2", raw: "POST /p HTTP/1.0\r\n{h}Expect: 100-continue\r\nContent-Length: 5\r\n\r\nhello", want: "200", sees: probePost + "Content-Length: 5\r\n\r\nhello"},
}

// probesOfMethods are about methods.
var probesOfMethods = []probe{
	{id: "CONNECT", section: "9110 9.3.6", raw: "CONNECT models.test:443 HTTP/1.1\r\n{h}\r\n", want: "501 bad_method"},
	{id: "CONNECT to another host", section: "9110 9.3.6", raw: "CONNECT other.test:443 HTTP/1.1\r\nHost: other.test:443\r\n\r\n", want: "501 bad_method"},
	{id: "CONNECT without a port", section: "9110 9.3.6", raw: "CONNECT models.test HTTP/1.1\r\n{h}\r\n", want: "501 bad_method"},
	{id: "CONNECT with an empty port", section: "9110 9.3.6", raw: "CONNECT models.test: HTTP/1.1\r\n{h}\r\n", want: "501 bad_method"},
	{id: "CONNECT to a path", section: "3.2.3", raw: "CONNECT /p HTTP/1.1\r\n{h}\r\n", want: "501 bad_method"},
	{id: "TRACE", section: "9110 9.3.8", raw: "TRACE /p HTTP/1.1\r\n{h}\r\n", want: "501 bad_method"},
	{id: "TRACE with content", section: "9110 9.3.8", raw: "TRACE /p HTTP/1.1\r\n{h}Content-Length: 5\r\n\r\nhello", want: "501 bad_method"},
	{id: "TRACE with a cookie", section: "9110 9.3.8", raw: "TRACE /p HTTP/1.1\r\n{h}Cookie: session=secret\r\n\r\n", want: "501 bad_method", answer: "!Cookie"},
	{id: "a method in small letters", section: "9110 9.1", raw: "get /p HTTP/1.1\r\n{h}\r\n", want: "501 bad_method"},
	{id: "an unknown method", section: "9110 9.1", raw: "FOOBAR /p HTTP/1.1\r\n{h}\r\n", want: "200", end: stays, sees: "FOOBAR /p HTTP/1.1\r\n{h}\r\n"},
	{id: "a method that the route does not allow", section: "9110 15.5.6", raw: "DELETE /read HTTP/1.1\r\n{h}\r\n", want: "405 method_not_allowed", end: stays, answer: "Allow: GET"},
	{id: "HEAD", section: "9110 9.3.2", raw: "HEAD /p HTTP/1.1\r\n{h}\r\n", want: "200", end: stays, sees: "HEAD /p HTTP/1.1\r\n{h}\r\n", answer: "Content-Length: 2"},
	{id: "OPTIONS", section: "9110 9.3.7", raw: "OPTIONS /p HTTP/1.1\r\n{h}\r\n", want: "200", end: stays, sees: "OPTIONS /p HTTP/1.1\r\n{h}\r\n"},
	{id: "OPTIONS that is answered by 204", section: "9110 8.6", raw: "OPTIONS /none HTTP/1.1\r\n{h}\r\n", want: "204", end: stays, sees: "OPTIONS /none HTTP/1.1\r\n{h}\r\n", answer: "!Content-Length"},
}

// probesOfContent are about fields that the gateway forwards and answers that it completes.
func probesOfContent() []probe {
	same := func(id, section, fields, want, answer string) probe {
		head := "GET /p HTTP/1.1\r\n{h}" + fields + "\r\n"
		return probe{id: id, section: section, raw: head, want: want, end: stays, sees: head, answer: answer}
	}
	return []probe{
		same("the date of an answer", "9110 6.6.1", "", "200", "Date: "),
		same("the type of an answer", "9110 8.3", "", "200", "Content-Type: text/plain"),
		same("a tag that still holds", "9110 13.1.2", "if-none-match: \"v1\"\r\n", "304", "Etag: \"v1\""),
		same("a tag that holds no more", "9110 13.1.2", "if-none-match: \"v0\"\r\n", "200", "Etag: \"v1\""),
		same("a tag without quotes", "9110 8.8.3", "if-none-match: v1\r\n", "200", ""),
		same("a weak tag", "9110 13.1.2", "if-none-match: W/\"v1\"\r\n", "200", ""),
		same("a star in place of a tag", "9110 13.1.2", "if-none-match: *\r\n", "200", ""),
		same("a date that still holds", "9110 13.1.3", "if-modified-since: Sun, 01 Nov 2026 10:00:00 GMT\r\n", "304", "Last-Modified: "),
		same("a date in the future", "9110 13.1.3", "if-modified-since: Thu, 01 Jan 2099 00:00:00 GMT\r\n", "200", ""),
		same("a date that is none", "9110 13.1.3", "if-modified-since: not-a-date\r\n", "200", ""),
		same("a tag beside a date", "9110 13.2.2", "if-none-match: \"v1\"\r\nif-modified-since: Thu, 01 Jan 1970 00:00:00 GMT\r\n", "304", "Etag: \"v1\""),
		same("a range that is none", "9110 14.2", "range: bytes=abc-xyz\r\n", "200", ""),
		same("ranges over one another", "9110 14.2", "range: bytes=0-100,50-150,0-100\r\n", "200", ""),
		same("a type that nobody has", "9110 12.5.1", "accept: application/x-nonsense\r\n", "200", ""),
		{id: "a range with POST", section: "9110 14.2", raw: probePost + "Content-Length: 5\r\nRange: bytes=0-10\r\n\r\nhello", want: "200", end: stays, sees: probePost + "range: bytes=0-10\r\nContent-Length: 5\r\n\r\nhello"},
		{id: "content of an unknown type", section: "9110 15.5.16", raw: probePost + "Content-Length: 5\r\nContent-Type: application/x-nonsense\r\n\r\nhello", want: "200", end: stays, sees: probePost + "content-type: application/x-nonsense\r\nContent-Length: 5\r\n\r\nhello"},
	}
}
