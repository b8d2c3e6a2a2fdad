// Command client calls a model through sallyport, signed, and prints the answer
// only if it is what the gateway signed for this call.
//
//	client -ca root.pem -id acme-2026-11 -key acme.key https://localhost:8443/predict '{"a": 40, "b": 2}'
package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"sallyport/auth/httpsig"
)

func main() {
	id := flag.String("id", "", "the id of the key")
	file := flag.String("key", "", "the file that holds the key, in base64")
	ca := flag.String("ca", "", "the file with the root of the server's certificate; the system's if empty")
	flag.Parse()
	answer, err := post(*id, *file, *ca, flag.Arg(0), flag.Arg(1))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(answer)
}

// post sends JSON and returns the status and the content that came back.
func post(id, file, ca, url, content string) (string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	secret, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		return "", fmt.Errorf("reading %s: %w", file, err)
	}
	key, err := httpsig.HMACKey(id, secret)
	if err != nil {
		return "", err
	}
	base, err := transport(ca)
	if err != nil {
		return "", err
	}
	client := &http.Client{Transport: &httpsig.Transport{Base: base, Key: key}}
	response, err := client.Post(url, "application/json", strings.NewReader(content))
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	// Its end is an error unless the content is what was signed, be it short or a stream.
	body, err := io.ReadAll(response.Body)
	return fmt.Sprint(response.StatusCode, " ", strings.TrimSpace(string(body))), err
}

// transport believes in the certificates of a file, only.
func transport(ca string) (*http.Transport, error) {
	t := http.DefaultTransport.(*http.Transport).Clone()
	if ca == "" {
		return t, nil
	}
	pem, err := os.ReadFile(ca)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, errors.New("no certificate in " + ca)
	}
	t.TLSClientConfig = &tls.Config{RootCAs: roots}
	return t, nil
}
