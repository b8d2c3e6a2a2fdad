package edge

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"

	"sallyport/proxy/ratelog"
)

// acmeSource obtains and renews certificates by ACME, only for the names of the
// configuration. Orders run in the background; a handshake never starts one and fails while its
// certificate is missing.
//
// Storage layout, keys, requests and the order of issuers come from certmagic. Its global parts
// (challenge server, job queue, retries) are not used.
type acmeSource struct {
	names      []string
	authorized []*authorityClient
	storage    *certStorage
	challenges *challenges
	keyType    certmagic.KeyType
	log        *slog.Logger
	pace       pace
	lines      *ratelog.Log
	now        func() time.Time
	rhythm     rhythm

	certs atomic.Pointer[map[string]*tls.Certificate] // by name

	mu    sync.Mutex // guards names and state
	state map[string]*acmeState
	poke  chan struct{} // wakes run
}

// acmeState is the state of one name's certificate.
type acmeState struct {
	name   string
	stored *storedCert // nil if there is none
	// seen holds the [certStorage.stamp] of the files when last read, by authority. It avoids
	// reading thousands of files that rarely change.
	seen map[string]string

	busy      bool
	next      time.Time // when to check it again
	renewal   time.Time // when to renew it; zero if there is none
	retry     time.Time // earliest next order after a failure
	failures  int       // consecutive failures
	lastError string
	window    acme.RenewalInfo // renewal window that the authority recommends (RFC 9773)
	nextAsk   time.Time        // earliest next request for the window
}

// storedCert is a certificate in the storage.
type storedCert struct {
	cert   *tls.Certificate
	issuer string // storage key of the authority
	pem    []byte // chain
	key    []byte // PEM
}

// rhythm holds the intervals of an acmeSource. Tests use shorter ones.
type rhythm struct {
	look    time.Duration   // interval of checking the storage for certificates that other processes renewed
	refused []time.Duration // waits after the authority refused an order
	away    []time.Duration // waits after the authority could not be reached
	burst   int             // orders that may start at once
	apart   time.Duration   // interval between orders after the burst
}

// usualRhythm keeps within the limits of Let's Encrypt: five failed validations of a name in
// an hour (an order may fail two challenges), and 300 orders in three hours.
func usualRhythm() rhythm {
	m := time.Minute
	return rhythm{
		look:    m,
		refused: []time.Duration{20 * m, 60 * m, 120 * m, 240 * m, 480 * m},
		away:    []time.Duration{m / 2, m, 2 * m, 5 * m, 10 * m, 30 * m},
		burst:   10,
		apart:   time.Second,
	}
}

func newACMESource(c *ACMEConfig, names []string, o Options) (*acmeSource, error) {
	storage, err := newCertStorage(c.storage())
	if err != nil {
		return nil, err
	}
	s := &acmeSource{
		names: names, storage: storage, keyType: c.keyType(), log: o.Log, pace: pace{now: o.Now}, lines: ratelog.New(o.Log, o.Now), now: o.Now,
		rhythm: usualRhythm(), state: map[string]*acmeState{}, poke: make(chan struct{}, 1),
	}
	folder := storage
	if o.Challenges != "" {
		if folder, err = newCertStorage(o.Challenges); err != nil {
			return nil, err
		}
	}
	s.challenges = newChallenges(folder, s.names)
	solvers := map[string]acmez.Solver{}
	for _, name := range c.challenges(o.PlainHTTP) {
		switch name {
		case challengeHTTP:
			solvers[name] = httpSolver{s.challenges}
		case challengeTLS:
			solvers[name] = tlsSolver{s.challenges}
		case challengeDNS:
			if solvers[name], err = newDNSSolver(c.DNS, o.Now); err != nil {
				return nil, err
			}
		}
	}
	for _, issuer := range c.issuers() {
		a, err := newAuthorityClient(issuer, c.Email, storage, solvers)
		if err != nil {
			return nil, err
		}
		s.authorized = append(s.authorized, a)
	}
	s.certs.Store(&map[string]*tls.Certificate{})
	for _, name := range s.names {
		s.add(name)
	}
	s.publishAll()
	return s, nil
}

// add starts managing a name, with its stored certificate if there is one. The caller holds
// mu or has sole access.
func (s *acmeSource) add(name string) {
	st := &acmeState{name: name, seen: map[string]string{}}
	s.state[name] = st
	if err := s.adopt(st); err != nil {
		st.lastError = err.Error()
		s.log.Warn("the stored certificate cannot be used; a new one will be obtained", "name", name, "error", err)
	}
}

