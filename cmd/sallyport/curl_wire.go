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

// mostRefusal is how much of a refusal is looked at for its reason.
const mostRefusal = 64 << 10

// wire is what a call goes over. It remembers what came back, because why an
// answer is not verified is told by that.
type wire struct {
	base    *http.Transport
	verbose io.Writer // nil: say nothing
	secret  string    // the name of the key's file, for advice

	sent   *http.Request  // as signed
	answer *http.Response // its head; nil before
	at     time.Time      // when that arrived, by the local clock
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
	w := &wire{secret: c.secret, base: &http.Transport{
		Proxy: http.ProxyFromEnvironment, TLSClientConfig: config, ForceAttemptHTTP2: true, DisableCompression: true,
	}}
	if c.verbose {
		w.verbose = c.stderr
	}
	return w, nil
}

// RoundTrip sends a request that is signed already.
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
		w.look(answer)
	}
	return answer, nil
}

// show writes a head as curl -v does.
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

// look reads the reason of a refusal and leaves the content as it was.
func (w *wire) look(answer *http.Response) {
	begin, err := io.ReadAll(io.LimitReader(answer.Body, mostRefusal))
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

// failed is a reader that ends with an error.
type failed struct{ err error }

// Read gives the error.
func (f failed) Read([]byte) (int, error) { return 0, f.err }
