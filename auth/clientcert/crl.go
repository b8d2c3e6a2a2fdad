package clientcert

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"hash/maphash"
	"math/big"
	"slices"
	"time"

	"sallyport/proxy/setting"
)

// maxCRL bounds a revocation list, from a file or a URL.
const maxCRL = setting.MaxDigested

// list is a revocation list whose signature was verified. It is immutable.
type list struct {
	scope
	sum        [sha256.Size]byte // of the list in DER
	issuer     keyID             // of the CA that signed it
	name       string
	number     *big.Int // nil if it has none
	thisUpdate time.Time
	nextUpdate time.Time

	// revoked are keyed hashes of serial numbers, sorted: eight bytes for each of what may be a
	// million. A collision would refuse a good certificate, about once in 10^13 for a list of
	// that length.
	revoked []uint64
	seed    maphash.Seed
}

// scope is which certificates of the issuer a list speaks of. The zero scope is all of them.
type scope struct {
	points             []string // distribution points, one of which the certificate must name; nil: any
	onlyUsers, onlyCAs bool
}

func (s *scope) covers(c *x509.Certificate) bool {
	if s.onlyUsers && c.IsCA || s.onlyCAs && !c.IsCA {
		return false
	}
	return s.points == nil || slices.ContainsFunc(c.CRLDistributionPoints, func(p string) bool { return slices.Contains(s.points, p) })
}

func (l *list) has(serial *big.Int) bool {
	_, found := slices.BinarySearch(l.revoked, maphash.Bytes(l.seed, canonicalSerial(serial)))
	return found
}

func canonicalSerial(n *big.Int) []byte {
	if n.Sign() < 0 {
		return append([]byte{'-'}, n.Bytes()...)
	}
	return n.Bytes()
}

// keyID identifies a CA: its name and its key. Renewed certificates of a CA have the same.
type keyID string

func keyIDOf(c *x509.Certificate) keyID {
	return keyID(c.RawSubject) + keyID(c.RawSubjectPublicKeyInfo)
}

// unwrapLists returns the revocation lists of a document in DER: one in DER, or several in PEM.
func unwrapLists(text []byte) (all [][]byte, err error) {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "X509 CRL" {
			return nil, fmt.Errorf("holds a %s and not a revocation list", setting.Quoted(block.Type, 32))
		}
		all = append(all, block.Bytes)
	}
	if len(all) == 0 {
		all = [][]byte{text}
	}
	return all, nil
}

// readList parses a revocation list in DER and verifies that one of the CAs has signed it.
func readList(text []byte, cas []*x509.Certificate) (*list, error) {
	p, err := parseList(text)
	if err != nil {
		return nil, err
	}
	l := &list{sum: sha256.Sum256(text), name: p.head.Issuer.String(), number: p.head.Number, thisUpdate: p.head.ThisUpdate, nextUpdate: p.head.NextUpdate, seed: maphash.MakeSeed()}
	if err := p.checkHead(l); err != nil {
		return nil, err
	}
	signer, err := p.signer(cas)
	if err != nil {
		return nil, err
	}
	l.issuer = keyIDOf(signer)
	return l, p.addEntries(l)
}

// parsedList is a revocation list taken apart. crypto/x509 would take about 300 bytes of memory for
// each entry, so it reads the list without them.
type parsedList struct {
	head    *x509.RevocationList
	signed  []byte // the text under the signature
	entries []byte
}

var errMalformedList = errors.New("is not a revocation list: it is malformed")

const (
	tagInteger         = 0x02
	tagUTCTime         = 0x17
	tagGeneralizedTime = 0x18
	tagSequence        = 0x30
)

// element is der with the whole element in place of its content.
func element(b []byte) (tag byte, whole, rest []byte, ok bool) {
	tag, _, rest, ok = der(b)
	return tag, b[:len(b)-len(rest)], rest, ok
}

