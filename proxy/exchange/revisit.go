package exchange

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"sallyport/auth"
)

// revisitors is how many credentials are checked again at once: a slow issuer must not delay the others.
const revisitors = 8

// revoked is the ending of an exchange whose credential its issuer has withdrawn.
func revoked(why error) *ending {
	return &ending{reasonWithdrawn, "the credential was checked again: " + inWords(why), statusAgain(why)}
}

// revocable reports whether the credential may be withdrawn before it expires: by an issuer, see
// [auth.Proof], or by a revocation list of client certificates, which may end too.
func (x *exchange) revocable() bool {
	t := x.stream.Conn().TLS
	return x.proof.Revocable || x.caller.Source == "cert" || t != nil && len(t.PeerCertificates) > 0
}

// Revisit checks the credentials again that may be withdrawn, of exchanges in progress. It ends those
// that the current snapshot refuses, and returns how many. While an issuer does not answer, exchanges
// go on until their credential expires; those whose credential never expires end.
func (s *Server) Revisit(ctx context.Context) (ended int) {
	return s.revisit(ctx, func(x *exchange) bool { return !x.ofSessionAlone() && x.revocable() })
}

// RevisitSessions does so for people's sessions, about which no issuer is asked: one that hangs must not
// delay the end of a session.
func (s *Server) RevisitSessions(ctx context.Context) (ended int) {
	return s.revisit(ctx, (*exchange).ofSessionAlone)
}

// ofSessionAlone reports whether the exchange has a session, and no token about which an issuer is asked.
func (x *exchange) ofSessionAlone() bool { return x.proof.Session != nil && !x.proof.AsksIssuer }

func (s *Server) revisit(ctx context.Context, concerns func(*exchange) bool) int {
	now := s.takeToCheck()
	if now == nil {
		return 0
	}
	defer now.leave()
	return checkAgain(s.decided(concerns), func(u *underWay) *ending {
		if ctx.Err() != nil {
			return nil
		}
		if err := now.permits(ctx, u); err != nil && ctx.Err() == nil && !u.outlasts(err) {
			return revoked(err)
		}
		return nil
	})
}

// checkAgain ends the exchanges for which check returns an ending, and returns how many. It checks
// several at once.
func checkAgain(all []underWay, check func(*underWay) *ending) int {
	var next, ended atomic.Int64
	var work sync.WaitGroup
	for range min(revisitors, len(all)) {
		work.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(all)); i = next.Add(1) - 1 {
				u := &all[i]
				if u.life.Err() != nil {
					continue
				}
				if cause := check(u); cause != nil {
					u.life.End(cause)
					ended.Add(1)
				}
			}
		})
	}
	work.Wait()
	return int(ended.Load())
}

// outlasts reports whether an exchange goes on although its credential could not be checked.
func (u *underWay) outlasts(err error) bool {
	var e *auth.Error
	return errors.As(err, &e) && e.Reason == auth.IssuerUnavailable && !u.proof.Caller.Expires.IsZero()
}
