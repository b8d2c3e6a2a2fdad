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
)

// acmeSource obtains certificates by ACME, for the names of the configuration and
// no others, and renews them. Nothing of that happens in a handshake: what is
// missing there stays missing until it has been obtained in the background.
//
// The storage, its locks' use, keys, requests and the order of issuers are
// certmagic's; what certmagic keeps in its package (a server of its own for
// challenges, a queue of jobs, retries) is not used.
type acmeSource struct {
	names      []string
	authorized []*authorityClient
	storage    *certStorage
	challenges *challenges
	keyType    certmagic.KeyType
	log        *slog.Logger
	lines      pace
	now        func() time.Time
	rhythm     rhythm

	certs atomic.Pointer[map[string]*tls.Certificate] // by name, as in certificates

	mu    sync.Mutex // guards states
	state map[string]*acmeState
	poke  chan struct{} // wakes run
}

// acmeState is what is known of one name's certificate.
type acmeState struct {
	name   string
	stored *storedCert // nil: there is none
	// seen is how its files looked when they were last read, by authority: there
	// may be thousands, and they rarely change.
	seen map[string]string

	busy      bool
	next      time.Time // when to look at it again
	renewal   time.Time // when it is to be renewed; zero if there is none
	retry     time.Time // not to be ordered before, after a failure
	failures  int       // in a row
	lastError string
	window    acme.RenewalInfo // what the authority recommends (RFC 9773)
	asked     time.Time        // when it is to be asked for its window
}

// storedCert is a certificate as the storage has it.
type storedCert struct {
	cert   *tls.Certificate
	issuer string // the key of the authority
	pem    []byte // chain
	key    []byte // PEM
}

// rhythm is how fast things go. Tests are in a hurry.
type rhythm struct {
	look    time.Duration   // how often the storage is looked at for what others renewed
	refused []time.Duration // waits after an authority said no
	away    []time.Duration // waits after one could not be asked
	burst   int             // orders that may begin at once
	apart   time.Duration   // between the orders after those
}

// usualRhythm keeps within what Let's Encrypt allows: five failed validations of a
// name in an hour (an order may fail by two challenges), 300 orders in three.
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
		names: names, storage: storage, keyType: c.keyType(), log: o.Log, lines: pace{now: o.Now}, now: o.Now,
		rhythm: usualRhythm(), state: map[string]*acmeState{}, poke: make(chan struct{}, 1),
	}
	shared := storage
	if o.Challenges != "" {
		if shared, err = newCertStorage(o.Challenges); err != nil {
			return nil, err
		}
	}
	s.challenges = newChallenges(shared, s.names)
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

// add begins to care for a name: by the certificate that the storage has, if there is
// one. The caller holds mu, or is alone.
func (s *acmeSource) add(name string) {
	st := &acmeState{name: name, seen: map[string]string{}}
	s.state[name] = st
	if err := s.adopt(st); err != nil {
		st.lastError = err.Error()
		s.log.Warn("the stored certificate cannot be used; a new one will be obtained", "name", name, "error", err)
	}
}

// publishAll makes the certificates of all names known to handshakes, and no others. The
// caller holds mu, or is alone.
func (s *acmeSource) publishAll() {
	certs := make(map[string]*tls.Certificate, len(s.names))
	for _, name := range s.names {
		if st := s.state[name]; st.stored != nil {
			certs[name] = st.stored.cert
		}
	}
	s.certs.Store(&certs)
}

// acmeNames are the names to have certificates for: the domains, and the hosts
// that none of those covers.
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

// covers says whether the host is one that this source cares for. It is so before there is
// a certificate.
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

// look does nothing: run does.
func (s *acmeSource) look() {}

// missing says why there is no certificate for a name that a route has.
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
			c.Issuer, c.NotAfter, c.NextRenewal = leaf.Issuer.CommonName, leaf.NotAfter, latest(st.renewal, st.retry)
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

// adopt takes the newest certificate that the storage has for a name, if it is
// newer than ours. The caller holds mu, or is alone.
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
			st.stored, st.window, st.asked = c, acme.RenewalInfo{}, time.Time{}
		}
	}
	st.renewal = s.renewalOf(st)
	if st.stored != nil {
		return nil
	}
	return errors.Join(faults...)
}

// replacedBy says whether c takes the place of s: it is another one of the same
// authority, or a younger one of another.
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
		return nil, fmt.Errorf("the stored certificate for %s is cut short", name)
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

// wholePEM says whether text is PEM to its end. A chain that was cut short may
// still begin with our certificate, and then no client can verify it.
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

// renewalOf is when a certificate is to be renewed: when its authority
// recommends, else after two thirds of its life.
func (s *acmeSource) renewalOf(st *acmeState) time.Time {
	if st.stored == nil {
		return time.Time{}
	}
	leaf := st.stored.cert.Leaf
	if !s.authorizes(st.stored.issuer) {
		return leaf.NotBefore // inherited: it is due
	}
	life := leaf.NotAfter.Sub(leaf.NotBefore)
	at := st.window.SelectedTime
	if at.IsZero() {
		return leaf.NotAfter.Add(-life / 3)
	}
	// It may want it sooner, as when it has to revoke; but neither at once and for
	// ever, nor later than is safe.
	at = latest(at, leaf.NotBefore.Add(life/10))
	if last := leaf.NotAfter.Add(-life / 10); at.After(last) {
		at = last
	}
	return at
}

// publish makes the certificates known to handshakes. The caller holds mu.
func (s *acmeSource) publish(st *acmeState) {
	old := *s.certs.Load()
	if st.stored == nil || s.state[st.name] != st || old[st.name] == st.stored.cert {
		return
	}
	next := maps.Clone(old)
	next[st.name] = st.stored.cert
	s.certs.Store(&next)
}

// workers bounds the orders that are under way at once.
const workers = 8

// run obtains and renews until ctx ends.
func (s *acmeSource) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	places := make(chan struct{}, workers)
	for {
		due, wait := s.due()
		for _, st := range due {
			select {
			case places <- struct{}{}:
			case <-ctx.Done():
				return
			}
			wg.Go(func() {
				s.keep(ctx, st)
				<-places
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

// due are the names to look at now, marked as busy, and how long until the next.
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

// keep does what one name's certificate needs, and says when to look again.
func (s *acmeSource) keep(ctx context.Context, st *acmeState) {
	s.mu.Lock()
	err := s.adopt(st) // somebody else may have renewed it
	s.publish(st)
	now, retry := s.now(), st.retry
	s.mu.Unlock()

	due := func() bool { return st.stored == nil || !st.renewal.After(now) }
	if !due() {
		s.askForWindow(ctx, st) // which may take its time
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

// askForWindow asks the authority when it wants the certificate renewed. Where
// that is not known, a third of its life is left.
func (s *acmeSource) askForWindow(ctx context.Context, st *acmeState) {
	if st.stored == nil || s.now().Before(st.asked) || st.stored.cert.Leaf.AuthorityKeyId == nil {
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
	st.asked = now.Add(jitter(6 * time.Hour))
	if err != nil || !window.HasWindow() {
		return
	}
	if window.SameWindow(st.window) {
		window.SelectedTime = st.window.SelectedTime // the choice within it is made once
	}
	if at := window.RetryAfter; at != nil && at.After(now.Add(time.Minute)) && at.Before(now.Add(24*time.Hour)) {
		st.asked = *at
	}
	st.window = window
	st.renewal = s.renewalOf(st)
}
