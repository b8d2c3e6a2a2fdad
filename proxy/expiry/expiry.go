// Package expiry announces the ends of keys and certificates before they come.
//
// An [End] says when a key or certificate ends, and what to do. [Watch] warns when a third, a tenth
// and nothing of its lifetime is left. Fractions suit both certificates of years and of weeks.
package expiry

import (
	"cmp"
	"crypto/x509"
	"encoding/pem"
	"slices"
	"time"
)

// Kinds of things that end.
const (
	SigningKey  = "signing_key"
	APIKey      = "api_key"
	Passwords   = "basic"
	Certificate = "certificate"
	Token       = "token" // by which the gateway calls others
	CA          = "ca"    // certificates of authorities, by which the gateway verifies others
	CRL         = "crl"   // lists of revoked certificates, each until it names its successor
)

// End describes when a thing, a key or certificate, ends.
type End struct {
	Kind string
	Name string // unique among its kind, such as a keyid, or the hosts of a certificate
	// NotBefore is when the thing's life began; zero if that is unknown. Its lifetime then counts
	// as 90 days.
	NotBefore time.Time
	NotAfter  time.Time // zero if the thing does not exist yet
	Cure      string    // what to do before the end
	// At is the place in the configuration that names the thing.
	At string
	// Renewing means that the gateway, or whoever writes the file, renews the thing in the last third
	// of its lifetime, and that no fault of that renewal is known.
	Renewing bool
}

// Left is how much of a lifetime is left, in steps.
type Left string

// Values of Left, from much to nothing.
const (
	Enough Left = ""
	Third  Left = "third" // a third of the lifetime or less
	Tenth  Left = "tenth" // a tenth or less
	None   Left = "ended"
)

// assumed is the lifetime of things whose beginning is unknown.
const assumed = 90 * 24 * time.Hour

// lifetime returns how long the thing lasts in all.
func (e *End) lifetime() time.Duration {
	if e.NotBefore.IsZero() || !e.NotBefore.Before(e.NotAfter) {
		return assumed
	}
	return e.NotAfter.Sub(e.NotBefore)
}

// Left returns how little of the thing's lifetime is left.
func (e *End) Left(now time.Time) Left {
	switch left := e.NotAfter.Sub(now); {
	case e.NotAfter.IsZero():
		return Enough
	case left <= 0:
		return None
	case left <= e.lifetime()/10:
		return Tenth
	case left <= e.lifetime()/3:
		return Third
	}
	return Enough
}

// next returns when Left changes next; zero if it does not.
func (e *End) next(now time.Time) time.Time {
	switch life := e.lifetime(); e.Left(now) {
	case Enough:
		if e.NotAfter.IsZero() {
			return time.Time{}
		}
		return e.NotAfter.Add(-life / 3)
	case Third:
		return e.NotAfter.Add(-life / 10)
	case Tenth:
		return e.NotAfter
	}
	return time.Time{}
}

// Sort sorts all in place, the earliest first, and keeps only the earliest of those with the same
// kind and name. Things that do not exist yet come first. It returns the shortened slice.
func Sort(all []End) []End {
	slices.SortStableFunc(all, func(a, b End) int {
		return cmp.Or(a.NotAfter.Compare(b.NotAfter), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name))
	})
	seen := make(map[[2]string]bool, len(all))
	return slices.DeleteFunc(all, func(e End) bool {
		id := [2]string{e.Kind, e.Name}
		before := seen[id]
		seen[id] = true
		return before
	})
}

// Bundle returns the validity of the certificate in a PEM bundle that ends first. It ignores ended
// ones while any other is valid, because bundles keep old certificates beside their successors. ok
// is false if there is no certificate.
func Bundle(text []byte, now time.Time) (notBefore, notAfter time.Time, ok bool) {
	var best *x509.Certificate
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			continue // certificate pools of crypto/x509 skip it too
		}
		if best == nil || better(c.NotAfter, best.NotAfter, now) {
			best = c
		}
	}
	if best == nil {
		return time.Time{}, time.Time{}, false
	}
	return best.NotBefore, best.NotAfter, true
}

// better reports whether end a counts rather than end b: the earliest end after now, and if all are
// past, the latest.
func better(a, b, now time.Time) bool {
	switch lasts := a.After(now); {
	case lasts != b.After(now):
		return lasts
	case lasts:
		return a.Before(b)
	}
	return a.After(b)
}
