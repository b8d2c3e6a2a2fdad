package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"sallyport/auth/httpsig"
)

// maxBuffered bounds the content of an answer that is buffered until it is verified.
const maxBuffered = 256 << 20

var errTooLong = errors.New("the answer is longer than 256 MiB, too long to verify in memory; name a file with --output")

// printResponse prints an answer. Unless it is a stream, it verifies the answer first.
func (c *curl) printResponse(r *http.Response, w *wire) error {
	refused := w.refusal() // nil below 400
	streamed, err := false, error(nil)
	switch {
	case c.fail && refused != nil:
		_, err = io.Copy(io.Discard, r.Body)
	case c.output != "":
		err = c.writeFile(r)
	case r.Header.Get("Content-Digest") != "":
		err = c.printVerified(r)
	default:
		streamed, err = true, c.print(c.stdout, r, r.Body)
	}
	if err != nil {
		return w.explainError(err)
	}
	if note := verdict(r, streamed); note != "" {
		fmt.Fprintln(c.stderr, "sallyport: "+note)
	}
	if c.fail || refused == nil {
		return refused
	}
	explain(c.stderr, refused)
	return nil
}

// printVerified buffers the content and prints it once it is verified.
func (c *curl) printVerified(r *http.Response) error {
	content, err := io.ReadAll(io.LimitReader(r.Body, maxBuffered+1))
	if err != nil {
		return err
	}
	if len(content) > maxBuffered {
		return errTooLong
	}
	return c.print(c.stdout, r, bytes.NewReader(content))
}

// writeFile writes the answer to the file of --output, and replaces an existing file only
// once the answer is verified.
func (c *curl) writeFile(r *http.Response) error {
	if info, err := os.Stat(c.output); err == nil && !info.Mode().IsRegular() {
		// A device or pipe cannot be replaced.
		f, err := os.OpenFile(c.output, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		return errors.Join(c.print(f, r, r.Body), f.Close())
	}
	f, err := os.CreateTemp(filepath.Dir(c.output), ".new-*") // made with mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if err := errors.Join(c.print(f, r, r.Body), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), c.output)
}

// print writes content and, with --include, the head before it.
func (c *curl) print(w io.Writer, r *http.Response, content io.Reader) error {
	if c.include {
		var head bytes.Buffer
		fmt.Fprintf(&head, "%s %s\r\n", r.Proto, r.Status)
		if err := r.Header.Write(&head); err != nil {
			return err
		}
		head.WriteString("\r\n")
		if _, err := w.Write(head.Bytes()); err != nil {
			return err
		}
	}
	_, err := io.Copy(w, content)
	return err
}

// verdict returns the note on how far an answer is verified. It is "" for an answer that
// was verified before it was printed.
func verdict(r *http.Response, streamed bool) string {
	input := r.Header.Get("Signature-Input")
	signed := func(tag string) bool { return strings.Contains(input, `;tag="`+tag+`"`) }
	switch {
	case signed(httpsig.TagResponse) && !streamed:
		return ""
	case signed(httpsig.TagResponse), signed(httpsig.TagResponseHead):
		return "verified: " + r.Request.URL.Host + " signed the whole answer"
	case signed(httpsig.TagResponseHeadOnly):
		return "only the head of the answer is signed"
	}
	return "the answer is not signed"
}