// publishAll makes the certificates of exactly these names available to handshakes. The
// caller holds mu or has sole access.
func (s *acmeSource) publishAll() {
	certs := make(map[string]*tls.Certificate, len(s.names))
	for _, name := range s.names {
		if st := s.state[name]; st.stored != nil {
			certs[name] = st.stored.cert
		}
	}
	s.certs.Store(&certs)
}

// acmeNames returns the names to obtain certificates for: the domains, and the hosts that
// no domain covers.
func acmeNames(c *ACMEConfig, hosts []string) []string {
	names := slices.Clone(c.Domains)
	for _, host := range hosts {
		if !coveredBy(host, c.Domains) {
			names = append(names, host)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// covers reports whether this source manages the host, even before it has a certificate.
func (s *acmeSource) covers(host string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return coveredBy(host, s.names)
}

func (s *acmeSource) certificate(name string, _ *tls.ClientHelloInfo) *tls.Certificate {
	certs := *s.certs.Load()
	if c := certs[name]; c != nil {
		return c
	}
	return certs[wildcard(name)]
}

// look does nothing; run renews certificates.
func (s *acmeSource) look() {}

// missing returns the reason why a route's host has no certificate yet.
func (s *acmeSource) missing(name string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range []string{name, wildcard(name)} {
		if st := s.state[n]; st != nil && st.stored == nil {
			if st.lastError != "" {
				return st.lastError
			}
			return "it is being obtained"
		}
	}
	return ""
}

func (s *acmeSource) status() []CertificateStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []CertificateStatus
	for _, name := range s.names {
		st := s.state[name]
		c := CertificateStatus{Hosts: []string{name}, Source: "acme", LastError: st.lastError}
		if st.stored != nil {
			leaf := st.stored.cert.Leaf
			c.Issuer, c.NotBefore, c.NotAfter, c.NextRenewal = leaf.Issuer.CommonName, leaf.NotBefore, leaf.NotAfter, latest(st.renewal, st.retry)
		} else {
			c.NextRenewal = st.retry
		}
		all = append(all, c)
	}
	return all
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// adopt loads the newest stored certificate of a name if it is newer than the current one.
// The caller holds mu or has sole access.
func (s *acmeSource) adopt(st *acmeState) error {
	var faults []error
	for _, a := range s.authorized {
		stamp := s.storage.stamp(certmagic.StorageKeys.SiteCert(a.key, st.name), certmagic.StorageKeys.SitePrivateKey(a.key, st.name))
		if st.seen[a.key] == stamp {
			continue
		}
		st.seen[a.key] = stamp
		c, err := s.load(a.key, st.name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			faults = append(faults, err)
		case st.stored == nil || st.stored.replacedBy(c):
			st.stored, st.window, st.nextAsk = c, acme.RenewalInfo{}, time.Time{}
		}
	}
	st.renewal = s.renewalOf(st)
	if st.stored != nil {
		return nil
	}
	return errors.Join(faults...)
}

// replacedBy reports whether c replaces s: a different certificate of the same authority, or
// a newer one of another authority.
func (s *storedCert) replacedBy(c *storedCert) bool {
	old, young := s.cert.Leaf, c.cert.Leaf
	if s.issuer == c.issuer {
		return !young.Equal(old) && !young.NotBefore.Before(old.NotBefore)
	}
	return young.NotBefore.After(old.NotBefore)
}

// load reads a certificate of an authority from the storage.
func (s *acmeSource) load(issuer, name string) (*storedCert, error) {
	ctx := context.Background()
	chain, err := s.storage.Load(ctx, certmagic.StorageKeys.SiteCert(issuer, name))
	if err != nil {
		return nil, err
	}
	key, err := s.storage.loadKey(ctx, certmagic.StorageKeys.SitePrivateKey(issuer, name))
	if err != nil {
		return nil, err
	}
	if !wholePEM(chain) {
		return nil, fmt.Errorf("the stored certificate for %s is truncated", name)
	}
	c, err := tls.X509KeyPair(chain, key)
	if err != nil {
		return nil, fmt.Errorf("the stored certificate for %s cannot be used: %w", name, err)
	}
	if !slices.Contains(hostsIn(c.Leaf), name) {
		return nil, fmt.Errorf("the stored certificate for %s is for other names", name)
	}
	return &storedCert{cert: &c, issuer: issuer, pem: chain, key: key}, nil
}

// wholePEM reports whether text is PEM up to its end. A truncated chain may still begin
// with our certificate, but no client can verify it.
func wholePEM(text []byte) bool {
	for len(bytes.TrimSpace(text)) > 0 {
		block, rest := pem.Decode(text)
		if block == nil {
			return false
		}
		text = rest
	}
	return true
}

// renewalOf returns the time to renew a certificate: the time that the authority
// recommends, else two thirds of its lifetime.
func (s *acmeSource) renewalOf(st *acmeState) time.Time {
	if st.stored == nil {
		return time.Time{}
	}
	leaf := st.stored.cert.Leaf
	if !s.authorizes(st.stored.issuer) {
		return leaf.NotBefore // inherited from another authority: renew now
	}
	life := leaf.NotAfter.Sub(leaf.NotBefore)
	at := st.window.SelectedTime
	if at.IsZero() {
		return leaf.NotAfter.Add(-life / 3)
	}
	// Follow the authority, which may revoke early. The limits prevent endless immediate
	// renewal, and renewal too close to expiry.
	at = latest(at, leaf.NotBefore.Add(life/10))
	if last := leaf.NotAfter.Add(-life / 10); at.After(last) {
		at = last
	}
	return at
}

// publish makes the certificate of st available to handshakes. The caller holds mu.
func (s *acmeSource) publish(st *acmeState) {
	old := *s.certs.Load()
	if st.stored == nil || s.state[st.name] != st || old[st.name] == st.stored.cert {
		return
	}
	next := maps.Clone(old)
	next[st.name] = st.stored.cert
	s.certs.Store(&next)
}

// workers is the maximum number of concurrent orders.
const workers = 8

// run obtains and renews certificates until ctx ends.
func (s *acmeSource) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, workers)
	for {
		due, wait := s.due()
		for _, st := range due {
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return
			}
			wg.Go(func() {
				s.maintain(ctx, st)
				<-slots
				s.wake()
			})
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		case <-s.poke:
			t.Stop()
		}
	}
}

