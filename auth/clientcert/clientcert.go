// Package clientcert decides whether a client's certificate proves a caller, and which.
//
// A configuration has entries, each with its CAs. An entry serves hosts. [Hosts.For] returns the
// [Trust] of a host, and [Trust.Verify] checks the chain of a request against it.
//
// TLS proves that the client has the private key. This package checks everything else, and again
// for each request: connections and resumed sessions outlive a reload. Verified chains are cached,
// so that the check of another request costs less than a microsecond.
package clientcert

import (
	"cmp"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"sallyport/auth/identity"
	"sallyport/proxy/setting"
)

// The reasons of an [Error].
const (
	Missing     = "certificate_missing"
	UnknownCA   = "certificate_unknown_ca" // self-signed certificates too
	Expired     = "certificate_expired"
	NotYetValid = "certificate_not_yet_valid"
	WrongUsage  = "certificate_wrong_usage"
	Revoked     = "certificate_revoked"
	Name        = "certificate_name"  // no usable name, one that is not accepted, or name constraints
	Chain       = "certificate_chain" // malformed, or too many certificates

	// RevocationUnknown means that there is no current revocation list of a CA that needs one.
	RevocationUnknown = "certificate_revocation_unknown"
)

// Error says why a certificate proves no caller.
type Error struct {
	Reason string // one of the constants above
	Err    error  // the cause, for logs and records; never nil
}

// Error returns the reason and its cause.
func (e *Error) Error() string { return e.Reason + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

func refuse(reason, format string, args ...any) *Error {
	return &Error{Reason: reason, Err: fmt.Errorf(format, args...)}
}

// Hosts are the entries of one configuration. They are safe for concurrent use.
//
// They are active between [Hosts.Activate] and [Hosts.Close]. Inactive ones have no revocation lists
// from URLs, and so refuse certificates that need them.
type Hosts struct {
	all    []*Trust
	byHost map[string]*Trust // in lower case; "*.example.com" stands for any one label
	others *Trust            // for the hosts that no entry names; nil: none
	memory *Memory

	activated, closed bool // guarded by memory.mu
}

// New returns the entries of a configuration, which must have passed [Config.Check]. It reads the
// files that they name, uses no network and starts no goroutine. m is the
// process's Memory. now is the clock; nil is time.Now. Hosts that were never activated need not be
// closed.
func New(all []Config, m *Memory, now func() time.Time) (*Hosts, error) {
	if now == nil {
		now = time.Now
	}
	h := &Hosts{byHost: map[string]*Trust{}, memory: m}
	for i := range all {
		t, err := newTrust(&all[i], m, now)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", setting.Index("client_certificates", i), err)
		}
		h.all = append(h.all, t)
		if len(all[i].Hosts) == 0 {
			h.others = t
		}
		for _, host := range all[i].Hosts {
			h.byHost[canonicalHost(host)] = t
		}
	}
	return h, nil
}

// For returns the Trust of a host, which must be in lower case without a port; nil if no entry
// serves it. An exact name precedes a wildcard, and both precede the entry without hosts.
//
// For does not know routes. A host should ask clients for certificates only if one of its routes
// uses them: see Config.AsksForCertificates of package config.
func (h *Hosts) For(host string) *Trust {
	if h == nil {
		return nil
	}
	if t := h.byHost[host]; t != nil {
		return t
	}
	if len(h.byHost) > 0 {
		if _, rest, ok := strings.Cut(host, "."); ok {
			if t := h.byHost["*."+rest]; t != nil {
				return t
			}
		}
	}
	return h.others
}

func canonicalHost(host string) string { return strings.ToLower(strings.TrimSuffix(host, ".")) }

// Trust is one entry: which certificates prove a caller, and which caller. It is immutable but for
// its cache, and safe for concurrent use.
type Trust struct {
	id       string
	required bool
	bundle   *bundle
	revoked  *revocation // nil: the entry has no lists
	memory   *Memory
	now      func() time.Time

	maxDepth     int
	kinds        []string // of names, in order of preference
	trustDomains []string // nil: all
	groups       string
	allowed      map[[32]byte]bool // nil: all
	denied       map[[32]byte]bool
	header       string // in lower case; "" for none
	from         []netip.Prefix

	cache   *cache
	headers headers
}

func newTrust(c *Config, m *Memory, now func() time.Time) (*Trust, error) {
	b, err := readBundle(c.CA)
	if err != nil {
		return nil, err
	}
	revoked, err := newRevocation(c, b)
	if err != nil {
		return nil, err
	}
	t := &Trust{
		id: setting.Digest(*c), required: c.Mode == Required, bundle: b, revoked: revoked, memory: m, now: now,
		maxDepth: defaultDepth, kinds: c.kinds(), trustDomains: slices.Clone(c.TrustDomains), groups: cmp.Or(c.Groups, noGroups),
		cache: newCache(),
	}
	if c.MaxDepth != nil {
		t.maxDepth = *c.MaxDepth
	}
	if t.allowed, err = fingerprints(c.AllowFingerprints); err != nil {
		return nil, err
	}
	if t.denied, err = fingerprints(c.DenyFingerprints); err != nil {
		return nil, err
	}
	t.headers.known.most = maxHeaders
	if c.Header != nil {
		t.header = strings.ToLower(c.Header.Name)
		for _, p := range c.Header.From {
			t.from = append(t.from, p.Prefix)
		}
	}
	return t, nil
}

