package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"sallyport/auth/httpsig"
)

// vector is a test vector: a request with its signature by a key. Signing the request
// again with the same time and nonce must give the same signature.
type vector struct {
	KeyID     string `json:"key_id"`
	Algorithm string `json:"algorithm"`
	Request   struct {
		Method  string            `json:"method"`
		URL     string            `json:"url"`
		Headers map[string]string `json:"headers"`
		Content string            `json:"content"`
	} `json:"request"`
	Created       int64             `json:"created"`
	Nonce         string            `json:"nonce"`
	SignatureBase string            `json:"signature_base"`
	SignedHeaders map[string]string `json:"signed_headers"`
}

// A vector's signature cannot be used for a real request: it expired long ago.
const (
	vectorCreated = 1618884473
	vectorNonce   = "test-vector-of-the-key"
	vectorContent = `{"instances": [1.0, 2.0, 5.0]}`
)

// newVector signs a fixed request to a URL with a key.
func newVector(key *httpsig.Key, target string) (*vector, error) {
	v := &vector{KeyID: key.ID(), Algorithm: string(key.Algorithm()), Created: vectorCreated, Nonce: vectorNonce}
	v.Request.Method, v.Request.URL, v.Request.Content = http.MethodPost, target, vectorContent
	v.Request.Headers = map[string]string{"Content-Type": "application/json"}
	if !strings.Contains(target, "?") {
		v.Request.URL += "?vector=a%20b&vector="
	}
	v.SignedHeaders = map[string]string{"Content-Digest": httpsig.ContentDigest([]byte(vectorContent))}
	m, err := v.message()
	if err != nil {
		return nil, err
	}
	signer, err := httpsig.NewSigner(httpsig.RequestProfile(), func() time.Time { return time.Unix(v.Created, 0) })
	if err != nil {
		return nil, err
	}
	signed, err := signer.Sign(key, m, v.Nonce)
	if err != nil {
		return nil, err
	}
	base, err := httpsig.Base(m, strings.TrimPrefix(signed.Input, "sp="))
	if err != nil {
		return nil, err
	}
	v.SignatureBase = string(base)
	v.SignedHeaders["Signature-Input"], v.SignedHeaders["Signature"] = signed.Input, signed.Signature
	return v, nil
}

// readVector reads a vector from a file.
func readVector(name string) (*vector, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("reading the test vector: %w", err)
	}
	v := new(vector)
	if err := json.Unmarshal(text, v); err != nil {
		return nil, fmt.Errorf("reading the test vector: %w", err)
	}
	return v, nil
}

// message returns the vector's request as a client would send it.
func (v *vector) message() (*httpsig.Message, error) {
	u, err := parseTarget("the URL of the test vector", v.Request.URL)
	if err != nil {
		return nil, err
	}
	m := &httpsig.Message{Method: v.Request.Method, Scheme: u.Scheme, Authority: u.Host}
	m.Path, m.Query, m.HasQuery = strings.Cut(u.RequestURI(), "?")
	var lines httpsig.Lines
	for _, headers := range []map[string]string{v.Request.Headers, v.SignedHeaders} {
		for name, value := range headers {
			lines = append(lines, httpsig.Line{Name: name, Value: value})
		}
	}
	slices.SortFunc(lines, func(a, b httpsig.Line) int { return strings.Compare(a.Name, b.Name) })
	m.Fields = lines
	return m, nil
}
