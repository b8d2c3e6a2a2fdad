package auth

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/go-json-experiment/json/jsontext"
)

const (
	maxToken  = 16 << 10 // bytes of a token
	maxHeader = 4 << 10  // bytes of its first segment
	maxKeyID  = 512      // bytes of a kid
	maxShared = 1 << 10  // bytes of a first segment that is cached for the next token
	maxDepth  = 16       // of nesting in header and claims
)

// token is a parsed JSON Web Token in compact form, not verified. Its byte slices are
// reused for another token after release; registered and claims own their memory.
type token struct {
	joseHeader
	payload    []byte // the claims as they were signed
	signature  []byte
	signed     []byte // the signed text: the first two segments as they were read
	registered registered
	claims     claimSet

	segment string // the first segment that joseHeader was read from; an issuer's tokens share it
	header  []byte

	digest  [64]byte // buffer for the hash of signed
	decoder jsontext.Decoder
	text    bytes.Buffer // input of decoder
	reading claimReader
}

var tokenPool = sync.Pool{New: func() any { return new(token) }}

// release returns the token to the pool.
func (t *token) release() {
	t.decode(nil)
	t.registered, t.claims = registered{}, nil
	t.reading.release()
	tokenPool.Put(t)
}

// joseHeader holds the used parameters of the first segment (RFC 7515, section 4.1).
type joseHeader struct {
	alg, kid, typ string
	hasKid        bool
	hasTyp        bool
}

// registered are the registered claims (RFC 7519, section 4.1). Times are in seconds
// since 1970.
type registered struct {
	iss, sub      string
	aud           []string
	exp, nbf, iat int64
	hasIss        bool // each reports whether the token has the claim
	hasExp        bool
	hasNbf        bool
	hasIat        bool
	bound         binding
	authTime      int64 // 0 if it is absent or no date; whoever demands one refuses that
}

// parse reads a token: a JWS whose payload is a JSON object of claims without duplicate
// names at any level.
func (t *token) parse(s string) error {
	if err := t.parseJWS(s); err != nil {
		return err
	}
	if err := t.readClaims(); err != nil {
		return fmt.Errorf("token claims: %w", err)
	}
	return nil
}

// parseJWS reads the compact form of RFC 7515, section 7.1, strictly: encoding the result
// gives the same text. A JWS is three segments of canonical unpadded base64url. The first
// is a JSON object without duplicate names at any level; parseJWS does not read the payload.
func (t *token) parseJWS(s string) (err error) {
	if len(s) > maxToken {
		return errors.New("token is too long")
	}
	first, rest, _ := strings.Cut(s, ".")
	second, third, two := strings.Cut(rest, ".")
	if !two || strings.IndexByte(third, '.') >= 0 {
		return errors.New("the token does not have three segments")
	}
	if len(first) > maxHeader {
		return errors.New("token header is too long")
	}
	if err := t.head(first); err != nil {
		return fmt.Errorf("token header: %w", err)
	}
	t.signed = append(t.signed[:0], s[:len(first)+1+len(second)]...)
	if t.payload, err = segment(t.payload, second); err != nil {
		return fmt.Errorf("token claims: %w", err)
	}
	if t.signature, err = segment(t.signature, third); err != nil {
		return fmt.Errorf("token signature: %w", err)
	}
	return nil
}

// head reads the first segment, unless the token before had the same one.
func (t *token) head(first string) (err error) {
	if first == t.segment && first != "" {
		return nil
	}
	t.joseHeader, t.segment = joseHeader{}, ""
	if t.header, err = segment(t.header, first); err != nil {
		return err
	}
	if err := t.readHeader(); err != nil {
		return err
	}
	if len(first) <= maxShared {
		t.segment = strings.Clone(first)
	}
	return nil
}

// segment decodes s into buf, whose old content is overwritten.
func segment(buf []byte, s string) ([]byte, error) {
	if s == "" {
		return buf, errors.New("empty segment")
	}
	// The decoder would skip line breaks.
	if strings.IndexByte(s, '\r') >= 0 || strings.IndexByte(s, '\n') >= 0 {
		return buf, errors.New("not base64url")
	}
	n := base64.RawURLEncoding.DecodedLen(len(s))
	buf = slices.Grow(buf[:0], n)[:n]
	n, err := base64.RawURLEncoding.Strict().Decode(buf, []byte(s))
	if err != nil {
		return buf, errors.New("not canonical base64url")
	}
	return buf[:n], nil
}

