package auth

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

const (
	maxToken  = 16 << 10 // bytes of a token
	maxHeader = 4 << 10  // bytes of its first segment
	maxKeyID  = 512      // bytes of a kid
	maxDepth  = 16       // of nesting in header and claims
)

// token is a JSON Web Token in its strict compact form. Nothing of it is proved.
type token struct {
	alg, kid, typ string
	hasKid        bool
	hasTyp        bool
	payload       []byte // the claims as they were signed
	claims        registered
}

// registered are the claims that have a meaning of their own (RFC 7519, section 4.1).
// Times are in seconds since 1970.
type registered struct {
	iss, sub      string
	aud           []string
	exp, nbf, iat int64
	has           map[string]bool // which of them the token has
	bound         bool            // there is a cnf: bound to a key (RFC 7800)
}

// parseToken reads the compact form of RFC 7515, section 7.1, so strictly that
// encoding what was read gives the same text: three segments of unpadded
// base64url without spare bits, two of them JSON objects without duplicate
// names at any level.
func parseToken(s string) (*token, error) {
	if len(s) > maxToken {
		return nil, errors.New("token is too long")
	}
	first, rest, _ := strings.Cut(s, ".")
	second, third, two := strings.Cut(rest, ".")
	if !two || strings.IndexByte(third, '.') >= 0 {
		return nil, errors.New("token has not three segments")
	}
	if len(first) > maxHeader {
		return nil, errors.New("token header is too long")
	}
	header, err := segment(first)
	if err != nil {
		return nil, fmt.Errorf("token header: %w", err)
	}
	t := &token{}
	if t.payload, err = segment(second); err != nil {
		return nil, fmt.Errorf("token claims: %w", err)
	}
	if _, err := segment(third); err != nil {
		return nil, fmt.Errorf("token signature: %w", err)
	}
	if err := t.readHeader(header); err != nil {
		return nil, fmt.Errorf("token header: %w", err)
	}
	if err := t.claims.read(t.payload); err != nil {
		return nil, fmt.Errorf("token claims: %w", err)
	}
	return t, nil
}

