package proxy_test

import "strings"

// These are beginnings of probes with content.
const (
	probePost   = "POST /p HTTP/1.1\r\n{h}"
	probeChunks = probePost + "Transfer-Encoding: chunked\r\n\r\n"
	// probeHello is a request with the content "hello", as the upstream sees it in chunks.
	probeHello = probeChunks + "5\r\nhello\r\n0\r\n\r\n"
)

// probesOfLengths are about Content-Length.
var probesOfLengths = []probe{
	{id: "content with its length", section: "6.2", raw: probePost + "Content-Length: 5\r\n\r\nhello", want: "200", end: stays, sees: probePost + "Content-Length: 5\r\n\r\nhello"},
	{id: "a length of 0", section: "6.2", raw: probePost + "Content-Length: 0\r\n\r\n", want: "200", end: stays, sees: probePost + "Content-Length: 0\r\n\r\n"},
	{id: "neither length nor coding", section: "6.3", raw: probePost + "\r\n", want: "200", end: stays, sees: probePost + "Content-Length: 0\r\n\r\n"},
	{id: "less content than announced", section: "6.2", raw: probePost + "Content-Length: 10\r\n\r\nhello", want: "-", end: cut},
	{id: "none of a huge content", section: "6.2", raw: probePost + "Content-Length: 999999999\r\n\r\n", want: "413 body_too_large"},
	{id: "a length in letters", section: "6.3", raw: probePost + "Content-Length: abc\r\n\r\n", want: "400 bad_framing"},
	{id: "a length with a plus", section: "6.3", raw: probePost + "Content-Length: +5\r\n\r\nhello", want: "400 bad_framing"},
	{id: "a negative length", section: "9110 8.6", raw: probePost + "Content-Length: -1\r\n\r\n", want: "400 bad_framing"},
	{id: "a length of minus 0", section: "9110 8.6", raw: probePost + "Content-Length: -0\r\n\r\n", want: "400 bad_framing"},
	{id: "no length behind the colon", section: "9110 8.6", raw: probePost + "Content-Length: \r\n\r\n", want: "400 bad_framing"},
	{id: "a length beyond 64 bits", section: "9110 8.6", raw: probePost + "Content-Length: 99999999999999999999\r\n\r\n", want: "400 bad_framing"},
	{id: "a length in hexadecimal", section: "9110 8.6", raw: probePost + "Content-Length: 0x5\r\n\r\nhello", want: "400 bad_framing"},
	{id: "a length in octal", section: "9110 8.6", raw: probePost + "Content-Length: 0o5\r\n\r\nhello", want: "400 bad_framing"},
	{id: "a length with an underscore", section: "9110 8.6", raw: probePost + "Content-Length: 1_0\r\n\r\nhelloworld", want: "400 bad_framing"},
	{id: "a length with a blank in it", section: "9110 8.6", raw: probePost + "Content-Length: 1 0\r\n\r\nhelloworld", want: "400 bad_framing"},
	{id: "two lengths that differ", section: "6.3", raw: probePost + "Content-Length: 5\r\nContent-Length: 10\r\n\r\nhelloworld", want: "400 bad_framing"},
	{id: "one length in two lines", section: "6.3", raw: probePost + "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", want: "400 bad_framing"},
	{id: "a list of lengths that differ", section: "9110 8.6", raw: probePost + "Content-Length: 5, 10\r\n\r\nhelloworld", want: "400 bad_framing"},
	{id: "a list of one length", section: "9110 8.6", raw: probePost + "Content-Length: 5, 5\r\n\r\nhello", want: "400 bad_framing"},
	{id: "a list of one length three times", section: "9110 8.6", raw: probePost + "Content-Length: 5, 5, 5\r\n\r\nhello", want: "400 bad_framing"},
	{id: "a length with zeros before it", section: "9110 8.6", raw: probePost + "Content-Length: 005\r\n\r\nhello", want: "200", end: stays, sees: probePost + "Content-Length: 5\r\n\r\nhello"},
	{id: "a length that octal reads otherwise", section: "9110 8.6", raw: probePost + "Content-Length: 010\r\n\r\nhelloworld", want: "200", end: stays, sees: probePost + "Content-Length: 10\r\n\r\nhelloworld"},
	{id: "a length of 00", section: "9110 8.6", raw: probePost + "Content-Length: 00\r\n\r\n", want: "200", end: stays, sees: probePost + "Content-Length: 0\r\n\r\n"},
	{id: "a blank behind the length", section: "9110 5.5", raw: probePost + "Content-Length: 5 \r\n\r\nhello", want: "200", end: stays, sees: probePost + "Content-Length: 5\r\n\r\nhello"},
	{id: "two blanks before the length", section: "9110 5.5", raw: probePost + "Content-Length:  5\r\n\r\nhello", want: "200", end: stays, sees: probePost + "Content-Length: 5\r\n\r\nhello"},
	{id: "a tab before the length", section: "9110 5.5", raw: probePost + "Content-Length:\t5\r\n\r\nhello", want: "200", end: stays, sees: probePost + "Content-Length: 5\r\n\r\nhello"},
	{id: "a folded length", section: "5.2", raw: probePost + "Content-Length:\r\n 5\r\n\r\nhello", want: "400 bad_syntax"},
	{id: "GET with content", section: "9110 9.3.1", raw: "GET /p HTTP/1.1\r\n{h}Content-Length: 5\r\n\r\nhello", want: "200", end: stays, sees: "GET /p HTTP/1.1\r\n{h}Content-Length: 5\r\n\r\nhello"},
	{id: "HEAD with content", section: "9110 9.3.2", raw: "HEAD /p HTTP/1.1\r\n{h}Content-Length: 5\r\n\r\nhello", want: "200", end: stays, sees: "HEAD /p HTTP/1.1\r\n{h}Content-Length: 5\r\n\r\nhello"},
	{id: "OPTIONS with content", section: "9110 9.3.7", raw: "OPTIONS /p HTTP/1.1\r\n{h}Content-Length: 5\r\n\r\nhello", want: "200", end: stays, sees: "OPTIONS /p HTTP/1.1\r\n{h}Content-Length: 5\r\n\r\nhello"},
}

