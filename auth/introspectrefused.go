package auth

import (
	"crypto/sha256"
	"encoding/binary"
	"time"
)

// digest stands for a token in the gateway's memory, which never stores the token itself. It
// is a SHA-256 of a secret of the process and the token, so that nobody can guess tokens from
// a copy of the memory's digests alone.
type digest [sha256.Size]byte

// digest returns the digest of a token. It does not allocate for tokens up to 1 KiB.
func (m *Memory) digest(raw string) digest {
	var array [sha256.Size + 1<<10]byte
	return sha256.Sum256(append(append(array[:0], m.secret[:]...), raw...))
}

// hash returns the hash for the cache of verified tokens. It needs no key of its own.
func (d *digest) hash() uint64 { return binary.LittleEndian.Uint64(d[:]) }

// maxRefused is how many refused tokens are remembered for an issuer: about 1 MiB, and the
// causes.
const maxRefused = 8 << 10

// refusedTokens remembers why tokens were refused, so that a client that repeats one causes
// no look-up. Once it is full, the oldest is forgotten. The user must hold a lock.
type refusedTokens struct {
	all   map[digest]refusedToken
	order []digest // ring
	at    int      // index of the oldest, once the ring is full
}

type refusedToken struct {
	why   *Error
	until time.Time
}

// find returns why a token was refused; nil if that is not known or too old.
func (r *refusedTokens) find(d digest, now time.Time) *Error {
	if e, ok := r.all[d]; ok && now.Before(e.until) {
		return e.why
	}
	return nil
}

func (r *refusedTokens) add(d digest, why *Error, until time.Time) {
	if r.all == nil {
		r.all = map[digest]refusedToken{}
	}
	_, known := r.all[d]
	r.all[d] = refusedToken{why, until}
	switch {
	case known:
	case len(r.order) < maxRefused:
		r.order = append(r.order, d)
	default:
		delete(r.all, r.order[r.at])
		r.order[r.at] = d
		r.at = (r.at + 1) % maxRefused
	}
}