func sequence(parts ...[]byte) []byte {
	content := bytes.Join(parts, nil)
	size := len(content)
	head := []byte{tagSequence, 0x84, byte(size >> 24), byte(size >> 16), byte(size >> 8), byte(size)}
	switch {
	case size < 0x80:
		head = []byte{tagSequence, byte(size)}
	case size < 1<<8:
		head = []byte{tagSequence, 0x81, byte(size)}
	case size < 1<<16:
		head = []byte{tagSequence, 0x82, byte(size >> 8), byte(size)}
	case size < 1<<24:
		head = []byte{tagSequence, 0x83, byte(size >> 16), byte(size >> 8), byte(size)}
	}
	return append(head, content...)
}

func parseList(text []byte) (*parsedList, error) {
	tag, content, rest, ok := der(text)
	if !ok || tag != tagSequence || len(rest) > 0 {
		return nil, errMalformedList
	}
	tag, signed, around, ok := element(content)
	if !ok || tag != tagSequence {
		return nil, errMalformedList
	}
	p := &parsedList{signed: signed}
	_, fields, _, _ := der(signed)
	var kept [][]byte
	times := false
	for len(fields) > 0 {
		var field []byte
		if tag, field, fields, ok = element(fields); !ok {
			return nil, errMalformedList
		}
		isTime := tag == tagUTCTime || tag == tagGeneralizedTime
		if times && tag == tagSequence && p.entries == nil {
			_, p.entries, _, _ = der(field)
			continue
		}
		times = times || isTime
		kept = append(kept, field)
	}
	var err error
	if p.head, err = x509.ParseRevocationList(sequence(sequence(kept...), around)); err != nil {
		return nil, fmt.Errorf("%w: %w", errMalformedList, err)
	}
	return p, nil
}

// checkHead checks what the list says of itself, and sets its scope.
func (p *parsedList) checkHead(l *list) error {
	if l.nextUpdate.IsZero() {
		return errors.New("does not say when the next one comes (nextUpdate)")
	}
	for _, e := range p.head.Extensions {
		const authorityKey, number, delta, issuingPoint = "2.5.29.35", "2.5.29.20", "2.5.29.27", "2.5.29.28" // RFC 5280, section 5.2
		switch id := e.Id.String(); {
		case id == authorityKey, id == number:
		case id == delta:
			return errors.New("is a delta list, which only says what has changed; name the complete list")
		case id == issuingPoint:
			if err := l.scope.read(e.Value); err != nil {
				return err
			}
		case e.Critical:
			return fmt.Errorf("has the critical extension %s, which the gateway does not know", id)
		}
	}
	return nil
}

// read reads the extension issuingDistributionPoint (RFC 5280, section 5.2.5).
func (s *scope) read(value []byte) error {
	tag, fields, rest, ok := der(value)
	ok = ok && tag == tagSequence && len(rest) == 0
	for ok && len(fields) > 0 {
		var field []byte
		if tag, field, fields, ok = der(fields); !ok {
			break
		}
		const point, onlyUsers, onlyCAs, indirect = 0xa0, 0x81, 0x82, 0x84
		isSet := len(field) == 1 && field[0] != 0
		switch {
		case tag == point:
			ok = s.readPoints(field)
		case tag == onlyUsers:
			s.onlyUsers = isSet
		case tag == onlyCAs:
			s.onlyCAs = isSet
		case tag == indirect && isSet:
			return errors.New("is an indirect list, which speaks for other CAs than its signer")
		case isSet || tag != indirect:
			return errors.New("is only for some reasons, or for attribute certificates")
		}
	}
	if !ok {
		return errMalformedList
	}
	return nil
}

func (s *scope) readPoints(field []byte) bool {
	const fullName, uri = 0xa0, 0x86
	tag, names, rest, ok := der(field)
	ok = ok && tag == fullName && len(rest) == 0
	s.points = []string{}
	for ok && len(names) > 0 {
		var name []byte
		if tag, name, names, ok = der(names); ok && tag == uri {
			s.points = append(s.points, string(name))
		}
	}
	return ok
}