// probesOfCodings are about Transfer-Encoding.
var probesOfCodings = []probe{
	{id: "a length before the coding", section: "6.1", raw: probePost + "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", want: "400 bad_framing"},
	{id: "a coding before the length", section: "6.1", raw: probePost + "Transfer-Encoding: chunked\r\nContent-Length: 30\r\n\r\n0\r\n\r\n", want: "400 bad_framing"},
	{id: "length and coding, with close", section: "6.1", raw: probePost + "Connection: close\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", want: "400 bad_framing"},
	{id: "coding and length, with close", section: "6.1", raw: probePost + "Connection: close\r\nTransfer-Encoding: chunked\r\nContent-Length: 30\r\n\r\n0\r\n\r\n", want: "400 bad_framing"},
	{id: "a coding like chunked beside a length", section: "6.1", raw: probePost + "Transfer-Encoding: xchunked\r\nContent-Length: 5\r\n\r\nhello", want: "501 unknown_transfer_coding"},
	{id: "another coding", section: "6.1", raw: probePost + "Transfer-Encoding: gzip\r\n\r\n", want: "501 unknown_transfer_coding"},
	{id: "gzip, then chunked", section: "6.1", raw: probePost + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", want: "501 unknown_transfer_coding"},
	{id: "chunked is not the last", section: "6.3", raw: probePost + "Transfer-Encoding: chunked, gzip\r\n\r\n5\r\nhello\r\n0\r\n\r\n", want: "501 unknown_transfer_coding"},
	{id: "chunked twice in a list", section: "6.1", raw: probePost + "Transfer-Encoding: chunked, chunked\r\nContent-Length: 5\r\n\r\nhello", want: "501 unknown_transfer_coding"},
	{id: "two lines of codings", section: "6.1", raw: probePost + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello", want: "501 unknown_transfer_coding"},
	{id: "identity", section: "7", raw: probePost + "Transfer-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello", want: "501 unknown_transfer_coding"},
	{id: "no coding behind the colon", section: "6.1", raw: probePost + "Transfer-Encoding: \r\nContent-Length: 5\r\n\r\nhello", want: "501 unknown_transfer_coding"},
	{id: "a comma before the coding", section: "9110 5.6.1.2", raw: probePost + "Transfer-Encoding: , chunked\r\n\r\n0\r\n\r\n", want: "501 unknown_transfer_coding"},
	{id: "a comma behind the coding", section: "9110 5.6.1.2", raw: probePost + "Transfer-Encoding: chunked,\r\n\r\n0\r\n\r\n", want: "501 unknown_transfer_coding"},
	{id: "chunked with parameters", section: "7", raw: probePost + "Transfer-Encoding: chunked;ext=val\r\n\r\n5\r\nhello\r\n0\r\n\r\n", want: "501 unknown_transfer_coding"},
	{id: "chunked in quotes", section: "7", raw: probePost + "Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", want: "501 unknown_transfer_coding"},
	{id: "VT before the coding", section: "6.1", raw: probePost + "Transfer-Encoding: \vchunked\r\nContent-Length: 5\r\n\r\nhello", want: "400 bad_syntax"},
	{id: "FF before the coding", section: "6.1", raw: probePost + "Transfer-Encoding: \fchunked\r\nContent-Length: 5\r\n\r\nhello", want: "400 bad_syntax"},
	{id: "NUL behind the coding", section: "9110 5.5", raw: probePost + "Transfer-Encoding: chunked\x00\r\nContent-Length: 5\r\n\r\nhello", want: "400 bad_syntax"},
	{id: "a blank before the coding's colon", section: "5.1", raw: probePost + "Transfer-Encoding : chunked\r\nContent-Length: 5\r\n\r\nhello", want: "400 bad_syntax"},
	{id: "a folded coding", section: "5.2", raw: probePost + "Transfer-Encoding:\r\n chunked\r\nContent-Length: 5\r\n\r\nhello", want: "400 bad_syntax"},
	{id: "a folded coding with OPTIONS", section: "5.2", raw: "OPTIONS /p HTTP/1.1\r\n{h}Transfer-Encoding:\r\n chunked\r\nContent-Length: 5\r\n\r\nhello", want: "400 bad_syntax"},
	{id: "a coding in HTTP/1.0", section: "6.1", raw: "POST /p HTTP/1.0\r\n{h}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", want: "400 bad_framing"},
	{id: "a coding beside a length in HTTP/1.0", section: "6.1", raw: "POST /p HTTP/1.0\r\n{h}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\nhello", want: "400 bad_framing"},
	{id: "the coding in other letters beside a length", section: "7", raw: probePost + "Transfer-Encoding: Chunked\r\nContent-Length: 5\r\n\r\nhello", want: "400 bad_framing"},
	{id: "the coding in other letters", section: "7", raw: probePost + "Transfer-Encoding: Chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", want: "200", end: stays, sees: probeHello},
	{id: "the field's name in capitals", section: "9110 5.1", raw: probePost + "TRANSFER-ENCODING: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", want: "200", end: stays, sees: probeHello},
	{id: "a tab before the coding", section: "9110 5.5", raw: probePost + "Transfer-Encoding:\tchunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", want: "200", end: stays, sees: probeHello},
	{id: "a blank behind the coding", section: "9110 5.5", raw: probePost + "Transfer-Encoding: chunked \r\n\r\n5\r\nhello\r\n0\r\n\r\n", want: "200", end: stays, sees: probeHello},
	{id: "a blank behind the coding, beside a length", section: "6.1", raw: probePost + "Transfer-Encoding: chunked \r\nContent-Length: 5\r\n\r\nhello", want: "400 bad_framing"},
}

// probesOfChunks are about the chunked coding.
func probesOfChunks() []probe {
	bad := func(id, section, content string) probe {
		return probe{id: id, section: section, raw: probeChunks + content, want: "400 bad_body"}
	}
	return []probe{
		{id: "one chunk", section: "7.1", raw: probeHello, want: "200", end: stays, sees: probeHello},
		{id: "two chunks", section: "7.1", raw: probeChunks + "5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", want: "200", end: stays, sees: probeChunks + "b\r\nhello world\r\n0\r\n\r\n"},
		{id: "no chunk but the last", section: "7.1", raw: probeChunks + "0\r\n\r\n", want: "200", end: stays, sees: probeChunks + "0\r\n\r\n"},
		{id: "a size in capitals", section: "7.1", raw: probeChunks + "A\r\nhelloworld\r\n0\r\n\r\n", want: "200", end: stays, sees: probeChunks + "a\r\nhelloworld\r\n0\r\n\r\n"},
		{id: "a size with zeros before it", section: "7.1", raw: probeChunks + "0005\r\nhello\r\n000\r\n\r\n", want: "200", end: stays, sees: probeHello},
		{id: "an extension", section: "7.1.1", raw: probeChunks + "5;ext=value\r\nhello\r\n0\r\n\r\n", want: "200", end: stays, sees: probeHello},
		{id: "an extension in quotes", section: "7.1.1", raw: probeChunks + "5;a=\"b;c\\\"\"\r\nhello\r\n0;last\r\n\r\n", want: "200", end: stays, sees: probeHello},
		{id: "no last chunk", section: "8", raw: probeChunks + "5\r\nhello\r\n", want: "-", end: cut},
		{id: "a chunk that ends in the middle", section: "8", raw: probeChunks + "5\r\nhel", want: "-", end: cut},

		bad("a size with 0x", "7.1", "0x5\r\nhello\r\n0\r\n\r\n"),
		bad("a size with a plus", "7.1", "+5\r\nhello\r\n0\r\n\r\n"),
		bad("a negative size", "7.1", "-1\r\nhello\r\n0\r\n\r\n"),
		bad("a size with an underscore", "7.1", "1_0\r\nhelloworldhello!\r\n0\r\n\r\n"),
		bad("a blank before the size", "7.1", " 5\r\nhello\r\n0\r\n\r\n"),
		bad("a blank behind the size", "7.1", "5 \r\nhello\r\n0\r\n\r\n"),
		bad("a tab behind the size", "7.1", "5\t\r\nhello\r\n0\r\n\r\n"),
		bad("a blank before an extension", "7.1.1", "5 ;a=b\r\nhello\r\n0\r\n\r\n"),
		bad("a size beyond 64 bits", "7.1", "FFFFFFFFFFFFFFFF0\r\nhello\r\n0\r\n\r\n"),
		bad("a size that is no number", "7.1", "zz\r\nhello\r\n0\r\n\r\n"),
		bad("a size of 17 digits", "7.1", "00000000000000005\r\nhello\r\n0\r\n\r\n"),
		bad("no size", "7.1", "\r\nhello\r\n0\r\n\r\n"),
		bad("no line end behind the content", "7.1", "5\r\nhello0\r\n\r\n"),
		bad("more content than the size", "7.1", "5\r\nhello!!\r\n0\r\n\r\n"),
		bad("a bare LF behind the size", "2.2", "5\nhello\r\n0\r\n\r\n"),
		bad("a bare LF behind the content", "2.2", "5\r\nhello\n0\r\n\r\n"),
		bad("a bare CR behind the size", "2.2", "5\rhello\r\n0\r\n\r\n"),
		bad("a bare CR behind the content", "2.2", "5\r\nhello\r0\r\n\r\n"),
		bad("a semicolon alone", "7.1.1", "5;\r\nhello\r\n0\r\n\r\n"),
		bad("an extension with a bad name", "7.1.1", "5;bad[=x\r\nhello\r\n0\r\n\r\n"),
		bad("an extension without a value", "7.1.1", "5;a=\r\nhello\r\n0\r\n\r\n"),
		bad("a bare LF in an extension", "7.1.1", "5;a\nb\r\nhello\r\n0\r\n\r\n"),
		bad("a bare CR in an extension", "7.1.1", "5;a\rb\r\nhello\r\n0\r\n\r\n"),
		bad("NUL in an extension", "7.1.1", "5;a=\x00b\r\nhello\r\n0\r\n\r\n"),
		bad("an extension of 100,000 bytes", "7.1.1", "5;ext="+strings.Repeat("A", 100_000)+"\r\nhello\r\n0\r\n\r\n"),
	}
}

// probesOfTrailers are about the fields after chunked content. Forbidden trailers are not forwarded. No
// trailers are forwarded to an upstream that takes none.
var probesOfTrailers = []probe{
	{id: "a trailer", section: "7.1.2", raw: probeChunks + "5\r\nhello\r\n0\r\nX-Checksum: abc\r\n\r\n", want: "200", end: stays, sees: probeChunks + "5\r\nhello\r\n0\r\nx-checksum: abc\r\n\r\n"},
	{id: "a length in the trailers", section: "9110 6.5.1", raw: probeChunks + "5\r\nhello\r\n0\r\nContent-Length: 50\r\n\r\n", want: "200", end: stays, sees: probeHello},
	{id: "a coding in the trailers", section: "9110 6.5.1", raw: probeChunks + "5\r\nhello\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n", want: "200", end: stays, sees: probeHello},
	{id: "Host in the trailers", section: "9110 6.5.1", raw: probeChunks + "5\r\nhello\r\n0\r\nHost: other.test\r\n\r\n", want: "200", end: stays, sees: probeHello},
	{id: "a credential in the trailers", section: "9110 6.5.1", raw: probeChunks + "5\r\nhello\r\n0\r\nAuthorization: Bearer evil\r\n\r\n", want: "200", end: stays, sees: probeHello},
	{id: "a type in the trailers", section: "9110 6.5.1", raw: probeChunks + "5\r\nhello\r\n0\r\nContent-Type: text/evil\r\n\r\n", want: "200", end: stays, sees: probeHello},
	{id: "an identity in the trailers", section: "9110 6.5.1", raw: probeChunks + "5\r\nhello\r\n0\r\nX-Sallyport-Principal: root\r\n\r\n", want: "200", end: stays, sees: probeHello},
	{id: "a bare LF behind the last chunk", section: "2.2", raw: probeChunks + "5\r\nhello\r\n0\n\r\n", want: "400 bad_body"},
	{id: "a bare LF behind the trailers", section: "2.2", raw: probeChunks + "5\r\nhello\r\n0\r\n\n", want: "400 bad_body"},
	{id: "a folded trailer", section: "5.2", raw: probeChunks + "5\r\nhello\r\n0\r\nX-Test: a\r\n b\r\n\r\n", want: "400 bad_body"},
}
