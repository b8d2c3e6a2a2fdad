package edge

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// reload activates another configuration.
func (e *Edge) reload(t testing.TB, c Config, hosts ...string) {
	t.Helper()
	v, err := e.Prepare(c, hosts, true, nil)
	if err != nil {
		t.Fatal(err)
	}
	e.Activate(v)
}

func TestHostsAddedByAReloadAreObtained(t *testing.T) {
	t.Parallel()
	for _, challenge := range []string{challengeHTTP, challengeTLS} {
		h := newACMEHouse(t, acmePlan{})
		c := h.config(only(challenge))
		r := h.start(c, "one.test")
		first := h.obtained(r, "one.test")
		r.reload(t, c, "one.test", "two.test")
		h.obtained(r, "two.test")
		if again := h.obtained(r, "one.test"); !again.Equal(first) {
			t.Errorf("%s: the certificate of the other host was obtained again", challenge)
		}
		r.reload(t, c, "two.test")
		if _, err := h.leaf("one.test"); err == nil {
			t.Errorf("%s: a host that was removed is served", challenge)
		}
		h.obtained(r, "two.test")
		// Stored certificates are served at once.
		r.reload(t, c, "one.test", "two.test")
		if again, err := h.leaf("one.test"); err != nil || !again.Equal(first) {
			t.Errorf("%s: a host that came back: %v", challenge, err)
		}
		r.stop()
	}
}

func TestChangedAuthorityLeavesNoHostWithoutACertificate(t *testing.T) {
	t.Parallel()
	h := newACMEHouse(t, acmePlan{})
	r := h.start(h.config(nil), "one.test")
	first := h.obtained(r, "one.test")
	// The new authority is unreachable, so the old certificate must stay in use.
	other := h.config(func(c *ACMEConfig) { c.Directory = "https://127.0.0.1:1/dir" })
	r.reload(t, other, "one.test")
	if got, err := h.leaf("one.test"); err != nil || !got.Equal(first) {
		t.Errorf("after a change of the authority: %v", err)
	}
}

func TestReloadRotatesCertificatesInFiles(t *testing.T) {
	ca, dir := newTestCA(t), t.TempDir()
	old := Config{Files: []FileConfig{ca.write(t, dir, "old", forHosts("one.test"))}}
	e := newEdge(t, old, Options{Hosts: []string{"one.test"}})
	addr := listen(t, e, Limits{})
	client := &tls.Config{ServerName: "one.test", RootCAs: ca.pool}
	leaf := func() *x509.Certificate {
		t.Helper()
		state, err := connect(addr, client)
		if err != nil {
			t.Fatal(err)
		}
		return state.PeerCertificates[0]
	}
	before := leaf()
	open, err := tls.Dial("tcp", addr, client)
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	next := Config{Files: []FileConfig{ca.write(t, dir, "new", forHosts("one.test"))}}
	if err := os.WriteFile(string(next.Files[0].Key), []byte("broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Prepare(next, []string{"one.test"}, false, nil); err == nil {
		t.Error("a broken key was accepted")
	}
	if got := leaf(); !got.Equal(before) {
		t.Error("a failed Prepare changed the served certificate")
	}
	next.Files[0] = ca.write(t, dir, "new", forHosts("one.test"))
	e.reload(t, next, "one.test")
	if got := leaf(); got.Equal(before) {
		t.Error("the old certificate is served after the reload")
	}
	if _, err := io.WriteString(open, "x"); err != nil {
		t.Errorf("a connection opened before the reload: %v", err)
	}
}

func TestSessionsAreNotResumedForRemovedHosts(t *testing.T) {
	ca, dir := newTestCA(t), t.TempDir()
	c := Config{Files: []FileConfig{ca.write(t, dir, "both", forHosts("one.test", "two.test"))}}
	e := newEdge(t, c, Options{Hosts: []string{"one.test", "two.test"}})
	addr := listen(t, e, Limits{})
	client := &tls.Config{ServerName: "one.test", RootCAs: ca.pool, ClientSessionCache: tls.NewLRUClientSessionCache(8)}
	resumed := func() bool {
		t.Helper()
		state, err := connect(addr, client)
		if err != nil {
			t.Fatal(err)
		}
		return state.DidResume
	}
	resumed()
	e.reload(t, c, "one.test")
	if !resumed() {
		t.Error("a session of a remaining host was not resumed after a reload")
	}
	e.reload(t, c, "two.test")
	if _, err := connect(addr, client); err == nil {
		t.Error("the session of a removed host was resumed")
	}
}

func TestHandshakesSucceedDuringReloads(t *testing.T) {
	ca, dir := newTestCA(t), t.TempDir()
	c := Config{Files: []FileConfig{ca.write(t, dir, "cert", forHosts("one.test", "two.test"))}}
	e := newEdge(t, c, Options{Hosts: []string{"one.test"}})
	addr := listen(t, e, Limits{})
	var clients sync.WaitGroup
	done := make(chan struct{})
	for range 4 {
		clients.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if _, err := connect(addr, &tls.Config{ServerName: "one.test", RootCAs: ca.pool}); err != nil {
					t.Errorf("a handshake: %v", err)
					return
				}
			}
		})
	}
	e.reload(t, c, "one.test")
	goroutines := runtime.NumGoroutine()
	for i := range 100 {
		e.reload(t, c, [][]string{{"one.test"}, {"one.test", "two.test"}}[i%2]...)
		if _, err := e.Prepare(Config{Files: c.Files, MinVersion: "1.2"}, []string{"one.test"}, false, nil); err != nil {
			t.Fatal(err)
		}
	}
	close(done)
	clients.Wait()
	eventually(t, "a hundred reloads leave no goroutines", func() bool { return runtime.NumGoroutine() <= goroutines+20 })
}

// An attacker at one address opens many handshakes and sends nothing. The slow handshake of
// a client at another address is not dropped for them.
func TestHandshakeFloodDropsOnlyHandshakesOfItsAddress(t *testing.T) {
	e, client := anyEdge(t)
	addr := listen(t, e, Limits{Conns: newConnCounter(1000), HandshakeTime: time.Hour, Handshakes: 8})
	from := func(ip string) net.Conn {
		t.Helper()
		c, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}).Dial("tcp", addr)
		if err != nil {
			t.Skipf("no second address on the loopback: %v", err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	victim := from("127.0.0.2")
	var attackers []net.Conn
	for range 40 {
		attackers = append(attackers, from("127.0.0.1"))
	}
	closed(t, attackers[0])
	slow := tls.Client(victim, client)
	if err := slow.Handshake(); err != nil {
		t.Errorf("the slow client's handshake: %v", err)
	}
}

// hostsOfStatus returns the names in the status of all certificates.
func (e *Edge) hostsOfStatus() string {
	var all []string
	for _, c := range e.Certificates() {
		all = append(all, c.Hosts...)
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

func TestStatusDescribesTheActiveView(t *testing.T) {
	ca, dir := newTestCA(t), t.TempDir()
	e := newEdge(t, Config{Files: []FileConfig{ca.write(t, dir, "one", forHosts("one.test"))}}, Options{Hosts: []string{"one.test"}})
	e.reload(t, Config{Files: []FileConfig{ca.write(t, dir, "two", forHosts("two.test"))}}, "two.test")
	if got := e.hostsOfStatus(); got != "two.test" {
		t.Errorf("certificates of %q", got)
	}
}
