package clientcert

import (
	"context"
	"crypto/x509"
	"errors"
	"net/url"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/auth/authtest"
	"sallyport/proxy/setting"
)

// publisher answers fetches of lists.
type publisher struct {
	mu      sync.Mutex
	lists   map[string][]byte // no entry: the server cannot be reached
	fetches map[string]int
	hang    chan struct{} // fetches wait for it; nil: they do not
	running int
	most    int // fetches that ran at once
}

func newPublisher() *publisher {
	return &publisher{lists: map[string][]byte{}, fetches: map[string]int{}}
}

func (p *publisher) get(ctx context.Context, url string) ([]byte, error) {
	p.mu.Lock()
	p.fetches[url]++
	p.running++
	p.most = max(p.most, p.running)
	text, hang := p.lists[url], p.hang
	p.mu.Unlock()
	defer func() { p.mu.Lock(); p.running--; p.mu.Unlock() }()
	if hang != nil {
		select {
		case <-hang:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if text == nil {
		return nil, errors.New("unreachable")
	}
	return text, nil
}

func (p *publisher) publish(url string, text []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lists[url] = text
}

func (p *publisher) count(url string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fetches[url]
}

const (
	listURL  = "http://ca.internal/root.crl"
	otherURL = "http://ca.internal/other.crl"
	safeURL  = "https://ca.internal/root.crl"
)

func urls(t testing.TB, all ...string) setting.List[setting.Source] {
	var list setting.List[setting.Source]
	for _, text := range all {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, setting.Source{URL: setting.URL{URL: u}})
	}
	return list
}

// fetching returns a running Memory that fetches from p, within a bubble of synctest.
func fetching(t *testing.T, p *publisher) *Memory {
	m := NewMemory(MemoryOptions{})
	m.get = p.get
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); m.Run(ctx) }()
	t.Cleanup(func() { stop(); <-done })
	synctest.Wait()
	return m
}

// active returns active Hosts of one entry.
func active(t *testing.T, m *Memory, crl setting.List[setting.Source], cas ...authtest.Cert) *Hosts {
	t.Helper()
	h, err := New([]Config{{CA: setting.List[setting.Path]{file(t, "ca.pem", authtest.PEM(cas...))}, CRL: crl}}, m, nil)
	if err != nil {
		t.Fatal(err)
	}
	h.Activate()
	t.Cleanup(h.Close)
	return h
}

func TestURLThatNeverAnsweredDistrusts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPublisher()
		m := fetching(t, p)
		root := authtest.NewCA("root", time.Now(), nil)
		trust := active(t, m, urls(t, listURL), root).For("a.example")
		alice, bob := root.Client("alice", nil), root.Client("bob", nil)
		synctest.Wait()
		want(t, "before an answer", outcome(t, trust, alice), RevocationUnknown)
		before := p.count(listURL)
		for range 100 {
			outcome(t, trust, alice)
		}
		if p.count(listURL) != before {
			t.Error("a request has caused a fetch")
		}
		if st := m.Status(); len(st) != 1 || st[0].LastError != "unreachable" || st[0].Failures == 0 {
			t.Errorf("the status is %+v", st)
		}
		p.publish(listURL, root.Revoke(time.Now(), nil, bob))
		time.Sleep(2 * lastRetry)
		synctest.Wait()
		want(t, "after an answer", outcome(t, trust, alice), "cert:CN=alice")
		want(t, "revoked", outcome(t, trust, bob), Revoked)
		if st := m.Status(); st[0].LastError != "" || st[0].Revoked != 1 || st[0].Issuer != "CN=root" {
			t.Errorf("the status is %+v", st)
		}
	})
}

func TestListIsFetchedBeforeItEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPublisher()
		root := authtest.NewCA("root", time.Now(), nil)
		alice := root.Client("alice", nil)
		p.publish(listURL, root.Revoke(time.Now(), nil))
		trust := active(t, fetching(t, p), urls(t, listURL), root).For("a.example")
		synctest.Wait()
		want(t, "at first", outcome(t, trust, alice), "cert:CN=alice")
		time.Sleep(time.Minute)
		p.publish(listURL, root.Revoke(time.Now(), nil, alice))
		time.Sleep(30 * time.Minute)
		synctest.Wait()
		want(t, "revoked later, though cached", outcome(t, trust, alice), Revoked)
		p.publish(listURL, nil)
		time.Sleep(20 * time.Minute)
		synctest.Wait()
		want(t, "server down, list in use", outcome(t, trust, alice), Revoked)
		if n := p.count(listURL); n > 40 {
			t.Errorf("%d fetches within an hour", n)
		}
	})
}

// TestListThatCannotBeUsedKeepsTheLastGood: whoever controls the server cannot make the gateway
// forget a revocation.
func TestListThatCannotBeUsedKeepsTheLastGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPublisher()
		root, mallory := authtest.NewCA("root", time.Now(), nil), authtest.NewCA("root", time.Now(), nil)
		alice, bob := root.Client("alice", nil), root.Client("bob", nil)
		old := root.Revoke(time.Now(), func(l *x509.RevocationList) { l.NextUpdate = time.Now().Add(24 * time.Hour) })
		time.Sleep(time.Minute)
		p.publish(listURL, root.Revoke(time.Now(), func(l *x509.RevocationList) { l.NextUpdate = time.Now().Add(12 * time.Hour) }, alice))
		m := fetching(t, p)
		trust := active(t, m, urls(t, listURL), root).For("a.example")
		synctest.Wait()
		for name, text := range map[string][]byte{
			"garbage":        []byte("<html>"),
			"older":          old,
			"of another key": mallory.Revoke(time.Now().Add(time.Hour), nil),
			"empty":          {},
		} {
			p.publish(listURL, text)
			time.Sleep(longestPause)
			synctest.Wait()
			want(t, name+", revoked", outcome(t, trust, alice), Revoked)
			want(t, name+", victim", outcome(t, trust, bob), "cert:CN=bob")
			if st := m.Status(); st[0].LastError == "" || st[0].Failures == 0 {
				t.Errorf("%s: the status is %+v", name, st)
			}
		}
	})
}

