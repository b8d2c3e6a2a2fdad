package edge

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"time"
)

// ticketLife is the maximum age of a session ticket. crypto/tls advertises seven days to
// clients, which we cannot change, so older tickets are rejected here.
const ticketLife = 24 * time.Hour

// ticketMark is the prefix of our note in a session's Extra field.
const ticketMark = "sallyport 1 "

// maxTicket bounds tickets, in bytes. A ticket carries the client's certificates. BoringSSL, and
// so Chrome and gRPC, ends connections on messages of more than 16 KiB.
const maxTicket = 12 << 10

// noTicket is sent in place of a ticket that is too large. It resumes nothing. TLS 1.3 does not
// allow an empty one.
const noTicket = "none"

// bindTickets binds session tickets to one host, its client policy ("" for none) and one day. A
// session of one host then cannot be resumed at another with stricter client checks, or at a
// removed host. The config keys outlives c. crypto/tls generates its ticket keys, one a day,
// known to this process alone.
//
// A rejected ticket only costs the client a full handshake.
func bindTickets(c, keys *tls.Config, policy string, now func() time.Time) {
	c.WrapSession = func(state tls.ConnectionState, session *tls.SessionState) ([]byte, error) {
		session.Extra = append(session.Extra, ticketNote(state.ServerName, policy, now()))
		ticket, err := keys.EncryptTicket(state, session)
		if len(ticket) > maxTicket {
			return []byte(noTicket), nil
		}
		return ticket, err
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
			if !ticketHolds(note, state.ServerName, policy, now()) {
				return nil, nil
			}
			// A resumed session gets a new ticket with its own note.
			session.Extra = append(session.Extra[:i:i], session.Extra[i+1:]...)
			return session, nil
		}
		return nil, nil
	}
}

func ticketNote(name, policy string, now time.Time) []byte {
	note := binary.BigEndian.AppendUint64([]byte(ticketMark), uint64(now.Unix()))
	return append(note, ticketFor(name, policy)...)
}

// ticketFor returns what a ticket is bound to. No server name contains a zero byte.
func ticketFor(name, policy string) string {
	if policy == "" {
		return canonicalName(name)
	}
	return canonicalName(name) + "\x00" + policy
}

// ticketHolds reports whether a note is for this name and policy, and recent enough.
func ticketHolds(note []byte, name, policy string, now time.Time) bool {
	rest := note[len(ticketMark):]
	if len(rest) < 8 || string(rest[8:]) != ticketFor(name, policy) {
		return false
	}
	age := now.Sub(time.Unix(int64(binary.BigEndian.Uint64(rest)), 0))
	return age >= -time.Minute && age < ticketLife
}
