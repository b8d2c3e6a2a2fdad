package edge

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"time"
)

// ticketLife is how long a session may be resumed. crypto/tls tells clients seven
// days, which cannot be changed; it is here that older tickets are not taken.
const ticketLife = 24 * time.Hour

// ticketMark begins what we add to a session.
const ticketMark = "sallyport 1 "

// bindTickets binds sessions to the host that they were made for and to a day, so
// that what one host demanded of a client cannot be carried to another, nor to a host
// that is no more. The keys are those that crypto/tls makes for the config keys, which
// outlives c: a new one each day, known to this process alone.
//
// A ticket that is not taken costs the client a full handshake and nothing else.
func bindTickets(c, keys *tls.Config, now func() time.Time) {
	c.WrapSession = func(state tls.ConnectionState, session *tls.SessionState) ([]byte, error) {
		session.Extra = append(session.Extra, ticketNote(state.ServerName, now()))
		return keys.EncryptTicket(state, session)
	}
	c.UnwrapSession = func(ticket []byte, state tls.ConnectionState) (*tls.SessionState, error) {
		session, err := keys.DecryptTicket(ticket, state)
		if err != nil || session == nil {
			return nil, err
		}
		for i, note := range session.Extra {
			if !bytes.HasPrefix(note, []byte(ticketMark)) {
				continue
			}
			if !ticketHolds(note, state.ServerName, now()) {
				return nil, nil
			}
			// A session that is resumed gets a new ticket, with a note of its own.
			session.Extra = append(session.Extra[:i:i], session.Extra[i+1:]...)
			return session, nil
		}
		return nil, nil
	}
}

func ticketNote(name string, now time.Time) []byte {
	note := binary.BigEndian.AppendUint64([]byte(ticketMark), uint64(now.Unix()))
	return append(note, canonicalName(name)...)
}

// ticketHolds says whether a note is of this name and young enough.
func ticketHolds(note []byte, name string, now time.Time) bool {
	rest := note[len(ticketMark):]
	if len(rest) < 8 || string(rest[8:]) != canonicalName(name) {
		return false
	}
	age := now.Sub(time.Unix(int64(binary.BigEndian.Uint64(rest)), 0))
	return age >= -time.Minute && age < ticketLife
}