// TestListCannotBeHiddenBehindThatOfAnotherCA: over http, anyone on the path can answer with the list
// of another CA, which is signed.
func TestListCannotBeHiddenBehindThatOfAnotherCA(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPublisher()
		root, other := authtest.NewCA("root", time.Now(), nil), authtest.NewCA("other", time.Now(), nil)
		alice, bob := root.Client("alice", nil), other.Client("bob", nil)
		p.publish(listURL, other.Revoke(time.Now(), nil))
		p.publish(safeURL, other.Revoke(time.Now(), nil))
		m := fetching(t, p)
		trust := active(t, m, urls(t, listURL), root, other).For("a.example")
		safe := active(t, m, urls(t, safeURL), root, other).For("a.example")
		synctest.Wait()
		want(t, "without its list", outcome(t, trust, alice), RevocationUnknown)
		want(t, "with its list", outcome(t, trust, bob), "cert:CN=bob")
		want(t, "https", outcome(t, safe, alice), "cert:CN=alice")
	})
}

// TestListOfAnotherCADisplacesNone: whoever controls the server, or the path to it, cannot make the
// gateway forget a revocation by the signed list of another CA, nor by an older list after that.
func TestListOfAnotherCADisplacesNone(t *testing.T) {
	for name, source := range map[string]string{"http": listURL, "https": safeURL} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPublisher()
				root, other := authtest.NewCA("root", time.Now(), nil), authtest.NewCA("other", time.Now(), nil)
				alice, bob, carol := root.Client("alice", nil), root.Client("bob", nil), other.Client("carol", nil)
				long := func(l *x509.RevocationList) { l.NextUpdate = time.Now().Add(6 * time.Hour) }
				old := root.Revoke(time.Now(), long)
				time.Sleep(time.Minute)
				p.publish(source, root.Revoke(time.Now(), long, alice))
				m := fetching(t, p)
				trust := active(t, m, urls(t, source), root, other).For("a.example")
				synctest.Wait()
				want(t, "at first", outcome(t, trust, alice), Revoked)
				for _, step := range []struct {
					when string
					text []byte
				}{{"the list of another CA", other.Revoke(time.Now(), long)}, {"an older list after it", old}} {
					p.publish(source, step.text)
					time.Sleep(longestPause)
					synctest.Wait()
					want(t, step.when+", revoked", outcome(t, trust, alice), Revoked)
					want(t, step.when+", victim", outcome(t, trust, bob), "cert:CN=bob")
					want(t, step.when+", the other CA", outcome(t, trust, carol), "cert:CN=carol")
				}
				time.Sleep(6 * time.Hour)
				synctest.Wait()
				want(t, "after its end", outcome(t, trust, bob), RevocationUnknown)
			})
		})
	}
}

func TestReloadKeepsFetchedLists(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPublisher()
		root, other := authtest.NewCA("root", time.Now(), nil), authtest.NewCA("other", time.Now(), nil)
		alice := root.Client("alice", nil)
		p.publish(listURL, root.Revoke(time.Now(), nil))
		m := fetching(t, p)
		first := active(t, m, urls(t, listURL), root)
		synctest.Wait()
		p.publish(listURL, nil)
		second := active(t, m, urls(t, listURL), root, other)
		first.Close()
		synctest.Wait()
		want(t, "another CA, server down", outcome(t, second.For("a.example"), alice), "cert:CN=alice")
		third := active(t, m, urls(t, otherURL), root)
		second.Close()
		synctest.Wait()
		want(t, "another URL", outcome(t, third.For("a.example"), alice), RevocationUnknown)
		if st := m.Status(); len(st) != 1 || st[0].URL != otherURL {
			t.Errorf("the status is %+v, want only %s", st, otherURL)
		}
		inactive, err := New([]Config{{CA: setting.List[setting.Path]{file(t, "ca.pem", authtest.PEM(root))}, CRL: urls(t, listURL)}}, m, nil)
		if err != nil {
			t.Fatal(err)
		}
		want(t, "inactive", outcome(t, inactive.For("a.example"), alice), RevocationUnknown)
	})
}

// TestNewCAIsLookedForAtOnce: after a reload that adds a CA, its list is not waited for for an hour.
func TestNewCAIsLookedForAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPublisher()
		root, next := authtest.NewCA("root", time.Now(), nil), authtest.NewCA("next", time.Now(), nil)
		p.publish(listURL, root.Revoke(time.Now(), nil))
		m := fetching(t, p)
		active(t, m, urls(t, listURL), root)
		synctest.Wait()
		p.publish(listURL, next.Revoke(time.Now(), nil))
		trust := active(t, m, urls(t, listURL), next).For("a.example")
		synctest.Wait()
		want(t, "new CA", outcome(t, trust, next.Client("alice", nil)), "cert:CN=alice")
	})
}

func TestEndWaitsForFetches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPublisher()
		p.hang = make(chan struct{})
		root := authtest.NewCA("root", time.Now(), nil)
		m := fetching(t, p)
		h := active(t, m, urls(t, listURL, listURL), root)
		synctest.Wait()
		if p.most != 1 {
			t.Errorf("%d fetches at once, want one", p.most)
		}
		h.Close() // the bubble fails if a goroutine is left
		h.Close()
	})
}
