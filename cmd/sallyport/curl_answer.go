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

// mostHeld is how much of an answer is held in memory until it is verified.
const mostHeld = 256 << 20

var errLong = errors.New("the answer is too long to be held in memory until it is verified; name a file with --output")

// take prints an answer as far as it is verified.
func (c *curl) take(r *http.Response, w *wire) error {
	refused := w.refusal() // nil below 400
	streamed, err := false, error(nil)
	switch {
	case c.fail && refused != nil:
		_, err = io.Copy(io.Discard, r.Body)
	case c.output != "":
		err = c.takeFile(r)
	case r.Header.Get("Content-Digest") != "":
		err = c.takeHeld(r)
	default:
		streamed, err = true, c.print(c.stdout, r, r.Body)
	}
	if err != nil {
		return w.inWords(err)
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

// takeHeld prints nothing before all is verified.
func (c *curl) takeHeld(r *http.Response) error {
	content, err := io.ReadAll(io.LimitReader(r.Body, mostHeld+1))
	if err != nil {
		return err
	}
	if len(content) > mostHeld {
		return errLong
	}
	return c.print(c.stdout, r, bytes.NewReader(content))
}

// takeFile leaves the file as it is before all is verified.
func (c *curl) takeFile(r *http.Response) error {
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

// print writes content, and before it the head if that was asked for.
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

// verdict is what is said of an answer that was taken; "" if there is nothing to
// say, because what is printed at once is verified.
func verdict(r *http.Response, streamed bool) string {
	input := r.Header.Get("Signature-Input")
	signed := func(tag string) bool { return strings.Contains(input, `;tag="`+tag+`"`) }
	switch {
	case signed(httpsig.TagResponse) && !streamed:
		return ""
	case signed(httpsig.TagResponse), signed(httpsig.TagResponseHead):
		return "verified: to its end, the answer is what " + r.Request.URL.Host + " signed"
	case signed(httpsig.TagResponseHeadOnly):
		return "only the head of the answer is signed"
	}
	return "the answer is not signed"
}