func segment(s string) ([]byte, error) {
	if s == "" {
		return nil, errors.New("empty segment")
	}
	// The decoder skips line breaks, which no token has.
	if strings.ContainsAny(s, "\r\n") {
		return nil, errors.New("not base64url")
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil {
		return nil, errors.New("not canonical base64url")
	}
	return b, nil
}

// readHeader reads alg, kid and typ. Parameters that bring or name a key (jwk,
// jku, x5c, x5u, x5t) are not looked at: keys come from the configured issuer
// alone (RFC 8725, section 3.10). Those that change what is signed, or demand
// to be understood, are refused.
func (t *token) readHeader(text []byte) error {
	var hasAlg bool
	err := object(text, func(name string, d *jsontext.Decoder) (err error) {
		switch name {
		case "alg":
			hasAlg = true
			t.alg, err = readString(d)
		case "kid":
			t.hasKid = true
			t.kid, err = readString(d)
		case "typ":
			t.hasTyp = true
			t.typ, err = readString(d)
		case "crit", "b64", "zip", "enc":
			err = fmt.Errorf("%s is not supported", name)
		default:
			if err = lookalike(name, "alg", "kid", "typ", "crit", "b64", "zip", "enc"); err == nil {
				err = skip(d)
			}
		}
		return err
	})
	switch {
	case err != nil:
		return err
	case !hasAlg || t.alg == "":
		return errors.New("no alg")
	case t.hasKid && t.kid == "" || len(t.kid) > maxKeyID:
		return errors.New("kid is empty or too long")
	}
	return nil
}

func (c *registered) read(text []byte) error {
	c.has = map[string]bool{}
	return object(text, func(name string, d *jsontext.Decoder) (err error) {
		switch name {
		case "iss":
			c.iss, err = readString(d)
		case "sub":
			c.sub, err = readString(d)
		case "aud":
			c.aud, err = readStrings(d)
		case "exp":
			c.exp, err = readDate(d, math.Floor)
		case "nbf":
			c.nbf, err = readDate(d, math.Ceil)
		case "iat":
			c.iat, err = readDate(d, math.Floor)
		case "cnf":
			c.bound = true
			err = skip(d)
		default:
			if err = lookalike(name, "iss", "sub", "aud", "exp", "nbf", "iat", "cnf", "scope", "scp"); err == nil {
				err = skip(d)
			}
			return err
		}
		c.has[name] = true
		if err != nil {
			err = fmt.Errorf("%s: %w", name, err)
		}
		return err
	})
}

// lookalike refuses a name that a careless reader, such as encoding/json, takes
// for another. No issuer has a use for "EXP" beside "exp".
func lookalike(name string, names ...string) error {
	for _, n := range names {
		if name != n && strings.EqualFold(name, n) {
			return fmt.Errorf("%s in another letter case", n)
		}
	}
	return nil
}

// object reads text as one JSON object and nothing else. For each name it calls
// f, which must read exactly the value. Duplicate names are refused at every level.
func object(text []byte, f func(name string, d *jsontext.Decoder) error) error {
	d := jsontext.NewDecoder(bytes.NewBuffer(text))
	if t, err := d.ReadToken(); err != nil || t.Kind() != jsontext.KindBeginObject {
		return errors.New("not a JSON object")
	}
	for d.PeekKind() != jsontext.KindEndObject {
		t, err := d.ReadToken()
		if err != nil {
			return badJSON(err)
		}
		if err := f(t.String(), d); err != nil {
			return err
		}
	}
	if _, err := d.ReadToken(); err != nil {
		return badJSON(err)
	}
	if _, err := d.ReadToken(); err != io.EOF {
		return errors.New("something follows the JSON object")
	}
	return nil
}

// badJSON drops the position and the name from what the decoder says: parts of a
// token have no place in logs.
func badJSON(err error) error {
	if errors.Is(err, jsontext.ErrDuplicateName) {
		return errors.New("duplicate name")
	}
	return errors.New("not well-formed JSON")
}

// skip reads one value and keeps nothing of it.
func skip(d *jsontext.Decoder) error {
	for base := d.StackDepth(); ; {
		if _, err := d.ReadToken(); err != nil {
			return badJSON(err)
		}
		if d.StackDepth() > maxDepth {
			return errors.New("nested too deep")
		}
		if d.StackDepth() == base {
			return nil
		}
	}
}

func readString(d *jsontext.Decoder) (string, error) {
	t, err := d.ReadToken()
	if err != nil {
		return "", badJSON(err)
	}
	if t.Kind() != jsontext.KindString {
		return "", errors.New("not a string")
	}
	return t.String(), nil
}

// readStrings reads a string or an array of strings, as aud may be.
func readStrings(d *jsontext.Decoder) ([]string, error) {
	if d.PeekKind() != jsontext.KindBeginArray {
		s, err := readString(d)
		return []string{s}, err
	}
	var all []string
	if _, err := d.ReadToken(); err != nil {
		return nil, badJSON(err)
	}
	for d.PeekKind() != jsontext.KindEndArray {
		s, err := readString(d)
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	if _, err := d.ReadToken(); err != nil {
		return nil, badJSON(err)
	}
	return all, nil
}

// lastDate is the end of the year 9999, in seconds.
const lastDate = 253402300799

// readDate reads a NumericDate, which may have a fraction; round takes it in the
// direction that favours refusal.
func readDate(d *jsontext.Decoder, round func(float64) float64) (int64, error) {
	t, err := d.ReadToken()
	if err != nil {
		return 0, badJSON(err)
	}
	if t.Kind() != jsontext.KindNumber {
		return 0, errors.New("not a number")
	}
	f, err := strconv.ParseFloat(t.String(), 64)
	if err != nil || !(f >= 0 && f <= lastDate) {
		return 0, errors.New("not a date")
	}
	return int64(round(f)), nil
}
