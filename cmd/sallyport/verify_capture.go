package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"sallyport/auth/httpsig"
)

// read reads a request. The content is nil if it is not given.
func (v *toVerify) read(stdin io.Reader) (*httpsig.Message, *string, error) {
	var text []byte
	var err error
	if v.head == "" {
		text, err = io.ReadAll(stdin)
	} else {
		text, err = os.ReadFile(v.head)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("reading the request: %w", err)
	}
	heads, _ := marked(string(text), ">")
	first, lines, content, err := parseCapture(heads[0])
	if err != nil {
		return nil, nil, fmt.Errorf("reading the request: %w", err)
	}
	words := strings.Fields(first)
	if len(words) < 2 || !strings.HasPrefix(words[1], "/") {
		return nil, nil, errors.New(`reading the request: want it to begin such as "POST /v1/models HTTP/1.1"`)
	}
	m := &httpsig.Message{Method: words[0], Scheme: v.scheme, Fields: lines}
	m.Path, m.Query, m.HasQuery = strings.Cut(words[1], "?")
	if m.Authority, _ = lines.Line("host", 0); m.Authority == "" {
		return nil, nil, errors.New("reading the request: it has no Host")
	}
	return m, content, nil
}

// readVector reads a test vector into c. It also returns the vector's time, the only one
// at which it verifies.
func (v *toVerify) readVector(c *captured) (*captured, time.Time, error) {
	test, err := readVector(v.vector)
	if err != nil {
		return nil, time.Time{}, err
	}
	if c.Message, err = test.message(); err != nil {
		return nil, time.Time{}, err
	}
	c.content, c.base = &test.Request.Content, test.SignatureBase
	return c, time.Unix(test.Created, 0), nil
}

// readResponse reads the answer to a request.
func (v *toVerify) readResponse(request *httpsig.Message) (*captured, error) {
	text, err := os.ReadFile(v.response)
	if err != nil {
		return nil, fmt.Errorf("reading the answer: %w", err)
	}
	c := &captured{Message: &httpsig.Message{Request: request}, tag: httpsig.TagResponse, policy: httpsig.ResponsePolicy()}
	heads, isMarked := marked(string(text), "<")
	rest := strings.Join(heads, "\n\n")
	for c.Status < 200 { // skip interim responses
		first, lines, content, err := parseCapture(rest)
		if err != nil {
			return nil, fmt.Errorf("reading the answer: %w", err)
		}
		words := strings.Fields(first)
		if len(words) < 2 || !strings.HasPrefix(words[0], "HTTP/") {
			return nil, errors.New(`reading the answer: want it to begin such as "HTTP/1.1 200 OK"`)
		}
		if c.Status, err = strconv.Atoi(words[1]); err != nil || c.Status < 100 || c.Status > 599 {
			return nil, fmt.Errorf("reading the answer: %q is not a status", words[1])
		}
		c.Fields, c.content = lines, content
		if rest = ""; content != nil {
			rest = *content
		}
	}
	if isMarked {
		c.content = nil // curl -v marks only heads
	}
	for _, tag := range []string{httpsig.TagResponseHead, httpsig.TagResponseHeadOnly} {
		if lacks(c.Message, c.tag) && !lacks(c.Message, tag) {
			c.tag, c.policy = tag, httpsig.HeadPolicy(tag)
			c.note = "this signature covers only the head, not the content\n"
		}
	}
	c.nonce, err = v.nonceOf(request)
	return c, err
}

// lacks reports whether a message has no signature with a tag.
func lacks(m *httpsig.Message, tag string) bool {
	var refused *httpsig.Error
	_, err := httpsig.Explain(m, tag)
	return errors.As(err, &refused) && refused.Code == httpsig.Missing
}

// nonceOf returns the nonce of a request's signature or, if it has none, the nonce in
// its Accept-Signature. It does not verify the signature.
func (v *toVerify) nonceOf(request *httpsig.Message) (string, error) {
	e, err := httpsig.Explain(request, v.tag)
	if err == nil {
		if nonce := regexp.MustCompile(`;nonce="([^"]*)"`).FindStringSubmatch(e.Parameters); nonce != nil {
			return nonce[1], nil
		}
		return "", errors.New("reading the request: its signature has no nonce that an answer could echo")
	}
	if wanted, err := httpsig.ParseAcceptSignature(request.Fields); err == nil && len(wanted) == 1 && wanted[0].Nonce != "" {
		return wanted[0].Nonce, nil
	}
	return "", fmt.Errorf("reading the request: %w", err)
}

// parseCapture parses a head and the content after it. The content is nil if no empty
// line follows the head.
func parseCapture(text string) (first string, lines httpsig.Lines, content *string, err error) {
	text = strings.TrimLeft(text, "\r\n")
	for n := 0; ; n++ {
		line, rest, more := strings.Cut(text, "\n")
		line, text = strings.TrimSuffix(line, "\r"), rest
		switch name, value, ok := strings.Cut(line, ":"); {
		case n == 0:
			first = line
		case line == "" && more:
			return first, lines, &text, nil
		case line == "":
			return first, lines, nil, nil
		case !ok:
			return "", nil, nil, fmt.Errorf("%q is not a header", strings.TrimSpace(line))
		default:
			lines = append(lines, httpsig.Line{Name: name, Value: strings.Trim(value, " \t")})
		}
		if !more {
			return first, lines, nil, nil
		}
	}
}

// marked returns the heads that curl -v marks with this character. Without any it returns
// the whole text.
func marked(text, mark string) (heads []string, ok bool) {
	var lines []string
	for line := range strings.Lines(text) {
		after, ok := strings.CutPrefix(strings.TrimRight(line, "\r\n "), mark)
		switch {
		case ok && after == "":
			heads, lines = append(heads, strings.Join(lines, "\n")), nil
		case ok && strings.HasPrefix(after, " "):
			lines = append(lines, after[1:])
		}
	}
	if len(lines) > 0 {
		heads = append(heads, strings.Join(lines, "\n"))
	}
	if len(heads) == 0 {
		return []string{text}, false
	}
	return heads, true
}
