package edge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"
)

// renew obtains or renews the certificate of a name and publishes it. It records and logs
// failures.
func (s *acmeSource) renew(ctx context.Context, st *acmeState, force bool) error {
	if err := s.pace.wait(ctx, s.rhythm); err != nil {
		return err
	}
	b := &bounds{now: s.now}
	err := s.order(ctx, st, b, force)
	s.mu.Lock()
	defer s.mu.Unlock()
	before := st.stored
	if err == nil {
		err = s.adopt(st)
	}
	now := s.now()
	switch {
	case err != nil:
	case st.stored == nil:
		err = errors.New("the certificate was obtained but is missing from the storage")
	case !st.renewal.After(now):
		err = fmt.Errorf("the authority issued a certificate that expires at %s, in the past or too soon: %w", st.stored.cert.Leaf.NotAfter.Format(time.RFC3339), errClock)
	}
	s.publish(st)
	if err == nil {
		st.failures, st.lastError, st.retry = 0, "", time.Time{}
		s.log.Info("a certificate was obtained", "name", st.name, "issuer", st.stored.cert.Leaf.Issuer.CommonName,
			"not_after", st.stored.cert.Leaf.NotAfter, "next_renewal", st.renewal, "renewal", before != nil)
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	s.fail(st, err, b)
	return err
}

// fail records a failure and schedules the next attempt. The caller holds mu.
func (s *acmeSource) fail(st *acmeState, err error, b *bounds) {
	waits := s.rhythm.away
	if refusedByAuthority(err) {
		waits = s.rhythm.refused
	}
	now := s.now()
	wait := waits[min(st.failures, len(waits)-1)]
	if st.stored != nil {
		// A certificate valid for six days cannot wait for hours shortly before it expires.
		wait = min(wait, max(st.stored.cert.Leaf.NotAfter.Sub(now)/4, waits[0]))
	}
	st.failures++
	st.retry = latest(now.Add(jitter(wait)), b.until())
	st.lastError = explainACME(st.name, err, s.storage.Path)
	s.lines.Log(slog.LevelError, "failed order", "no certificate was obtained", "name", st.name, "error", st.lastError, "attempt", st.failures, "next_attempt", st.retry)
}

// jitter returns a random time between three and five quarters of d, so that names that
// failed together are not retried together.
func jitter(d time.Duration) time.Duration {
	return d*3/4 + rand.N(d/2+1)
}

// order makes certmagic obtain and store a certificate.
func (s *acmeSource) order(ctx context.Context, st *acmeState, b *bounds, force bool) error {
	ctx, cancel := context.WithTimeout(ctx, orderTime)
	defer cancel()
	before := st.stored
	var faults []error
	var config *certmagic.Config
	cache := certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert:   func(certmagic.Certificate) (*certmagic.Config, error) { return config, nil },
		RenewCheckInterval: 24 * time.Hour, // the cache is always empty
		OCSPCheckInterval:  24 * time.Hour,
		Logger:             zap.NewNop(),
	})
	defer cache.Stop()
	var issuers []certmagic.Issuer
	for _, a := range s.authorized {
		o := &order{authorityClient: a, bounds: b, failed: func(directory string, err error) {
			if len(s.authorized) > 1 {
				err = fmt.Errorf("%s: %w", hostOf(directory), err)
			}
			faults = append(faults, err)
		}}
		if before != nil && before.issuer == a.key {
			o.replaces = before.cert.Leaf
		}
		o.fresh = func() bool { return !force && s.renewedElsewhere(st.name, before) }
		issuers = append(issuers, o)
	}
	config = certmagic.New(cache, certmagic.Config{
		Storage:    s.storage,
		Issuers:    issuers,
		KeySource:  certmagic.StandardKeyGenerator{KeyType: s.keyType},
		DisableARI: true, // askForWindow does that
		Logger:     zap.NewNop(),
	})
	err := s.removeUnusable(ctx, st)
	if err == nil && (before == nil || !s.authorizes(before.issuer)) {
		err = config.ObtainCertSync(ctx, st.name)
	} else if err == nil {
		err = config.RenewCertSync(ctx, st.name, true)
	}
	if errors.Is(err, errFresh) {
		return nil
	}
	if err != nil && len(faults) > 0 {
		return errors.Join(faults...)
	}
	return err
}

// removeUnusable deletes the metadata of unusable certificates, which certmagic would
// otherwise treat as usable.
func (s *acmeSource) removeUnusable(ctx context.Context, st *acmeState) error {
	for _, a := range s.authorized {
		_, err := s.load(a.key, st.name)
		meta := certmagic.StorageKeys.SiteMeta(a.key, st.name)
		if err == nil && st.stored != nil && a.key == st.stored.issuer {
			// certmagic also reads the metadata beside the certificate, so repair it.
			if b, err := s.storage.Load(ctx, meta); err == nil && json.Unmarshal(b, &certmagic.CertificateResource{}) == nil {
				continue
			}
			b, err := json.Marshal(certmagic.CertificateResource{SANs: []string{st.name}})
			if err != nil {
				return err
			}
			if err := s.storage.Store(ctx, meta, b); err != nil {
				return err
			}
			continue
		}
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := s.storage.Delete(ctx, meta); err != nil {
			return err
		}
	}
	return nil
}

// renewedElsewhere reports whether the storage has a newer certificate than before, because
// another process held the lock first.
func (s *acmeSource) renewedElsewhere(name string, before *storedCert) bool {
	for _, a := range s.authorized {
		c, err := s.load(a.key, name)
		if err == nil && (before == nil || c.cert.Leaf.NotBefore.After(before.cert.Leaf.NotBefore)) && c.cert.Leaf.NotAfter.After(s.now()) {
			return true
		}
	}
	return false
}

func hostOf(directory string) string {
	if u, err := url.Parse(directory); err == nil {
		return u.Host
	}
	return directory
}