// readHeader reads alg, kid and typ. It ignores parameters that contain or name a key
// (jwk, jku, x5c, x5u, x5t): keys come from the configured issuer only (RFC 8725,
// section 3.10). It refuses parameters that change the signed text, and crit.
func (t *token) readHeader() error {
	var hasAlg bool
	err := t.object(t.header, func(name string, d *jsontext.Decoder) (err error) {
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

// readClaims reads all claims and fills in the registered ones.
func (t *token) readClaims() error {
	r := &t.reading
	err := t.object(t.payload, func(name string, d *jsontext.Decoder) error {
		if err := lookalike(name, "iss", "sub", "aud", "exp", "nbf", "iat", "cnf", "scope", "scp"); err != nil {
			return err
		}
		before := len(r.claims)
		if err := r.read(name, d); err != nil {
			return err
		}
		if err := t.registered.note(name, r.claims[before:]); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	t.claims = r.set()
	return nil
}

// note stores a registered claim, which must have the right type. read is the flattened
// claim: one entry for a plain value or an array of them, none for null, and entries
// with longer paths for an object.
func (c *registered) note(name string, read claimSet) (err error) {
	one := claim{}
	if len(read) == 1 && read[0].path == name {
		one = read[0]
	}
	switch name {
	case "iss":
		c.hasIss = true
		c.iss, err = one.string()
	case "sub":
		c.sub, _ = one.string() // whoever needs it as the principal requires a string
	case "aud":
		c.aud, err = one.strings()
		c.aud = slices.Clone(c.aud) // the next token overwrites the values
	case "exp":
		c.hasExp = true
		c.exp, err = one.date(math.Floor)
	case "nbf":
		c.hasNbf = true
		c.nbf, err = one.date(math.Ceil)
	case "iat":
		c.hasIat = true
		c.iat, err = one.date(math.Floor)
	case "auth_time":
		c.authTime, _ = one.date(math.Floor)
	case "cnf":
		c.bound = bindingOf(read)
	}
	return err
}

// lookalike refuses a name that differs from a known one in letter case only. Lax
// decoders such as encoding/json would confuse "EXP" with "exp".
func lookalike(name string, names ...string) error {
	for _, n := range names {
		if name != n && strings.EqualFold(name, n) {
			return fmt.Errorf("%s in another letter case", n)
		}
	}
	return nil
}

// object reads text as one JSON object and nothing else. For each name it calls f, which
// must consume exactly the value. It refuses duplicate names at every level.
func (t *token) object(text []byte, f func(name string, d *jsontext.Decoder) error) error {
	d := t.decode(text)
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
		return errors.New("unexpected data after the JSON object")
	}
	return nil
}

// decode resets the decoder to read text.
func (t *token) decode(text []byte) *jsontext.Decoder {
	t.text = *bytes.NewBuffer(text)
	t.decoder.Reset(&t.text)
	return &t.decoder
}

// badJSON replaces an error of the decoder, which may quote the token: no part of a
// token may reach the logs.
func badJSON(err error) error {
	if errors.Is(err, jsontext.ErrDuplicateName) {
		return errors.New("duplicate name")
	}
	return errors.New("not well-formed JSON")
}

// skip reads one value and drops it.
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

// lastDate is the end of the year 9999, in seconds.
const lastDate = 253402300799

func (c *claim) string() (string, error) {
	if c.kind != text || c.array {
		return "", errors.New("not a string")
	}
	return c.values[0], nil
}

// strings returns the value of a string or an array of strings; aud may be either.
func (c *claim) strings() ([]string, error) {
	if c.kind != text {
		return nil, errors.New("not a string or an array of strings")
	}
	return c.values, nil
}

// date returns a NumericDate, which may have a fraction. round must round towards
// refusal.
func (c *claim) date(round func(float64) float64) (int64, error) {
	if c.kind != number || c.array {
		return 0, errors.New("not a number")
	}
	f, err := strconv.ParseFloat(c.values[0], 64)
	if err != nil || !(f >= 0 && f <= lastDate) {
		return 0, errors.New("not a date")
	}
	return int64(round(f)), nil
}