func (s *acmeSource) wake() {
	select {
	case s.poke <- struct{}{}:
	default:
	}
}

// due marks the names to check now as busy and returns them, with the time until the next check.
func (s *acmeSource) due() (all []*acmeState, wait time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	wait = s.rhythm.look
	for _, name := range s.names {
		st := s.state[name]
		switch {
		case st.busy:
		case !st.next.After(now):
			st.busy = true
			all = append(all, st)
		default:
			wait = min(wait, st.next.Sub(now))
		}
	}
	return all, wait
}

// maintain obtains or renews one name's certificate if needed, and schedules the next check.
func (s *acmeSource) maintain(ctx context.Context, st *acmeState) {
	s.mu.Lock()
	err := s.adopt(st) // another process may have renewed it
	s.publish(st)
	now, retry := s.now(), st.retry
	s.mu.Unlock()

	due := func() bool { return st.stored == nil || !st.renewal.After(now) }
	if !due() {
		s.askForWindow(ctx, st) // a network request
	}
	if due() && !retry.After(now) && ctx.Err() == nil {
		err = s.renew(ctx, st, false)
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	now = s.now()
	if err == nil && st.stored != nil && st.renewal.After(now) {
		st.failures, st.lastError, st.retry = 0, "", time.Time{}
	}
	st.busy = false
	st.next = now.Add(s.rhythm.look)
	for _, at := range []time.Time{st.renewal, st.retry} {
		if at.After(now) && at.Before(st.next) {
			st.next = at
		}
	}
}

// askForWindow asks the authority for the renewal window. If that fails, renewalOf uses its
// default.
func (s *acmeSource) askForWindow(ctx context.Context, st *acmeState) {
	if st.stored == nil || s.now().Before(st.nextAsk) || st.stored.cert.Leaf.AuthorityKeyId == nil {
		return
	}
	i := slices.IndexFunc(s.authorized, func(a *authorityClient) bool { return a.key == st.stored.issuer })
	if i < 0 {
		return
	}
	b := &bounds{now: s.now}
	client := s.authorized[i].client(b)
	defer client.HTTPClient.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	window, err := client.GetRenewalInfo(ctx, st.stored.cert.Leaf)
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	st.nextAsk = now.Add(jitter(6 * time.Hour))
	if err != nil || !window.HasWindow() {
		return
	}
	if window.SameWindow(st.window) {
		window.SelectedTime = st.window.SelectedTime // keep the time chosen earlier
	}
	if at := window.RetryAfter; at != nil && at.After(now.Add(time.Minute)) && at.Before(now.Add(24*time.Hour)) {
		st.nextAsk = *at
	}
	st.window = window
	st.renewal = s.renewalOf(st)
}
