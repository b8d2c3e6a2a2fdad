package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
)

// maxRefusal bounds the part of a refusal that is searched for its reason.
const maxRefusal = 64 << 10

// wire is the transport under httpsig.Transport. It records request and answer, from
// which errors are explained.
type wire struct {
	base    *http.Transport
	verbose io.Writer // nil: print nothing
	secret  string    // the name of the key's file, for advice

	sent   *http.Request  // as signed
	answer *http.Response // nil until the head arrives
	at     time.Time      // when the head arrived, by the local clock
	reason string         // of a refusal by a gateway
}

func (c *curl) newWire() (*wire, error) {
	config := &tls.Config{InsecureSkipVerify: c.insecure}
	if c.ca != "" {
		text, err := os.ReadFile(c.ca)
		if err != nil {
			return nil, fmt.Errorf("reading the authorities: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("reading the authorities: %s holds no certificate", c.ca)
		}
	}
	pinned, err := parseResolve(c.resolve)
	if err != nil {
		return nil, err
	}
	w := &wire{secret: c.secret, base: &http.Transport{
		Proxy: http.ProxyFromEnvironment, TLSClientConfig: config, ForceAttemptHTTP2: true, DisableCompression: true, DialContext: pinned.dial,
	}}
	if c.verbose {
		w.verbose = c.stderr
	}
	return w, nil
}

// RoundTrip sends a signed request.
func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	w.sent = r
	w.show(">", fmt.Sprintf("%s %s HTTP/1.1\r\nHost: %s", r.Method, r.URL.RequestURI(), r.URL.Host), r.Header)
	answer, err := w.base.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	w.answer, w.at = answer, time.Now()
	w.show("<", answer.Proto+" "+answer.Status, answer.Header)
	if answer.StatusCode >= 400 {
		w.readReason(answer)
	}
	return answer, nil
}

// show writes a head in the format of curl -v.
func (w *wire) show(mark, first string, h http.Header) {
	if w.verbose == nil {
		return
	}
	var head bytes.Buffer
	head.WriteString(first + "\r\n")
	_ = h.Write(&head)
	head.WriteString("\r\n")
	for line := range strings.Lines(head.String()) {
		fmt.Fprintf(w.verbose, "%s %s\n", mark, strings.TrimRight(line, "\r\n"))
	}
}

// readReason reads the reason of a refusal. The body can still be read from its start.
func (w *wire) readReason(answer *http.Response) {
	begin, err := io.ReadAll(io.LimitReader(answer.Body, maxRefusal))
	rest := io.Reader(answer.Body)
	if err != nil {
		rest = failed{err}
	}
	answer.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(begin), rest), answer.Body}
	var refusal struct {
		Reason string `json:"reason"`
	}
	if json.Unmarshal(begin, &refusal) == nil {
		w.reason = refusal.Reason
	}
}

// failed is a reader that returns an error.
type failed struct{ err error }

// Read implements [io.Reader].
func (f failed) Read([]byte) (int, error) { return 0, f.err }