// ID is a digest of all that decides, but for lists that are fetched. Sessions of one Trust must
// not be resumed under another.
func (t *Trust) ID() string { return t.id }

// Required reports whether a handshake without a verified certificate must fail.
func (t *Trust) Required() bool { return t.required }

// Subjects returns the names of the CAs as they are encoded, by which clients choose a certificate.
func (t *Trust) Subjects() [][]byte { return t.bundle.subjects }

// HeaderFrom returns the lower-case name of the field in which the peer at this address sends the
// client's certificate, because it ends the client's TLS; "" if the peer is none of those.
func (t *Trust) HeaderFrom(peer netip.Addr) string {
	if t.header != "" {
		peer = peer.Unmap()
		for _, p := range t.from {
			if p.Contains(peer) {
				return t.header
			}
		}
	}
	return ""
}

// Verify checks the chain that a client sent, its own certificate first, and returns the caller,
// who must not be modified. The error is always an [*Error].
//
// A verified chain is cached until any of its certificates or the revocation lists behind it end, or
// any list that is fetched changes.
func (t *Trust) Verify(chain []*x509.Certificate) (*identity.Principal, error) {
	v, err := t.check(chain)
	switch {
	case err != nil:
		return nil, err
	case v.unnamed != nil:
		return nil, v.unnamed
	}
	return &v.principal, nil
}

// Holder checks the chain as Verify does, but for the names in it. It returns the SHA-256 of the
// client's own certificate, and its holder, who may have no name. The error is always an [*Error].
func (t *Trust) Holder(chain []*x509.Certificate) (*identity.Principal, *[32]byte, error) {
	v, err := t.check(chain)
	if err != nil {
		return nil, nil, err
	}
	return &v.principal, &v.fingerprint, nil
}

// verdict is the outcome for a chain that leads to a CA of the Trust. It is immutable.
type verdict struct {
	fingerprint [32]byte
	principal   identity.Principal
	unnamed     *Error // why the certificate names no caller; nil if it does

	notBefore, notAfter time.Time // of the whole chain
	listsUntil          time.Time // when the lists behind it end; zero if there are none
	generation          uint64    // of the lists behind it
}

func (v *verdict) current(generation uint64, now time.Time) bool {
	return v.generation == generation && !now.Before(v.notBefore) && !now.After(v.notAfter) &&
		(v.listsUntil.IsZero() || !now.After(v.listsUntil))
}

// check returns the verdict on a chain, from the cache if it is there. A nil error is a nil
// interface.
func (t *Trust) check(chain []*x509.Certificate) (*verdict, error) {
	if len(chain) == 0 {
		return nil, &Error{Reason: Missing, Err: errMissing}
	}
	if err := t.checkSize(chain); err != nil {
		return nil, err
	}
	// A list that changes while the chain is verified makes the verdict one of the past.
	generation, now := t.memory.generation.Load(), t.now()
	if v := t.cache.byPointer(chain, generation, now); v != nil {
		return v, nil
	}
	id := chainID(chain)
	v, failed := t.cache.byID(id, generation, now)
	if failed != nil {
		return nil, failed
	}
	if v == nil {
		if v, failed = t.verify(chain, now); failed != nil {
			t.cache.putFailure(id, failure{failed, generation, now.Add(failedTime)})
			return nil, failed
		}
		v.generation = generation
	}
	t.cache.put(id, chain, v)
	return v, nil
}

var errMissing = errors.New("the client has sent no certificate")

const (
	// spareCertificates may be sent beyond max_depth: the client's own, the root's, and two of
	// other chains.
	spareCertificates = 4
	// maxChainBytes bounds the certificates of a chain together. Their names and constraints are
	// read before any signature.
	maxChainBytes = 64 << 10
	// maxRSA is the longest RSA key that is used, as in crypto/tls.
	maxRSA = 8192
)

// checkSize bounds the work that a chain can cause.
func (t *Trust) checkSize(chain []*x509.Certificate) error {
	if most := t.maxDepth + spareCertificates; len(chain) > most {
		return refuse(Chain, "the client sent %d certificates, at most %d are read", len(chain), most)
	}
	size := 0
	for _, c := range chain {
		size += len(c.Raw)
	}
	if size > maxChainBytes {
		return refuse(Chain, "the client sent certificates of %d bytes, at most %d are read", size, maxChainBytes)
	}
	return nil
}