// signer returns the CA that has signed the list.
func (p *parsedList) signer(cas []*x509.Certificate) (*x509.Certificate, error) {
	switch p.head.SignatureAlgorithm {
	case x509.MD2WithRSA, x509.MD5WithRSA, x509.SHA1WithRSA, x509.DSAWithSHA1, x509.ECDSAWithSHA1:
		return nil, fmt.Errorf("is signed with %s, which is not safe", p.head.SignatureAlgorithm)
	}
	named := false
	for _, ca := range cas {
		if !bytes.Equal(ca.RawSubject, p.head.RawIssuer) {
			continue
		}
		if ca.CheckSignature(p.head.SignatureAlgorithm, p.signed, p.head.Signature) != nil {
			named = true
			continue
		}
		if ca.KeyUsage != 0 && ca.KeyUsage&x509.KeyUsageCRLSign == 0 {
			return nil, fmt.Errorf("is signed by %s, whose key usage lacks cRLSign", showName(ca))
		}
		return ca, nil
	}
	if named {
		return nil, fmt.Errorf("is not signed by the key of %s that ca has", quotedName(p.head.Issuer.String()))
	}
	return nil, fmt.Errorf("is of %s, which ca does not have; add its certificate there", quotedName(p.head.Issuer.String()))
}

// addEntries enters the revoked certificates.
func (p *parsedList) addEntries(l *list) error {
	for rest := p.entries; len(rest) > 0; {
		var tag byte
		var entry, serial []byte
		var ok bool
		if tag, entry, rest, ok = der(rest); !ok || tag != tagSequence {
			return errMalformedList
		}
		if tag, serial, entry, ok = der(entry); !ok || tag != tagInteger || len(serial) == 0 {
			return errMalformedList
		}
		if tag, _, entry, ok = der(entry); !ok || tag != tagUTCTime && tag != tagGeneralizedTime {
			return errMalformedList
		}
		if err := checkEntryExtensions(entry); err != nil {
			return err
		}
		l.revoked = append(l.revoked, maphash.Bytes(l.seed, canonicalContent(serial)))
	}
	slices.Sort(l.revoked)
	return nil
}

// canonicalContent is canonicalSerial of the content of an INTEGER.
func canonicalContent(b []byte) []byte {
	if b[0]&0x80 != 0 { // negative, in two's complement
		n := new(big.Int).SetBytes(b)
		n.Sub(n, new(big.Int).Lsh(big.NewInt(1), uint(8*len(b))))
		return canonicalSerial(n)
	}
	for len(b) > 0 && b[0] == 0 {
		b = b[1:]
	}
	return b
}

// checkEntryExtensions refuses critical extensions of an entry: they may say that it is another
// CA's certificate. The reason and date, which are never critical, do not matter.
func checkEntryExtensions(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	tag, all, rest, ok := der(b)
	if !ok || tag != tagSequence || len(rest) > 0 {
		return errMalformedList
	}
	for len(all) > 0 {
		var one []byte
		if tag, one, all, ok = der(all); !ok || tag != tagSequence {
			return errMalformedList
		}
		if _, _, one, ok = der(one); !ok { // the identifier
			return errMalformedList
		}
		const boolean = 0x01
		tag, critical, _, ok := der(one)
		switch {
		case !ok:
			return errMalformedList
		case tag == boolean && len(critical) == 1 && critical[0] != 0:
			return errors.New("has an entry with a critical extension, which the gateway does not know")
		}
	}
	return nil
}

// readListFile reads a file with one or, in PEM, several revocation lists.
func readListFile(name string, cas []*x509.Certificate) ([]*list, error) {
	text, err := readRegular(name, maxCRL)
	if err != nil {
		return nil, err
	}
	parts, err := unwrapLists(text)
	if err != nil {
		return nil, err
	}
	var all []*list
	for _, part := range parts {
		l, err := readList(part, cas)
		if err != nil {
			return nil, err
		}
		all = append(all, l)
	}
	return all, nil
}
