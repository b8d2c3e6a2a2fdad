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

// errClock is the likely cause if an authority's new certificates are not valid.
var errClock = errors.New("the clock of this machine may be wrong")

// refusedByAuthority reports whether an authority refused the order. Such orders are retried
// slowly, because quick retries run into rate limits.
func refusedByAuthority(err error) bool {
	var problem acme.Problem
	return errors.Is(err, errClock) || errors.As(err, &problem) && problem.Type != acme.ProblemTypeBadNonce && problem.Type != acme.ProblemTypeServerInternal
}

// explainACME says why there is no certificate for a name, and how to fix that.
func explainACME(name string, err error, storage string) string {
	what, cure := causeACME(name, err, storage)
	if cure == "" {
		return what
	}
	return what + "; " + cure
}

// willRetry is said where the operator can do nothing.
const willRetry = "it will be retried"

// maxDetail is the maximum length of an error detail, in bytes.
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
		return "the record for dns-01 could not be created or looked up: " + short(err.Error(), maxDetail), "check tls.acme.dns and the rights of its key"
	case errors.Is(err, errClock):
		return err.Error(), "set the clock, for example by NTP"
	case errors.Is(err, syscall.ENOSPC), strings.Contains(err.Error(), syscall.ENOSPC.Error()):
		return "the storage is full", "free space in " + storage
	case errors.As(err, &path), errors.Is(err, fs.ErrPermission), aboutStorage(err):
		return "the storage of certificates cannot be used: " + short(err.Error(), maxDetail), "make " + storage + " a folder that this process can write, on a persistent volume"
	case errors.As(err, &unknown), errors.As(err, &wrongName):
		return "the authority's server is not trusted: " + short(err.Error(), maxDetail), "if it is your own, name its root in tls.acme.ca"
	case errors.As(err, &dns):
		return fmt.Sprintf("the authority's name %q cannot be resolved", dns.Name), "check tls.acme.directory, and the resolver of this machine"
	case errors.As(err, &op):
		return "the authority cannot be reached: " + short(err.Error(), maxDetail), "check tls.acme.directory and the firewall for outgoing connections"
	case errors.As(err, &syntax), strings.Contains(err.Error(), "decoding"), strings.Contains(err.Error(), "Content-Type"):
		return "the authority's answer is not valid ACME: " + short(err.Error(), maxDetail), "check that tls.acme.directory is the URL of an ACME directory"
	case errors.Is(err, context.DeadlineExceeded):
		return "the order took too long: " + short(err.Error(), maxDetail), willRetry
	}
	return short(err.Error(), maxDetail), willRetry
}

// aboutRecords reports whether an error concerns DNS records, and aboutStorage whether it
// concerns the storage. certmagic has no error types for these.
func aboutRecords(err error) bool {
	return hasWords(err, "adding temporary record", "could not determine zone", "waiting for record", "checking DNS propagation")
}

func aboutStorage(err error) bool {
	return hasWords(err, "failed storage check", "unable to acquire lock", "saving assets", "storing the account")
}

func hasWords(err error, all ...string) bool {
	return slices.ContainsFunc(all, func(words string) bool { return strings.Contains(err.Error(), words) })
}

// causeOfProblem explains an ACME problem document (RFC 8555, section 6.7).
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
		return said, "give " + name + " an A or AAAA record that points to this gateway"
	case "unauthorized", "incorrectResponse":
		return said, "something else answers for " + name + ": point its DNS to this gateway alone, or let the proxy in front of it pass the challenge on"
	case "caa":
		return said, "allow this authority in the CAA record of the domain"
	case "rateLimited":
		return said, "it will be retried later; test changes with the directory letsencrypt-staging"
	case "rejectedIdentifier", "unsupportedIdentifier":
		return said, "use another name, another authority, or tls.files for " + name
	case "externalAccountRequired":
		return said, "write tls.acme.eab with the key that the authority gave you"
	case "invalidContact", "unsupportedContact":
		return said, "write a working address as tls.acme.email"
	case "userActionRequired":
		return said, "follow the authority's instructions"
	case "invalidProfile":
		return said, "choose one of its profiles as tls.acme.profile, or none"
	case "badNonce", "serverInternal":
		return said, "the fault is at the authority; it will be retried"
	}
	return said, willRetry
}
