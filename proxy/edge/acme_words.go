package edge

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/mholt/acmez/v3/acme"
)

// errClock is the likely cause where an authority's certificates are of no use.
var errClock = errors.New("the clock of this machine may be wrong")

// refusedByAuthority says whether an authority was reached and said no: asking
// again soon would cost it work and us its patience.
func refusedByAuthority(err error) bool {
	var problem acme.Problem
	return errors.Is(err, errClock) || errors.As(err, &problem) && problem.Type != acme.ProblemTypeBadNonce && problem.Type != acme.ProblemTypeServerInternal
}

// explainACME says in words why there is no certificate for a name, and what
// would do.
func explainACME(name string, err error, storage string) string {
	what, cure := causeACME(name, err, storage)
	if cure == "" {
		return what
	}
	return what + "; " + cure
}

// maxDetail bounds what is told of an authority's words, in bytes.
const maxDetail = 300

func causeACME(name string, err error, storage string) (what, cure string) {
	var problem acme.Problem
	if errors.As(err, &problem) {
		return causeOfProblem(name, problem)
	}
	var path *os.PathError
	var dns *net.DNSError
	var op *net.OpError
	var unknown x509.UnknownAuthorityError
	var wrongName x509.HostnameError
	var syntax *json.SyntaxError
	switch {
	case aboutRecords(err):
		return "the record for dns-01 cannot be made or seen: " + short(err.Error(), maxDetail), "check tls.acme.dns and the rights of its key"
	case errors.Is(err, errClock):
		return err.Error(), "set the clock, as by NTP"
	case errors.Is(err, syscall.ENOSPC), strings.Contains(err.Error(), syscall.ENOSPC.Error()):
		return "the storage is full", "make room in " + storage
	case errors.As(err, &path), errors.Is(err, fs.ErrPermission), aboutStorage(err):
		return "the storage of certificates cannot be used: " + short(err.Error(), maxDetail), "make " + storage + " a folder that this process can write, on a volume that lasts"
	case errors.As(err, &unknown), errors.As(err, &wrongName):
		return "the authority's server is not trusted: " + short(err.Error(), maxDetail), "if it is your own, name its root in tls.acme.ca"
	case errors.As(err, &dns):
		return fmt.Sprintf("the authority's name %q is not known to the DNS here", dns.Name), "check tls.acme.directory, and the resolver of this machine"
	case errors.As(err, &op):
		return "the authority cannot be reached: " + short(err.Error(), maxDetail), "check that this machine may call out, and tls.acme.directory"
	case errors.As(err, &syntax), strings.Contains(err.Error(), "decoding"), strings.Contains(err.Error(), "Content-Type"):
		return "the authority's answer makes no sense: " + short(err.Error(), maxDetail), "check that tls.acme.directory is the URL of an ACME directory"
	case errors.Is(err, context.DeadlineExceeded):
		return "the order took too long: " + short(err.Error(), maxDetail), "it is tried again"
	}
	return short(err.Error(), maxDetail), "it is tried again"
}

// aboutRecords says whether an error is one of making records, and aboutStorage
// whether it is one of storing: certmagic has only words for those.
func aboutRecords(err error) bool {
	return hasWords(err, "adding temporary record", "could not determine zone", "waiting for record", "checking DNS propagation")
}

func aboutStorage(err error) bool {
	return hasWords(err, "failed storage check", "unable to acquire lock", "saving assets", "keeping the account")
}

func hasWords(err error, all ...string) bool {
	return slices.ContainsFunc(all, func(words string) bool { return strings.Contains(err.Error(), words) })
}

// causeOfProblem explains what an authority says (RFC 8555, section 6.7).
func causeOfProblem(name string, p acme.Problem) (what, cure string) {
	detail := p.Detail
	for _, sub := range p.Subproblems {
		if sub.Detail != "" {
			detail = sub.Detail
			p.Type = sub.Type
		}
	}
	kind := strings.TrimPrefix(p.Type, "urn:ietf:params:acme:error:")
	said := fmt.Sprintf("the authority says: %s (%s)", short(strings.Join(strings.Fields(detail), " "), maxDetail), kind)
	switch kind {
	case "connection", "tls":
		return said, "point the DNS of " + name + " to this gateway, and let port 443 (or 80, for http-01) through from the internet"
	case "dns":
		return said, "give " + name + " an A or AAAA record that leads to this gateway"
	case "unauthorized", "incorrectResponse":
		return said, "something else answers for " + name + ": point its DNS to this gateway alone, or have the proxy before it let the challenge through"
	case "caa":
		return said, "allow this authority in the CAA record of the domain"
	case "rateLimited":
		return said, "it is tried again later; try changes with the directory letsencrypt-staging"
	case "rejectedIdentifier", "unsupportedIdentifier":
		return said, "use another name, another authority, or tls.files for " + name
	case "externalAccountRequired":
		return said, "write tls.acme.eab with the key that the authority gave you"
	case "invalidContact", "unsupportedContact":
		return said, "write an address that can be reached as tls.acme.email"
	case "userActionRequired":
		return said, "follow what it asks for"
	case "invalidProfile":
		return said, "choose one of its profiles as tls.acme.profile, or none"
	case "badNonce", "serverInternal":
		return said, "it is the authority's own trouble, and tried again"
	}
	return said, "it is tried again"
}
