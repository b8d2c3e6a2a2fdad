package endfile

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
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
	sum := crc32.Checksum(b[from:], crc32.MakeTable(crc32.Castagnoli))
	return fmt.Appendf(b, " %08x\n", sum)
}

// parseLine decodes a line without its end.
func parseLine(text []byte) (l Line, err error) {
	fields := bytes.Split(text, []byte(" "))
	if len(fields) != 6 {
		return l, errLine
	}
	switch string(fields[0]) {
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
	if len(fields[1]) != 2*len(l.Login) || len(fields[2]) != 2*len(l.ID) {
		return l, errLine
	}
	_, bad1 := hex.Decode(l.Login[:], fields[1])
	_, bad2 := hex.Decode(l.ID[:], fields[2])
	var bad3, bad4 error
	l.At, bad3 = strconv.ParseInt(string(fields[3]), 10, 64)
	l.Until, bad4 = strconv.ParseInt(string(fields[4]), 10, 64)
	if errors.Join(bad1, bad2, bad3, bad4) != nil || !bytes.Equal(bytes.TrimSuffix(appendLine(nil, &l), []byte("\n")), text) {
		return l, errLine
	}
	return l, nil
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
	if created, err = strconv.ParseInt(string(fields[2]), 10, 64); err != nil || !bytes.Equal(bytes.TrimSuffix(appendHeader(nil, created), []byte("\n")), text) {
		return 0, errLine
	}
	return created, nil
}
