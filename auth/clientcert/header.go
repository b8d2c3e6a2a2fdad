package clientcert

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"net/url"
	"strings"
	"sync"
)

// maxHeader bounds the fields with certificates of one request: base64 makes three bytes four, and
// URL encoding makes up to three of one.
const maxHeader = 3 * maxChainBytes

// maxHeaders is how many values of fields are remembered with their certificates; twice as many at
// most. Long values are not remembered.
const (
	maxHeaders     = 256
	maxKeptHeader  = 16 << 10
	maxHeaderCerts = 20
)

// headers remembers the certificates of fields, so that a balancer's requests are parsed once for
// each client. A remembered chain is the same in memory, and so found in [cache] at once.
type headers struct {
	mu    sync.Mutex // guards known
	known recent[[2]string, []*x509.Certificate]
}

// FromHeader returns the chain that a balancer has sent in its field, the client's certificate
// first. lines are the lines of that field, and chain those of Client-Cert-Chain, which only
// accompanies Client-Cert. The error is always an [*Error].
//
// A field that comes twice or holds several certificates is refused: a client may have sent one.
func (t *Trust) FromHeader(lines, chain []string) ([]*x509.Certificate, error) {
	if len(lines) != 1 {
		return nil, refuse(Chain, "%d lines of %s, want one", len(lines), t.header)
	}
	if t.header == FieldXFCC {
		chain = nil
	}
	key := [2]string{lines[0], strings.Join(chain, ", ")}
	size := len(key[0]) + len(key[1])
	if size > maxHeader {
		return nil, refuse(Chain, "%s has %d bytes, at most %d are read", t.header, size, maxHeader)
	}
	h := &t.headers
	h.mu.Lock()
	certs, known := h.known.get(key)
	h.mu.Unlock()
	if known {
		return certs, nil
	}
	var err error
	if t.header == FieldXFCC {
		certs, err = parseXFCC(key[0])
	} else {
		certs, err = parseClientCert(key[0], key[1], len(chain) > 0)
	}
	if err != nil {
		return nil, refuse(Chain, "%s: %w", t.header, err)
	}
	if size <= maxKeptHeader {
		h.mu.Lock()
		h.known.put([2]string{strings.Clone(key[0]), strings.Clone(key[1])}, certs)
		h.mu.Unlock()
	}
	return certs, nil
}

var (
	errNotBytes     = errors.New("not one byte sequence of RFC 8941, as RFC 9440 wants")
	errSeveralCerts = errors.New("more than one element, of which a client may have sent one")
	errNotPairs     = errors.New("not pairs of name and value, as Envoy writes them")
	errNoCert       = errors.New("neither Cert nor Chain, and the hash alone proves nothing")
	errCertsDiffer  = errors.New("the fields Hash, Cert and Chain are not of one certificate")
	errManyCerts    = errors.New("too many certificates")
)

// parseClientCert reads the fields of RFC 9440.
func parseClientCert(cert, chain string, hasChain bool) ([]*x509.Certificate, error) {
	var all []*x509.Certificate
	add := func(item string) error {
		text, ok := byteSequence(strings.Trim(item, " \t"))
		if !ok {
			return errNotBytes
		}
		c, err := x509.ParseCertificate(text)
		if err != nil {
			return err
		}
		all = append(all, c)
		return nil
	}
	if err := add(cert); err != nil {
		return nil, err
	}
	if !hasChain {
		return all, nil
	}
	for item := range strings.SplitSeq(chain, ",") {
		if err := add(item); err != nil {
			return nil, err
		}
		if len(all) > maxHeaderCerts {
			return nil, errManyCerts
		}
	}
	return all, nil
}

// byteSequence reads a byte sequence of RFC 8941, section 3.3.5, without parameters.
func byteSequence(s string) ([]byte, bool) {
	if len(s) < 2 || s[0] != ':' || s[len(s)-1] != ':' {
		return nil, false
	}
	b, err := base64.StdEncoding.Strict().DecodeString(s[1 : len(s)-1])
	return b, err == nil && len(b) > 0
}

// parseXFCC reads X-Forwarded-Client-Cert with one element, as Envoy writes it with
// forward_client_cert_details: SANITIZE_SET.
func parseXFCC(value string) ([]*x509.Certificate, error) {
	pairs, err := xfccPairs(value)
	if err != nil {
		return nil, err
	}
	one, err := fromPEM(pairs["cert"])
	if err != nil {
		return nil, err
	}
	all, err := fromPEM(pairs["chain"])
	if err != nil {
		return nil, err
	}
	switch {
	case len(one) == 0 && len(all) == 0:
		return nil, errNoCert
	case len(one) > 1:
		return nil, errSeveralCerts
	case len(all) == 0:
		all = one
	case len(one) == 1 && !bytes.Equal(one[0].Raw, all[0].Raw):
		return nil, errCertsDiffer
	}
	if hash, ok := pairs["hash"]; ok {
		sum := sha256.Sum256(all[0].Raw)
		if !strings.EqualFold(hash, hex.EncodeToString(sum[:])) {
			return nil, errCertsDiffer
		}
	}
	return all, nil
}

// xfccPairs returns the pairs of the only element by their names in lower case. URI and DNS may
// come more than once; the certificates say what they are.
func xfccPairs(s string) (map[string]string, error) {
	pairs := map[string]string{}
	for {
		name, rest, ok := strings.Cut(s, "=")
		name = strings.ToLower(strings.Trim(name, " \t"))
		if !ok || name == "" || !consistsOf(name, alphanumeric) {
			return nil, errNotPairs
		}
		value := ""
		if strings.HasPrefix(rest, `"`) {
			if value, s, ok = unquote(rest[1:]); !ok {
				return nil, errNotPairs
			}
		} else {
			end := strings.IndexAny(rest, `;,"`)
			if end < 0 {
				end = len(rest)
			}
			value, s = rest[:end], rest[end:]
		}
		if _, twice := pairs[name]; twice && name != "uri" && name != "dns" {
			return nil, errSeveralCerts
		}
		pairs[name] = value
		switch {
		case s == "":
			return pairs, nil
		case s[0] == ',':
			return nil, errSeveralCerts
		case s[0] != ';':
			return nil, errNotPairs
		}
		s = s[1:]
	}
}

// unquote reads a quoted value up to its closing quote, and returns what follows that.
func unquote(s string) (value, rest string, ok bool) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '"':
			return b.String(), s[i+1:], true
		case s[i] == '\\' && i+1 < len(s):
			i++
		}
		b.WriteByte(s[i])
	}
	return "", "", false
}

// fromPEM reads certificates in URL-encoded PEM, and nothing else; none from "".
func fromPEM(encoded string) ([]*x509.Certificate, error) {
	decoded, err := url.PathUnescape(encoded) // a plus sign stays one: base64 has it
	if err != nil {
		return nil, errNotPairs
	}
	var all []*x509.Certificate
	for rest := bytes.TrimSpace([]byte(decoded)); len(rest) > 0; rest = bytes.TrimSpace(rest) {
		before := rest
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil || block.Type != "CERTIFICATE" || !bytes.HasPrefix(before, []byte("-----BEGIN")) {
			return nil, errors.New("not certificates in PEM")
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		if all = append(all, c); len(all) > maxHeaderCerts {
			return nil, errManyCerts
		}
	}
	return all, nil
}
