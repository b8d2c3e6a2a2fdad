package endfile

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash/crc32"
	"strconv"
)

// Kind says which sessions a [Line] ends.
type Kind uint8

// The kinds of lines.
const (
	Session Kind = iota // one
	SID                 // all with an id at the issuer
	Subject             // all of a person
	Before              // all that began until a time
)

func (k Kind) String() string { return [...]string{"session", "sid", "subject", "before"}[k] }

// Login identifies the login and client of a session. It is a digest of both.
type Login [16]byte

// LoginOf returns the Login of a login's name and its client at the issuer.
func LoginOf(name, client string) Login {
	sum := sha256.Sum256([]byte(name + "\x00" + client))
	return Login(sum[:])
}

// ID identifies the session, sid or subject that a line ends. It is a digest, so that the file names
// nobody; who knows a subject can look for it.
type ID [sha256.Size]byte

// Line is one end of sessions. Times are in seconds since 1970.
type Line struct {
	Kind  Kind
	Login Login
	ID    ID    // zero for Before
	Of    ID    // of a Session: the ID of its subject; zero if that is unknown. See appendLine
	At    int64 // by the gateway's clock; for Before, all that began until then have ended
	Until int64 // sessions issued until then have ended, by the issuer's clock; 0 for Before
}

// The file is text: a header, which says when the file was made, and then lines in the order in which
// sessions ended. Every line ends with a checksum of what stands before it.
const (
	magic   = "sallyport-sessions"
	version = "1"
	maxLine = 256 // bytes; no line of this version is as long
)

// appendLine encodes a line. The subject of a Session stands in a line before it: one of Before with an ID and
// without a time. To earlier releases, which share the file or come back to it, that ends nothing.
func appendLine(b []byte, l *Line) []byte {
	if l.Of != (ID{}) {
		b = appendLine(b, &Line{Kind: Before, Login: l.Login, ID: l.Of})
	}
	from := len(b)
	b = append(append(b, l.Kind.String()...), ' ')
	b = append(hex.AppendEncode(b, l.Login[:]), ' ')
	b = append(hex.AppendEncode(b, l.ID[:]), ' ')
	b = append(strconv.AppendInt(b, l.At, 10), ' ')
	b = strconv.AppendInt(b, l.Until, 10)
	return seal(b, from)
}

// appendHeader encodes the header.
func appendHeader(b []byte, created int64) []byte {
	from := len(b)
	b = append(b, magic+" "+version+" "...)
	b = strconv.AppendInt(b, created, 10)
	return seal(b, from)
}

// seal appends the checksum of the text from some byte on, and the end of the line.
func seal(b []byte, from int) []byte {
	sum := checksum(b[from:])
	return append(append(append(b, ' '), sum[:]...), '\n')
}

// checksum returns the checksum of a text as it is written, in hexadecimal.
func checksum(text []byte) (digits [8]byte) {
	var sum [4]byte
	binary.BigEndian.PutUint32(sum[:], crc32.Checksum(text, crc32.MakeTable(crc32.Castagnoli)))
	hex.Encode(digits[:], sum[:])
	return digits
}

// unseal returns the text of a line before its checksum. It reports whether that is right.
func unseal(text []byte) ([]byte, bool) {
	at := len(text) - len(" 01234567")
	if at < 0 || text[at] != ' ' {
		return nil, false
	}
	sum := checksum(text[:at])
	return text[:at], bytes.Equal(sum[:], text[at+1:])
}

// parseLine decodes a line without its end. It takes only what [appendLine] writes. It allocates nothing, since
// a gateway reads all lines more than once before it serves.
func parseLine(text []byte) (l Line, err error) {
	rest, ok := unseal(text)
	if !ok {
		return l, errLine
	}
	kind, rest, _ := bytes.Cut(rest, []byte(" "))
	switch string(kind) {
	case "session":
		l.Kind = Session
	case "sid":
		l.Kind = SID
	case "subject":
		l.Kind = Subject
	case "before":
		l.Kind = Before
	default:
		return l, errLine
	}
	login, rest, _ := bytes.Cut(rest, []byte(" "))
	id, rest, _ := bytes.Cut(rest, []byte(" "))
	at, until, _ := bytes.Cut(rest, []byte(" "))
	if !unhex(l.Login[:], login) || !unhex(l.ID[:], id) {
		return l, errLine
	}
	var ok1, ok2 bool
	l.At, ok1 = parseTime(at)
	l.Until, ok2 = parseTime(until)
	if !ok1 || !ok2 {
		return l, errLine
	}
	return l, nil
}

// unhex decodes lower-case hexadecimal digits that fill all of a slice.
func unhex(all, digits []byte) bool {
	if len(digits) != 2*len(all) {
		return false
	}
	for _, c := range digits {
		if 'A' <= c && c <= 'F' {
			return false
		}
	}
	_, err := hex.Decode(all, digits)
	return err == nil
}

// parseTime decodes a number in the one form that [strconv.AppendInt] writes.
func parseTime(text []byte) (at int64, ok bool) {
	at, err := strconv.ParseInt(string(text), 10, 64)
	if err != nil {
		return 0, false
	}
	digits := bytes.TrimPrefix(text, []byte("-"))
	return at, at == 0 && len(text) == 1 || at != 0 && digits[0] >= '1'
}

// isSubject reports whether the line is the subject of the next one.
func (l *Line) isSubject() bool { return l.Kind == Before && l.ID != (ID{}) && l.At == 0 }

// parseHeader decodes the first line without its end.
func parseHeader(text []byte) (created int64, err error) {
	fields := bytes.Split(text, []byte(" "))
	if string(fields[0]) != magic {
		return 0, errForeign
	}
	if len(fields) != 4 {
		return 0, errLine
	}
	if string(fields[1]) != version {
		return 0, errVersion
	}
	created, ok := parseTime(fields[2])
	if _, sound := unseal(text); !ok || !sound {
		return 0, errLine
	}
	return created, nil
}
