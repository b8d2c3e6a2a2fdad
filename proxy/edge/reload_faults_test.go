package edge

import (
	"container/list"
	"crypto/tls"
	"io"
	"net/netip"
	"path/filepath"
	"runtime"
	"testing"
	"time"
	"weak"

	"sallyport/proxy/setting"
)

// A long-lived connection must not retain old views.
func TestConnectionsDoNotRetainOldViews(t *testing.T) {
	config := Config{Local: &LocalConfig{Dir: setting.Place(filepath.Join(t.TempDir(), "ca"))}}
	e := newEdge(t, config, Options{Hosts: []string{"localhost"}})
	addr := listen(t, e, Limits{})
	old := weak.Make(e.view.Load())
	conn, err := tls.Dial("tcp", addr, &tls.Config{ServerName: "localhost", InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.ReadFull(conn, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	e.reload(t, config, "localhost")
	eventually(t, "the old View is collected", func() bool { runtime.GC(); return old.Value() == nil })
	runtime.KeepAlive(conn)
}

func TestReloadRefusesExpiredOrFutureCertificates(t *testing.T) {
	ca, dir := newTestCA(t), t.TempDir()
	config := Config{Files: setting.List[FileConfig]{ca.write(t, dir, "a", forHosts("a.example.com"))}}
	e := newEdge(t, config, Options{Hosts: []string{"a.example.com"}})
	expired := forHosts("a.example.com")
	expired.NotBefore, expired.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(-time.Minute)
	ca.write(t, dir, "a", expired)
	if _, err := e.Prepare(config, []string{"a.example.com"}, true, nil); err == nil {
		t.Error("expired certificate replaces a valid one")
	}
	future := forHosts("a.example.com")
	future.NotBefore = time.Now().Add(time.Hour)
	ca.write(t, dir, "a", future)
	if _, err := e.Prepare(config, []string{"a.example.com"}, true, nil); err == nil {
		t.Error("certificate not yet valid replaces a valid one")
	}
}

// With many clients of one handshake each, the oldest handshake is dropped.
func TestOldestHandshakeIsDroppedAmongEqualClients(t *testing.T) {
	tl := &tlsListener{limits: Limits{Handshakes: 100}, pending: map[netip.Addr]*list.List{}}
	wrong := 0
	for round := range 100 {
		tl.pending, tl.under = map[netip.Addr]*list.List{}, 0
		dropped := -1
		for i := range 101 {
			tl.enter(netip.AddrFrom4([4]byte{10, byte(round), 0, byte(i)}), func() { dropped = i })
		}
		if dropped != 0 {
			wrong++
		}
	}
	if wrong > 0 {
		t.Errorf("in %d of 100 rounds a handshake other than the oldest was dropped", wrong)
	}
}

// A new email address makes a new account. It may not replace certificates of the old account.
func TestRenewalWithANewAccount(t *testing.T) {
	t.Parallel()
	h := newACMEHouse(t, acmePlan{})
	r := h.start(h.config(nil), "one.test")
	h.obtained(r, "one.test")
	c := h.config(func(c *ACMEConfig) { c.Email = "new@example.com" })
	command := newEdge(t, c, Options{Hosts: []string{"one.test"}, PlainHTTP: true})
	if err := command.Obtain(t.Context(), nil, true); err != nil {
		t.Error(err)
	}
}
