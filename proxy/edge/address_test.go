package edge

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sallyport/proxy/setting"
)

// sayName makes a client send one server name, or none, and verify another. crypto/tls sends
// no address as a name (RFC 6066), but some clients do; a trailing dot makes crypto/tls send it.
func sayName(c *tls.Config, name, verify string) *tls.Config {
	c = c.Clone()
	roots := c.RootCAs
	if hostAddress(name) != nil {
		name += "."
	}
	c.InsecureSkipVerify, c.ServerName = true, name
	c.VerifyConnection = func(s tls.ConnectionState) error {
		_, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{DNSName: verify, Roots: roots})
		return err
	}
	return c
}

// listenOn is like listen, on a given address of this machine.
func listenOn(t *testing.T, e *Edge, addr string) string {
	t.Helper()
	inner, err := net.Listen("tcp", addr)
	if err != nil {
		t.Skipf("no address %s here: %v", addr, err)
	}
	return serveOn(t, e, inner, Limits{})
}

func TestAddressAsHost(t *testing.T) {
	ca, dir := newTestCA(t), t.TempDir()
	byFiles := func(hosts ...string) Config {
		c := &x509.Certificate{}
		for _, h := range hosts {
			if ip := hostAddress(h); ip != nil {
				c.IPAddresses = append(c.IPAddresses, ip)
			} else {
				c.DNSNames = append(c.DNSNames, h)
			}
		}
		return Config{Files: setting.List[FileConfig]{ca.write(t, dir, "cert", c)}}
	}
	byLocal := func(...string) Config {
		return Config{Local: &LocalConfig{Dir: setting.Place(filepath.Join(dir, "ca"))}}
	}
	all := []string{"localhost", "127.0.0.1", "[::1]"}
	for _, tt := range []struct {
		name   string
		hosts  []string
		listen string
		sent   string // the server name that the client sends
		verify string // the name that the client verifies; "": the handshake is refused
	}{
		{"no name, IPv4", all, "127.0.0.1:0", "", "127.0.0.1"},
		{"no name, IPv6", all, "[::1]:0", "", "::1"},
		{"no name, listener of both", all, "[::]:0", "", "127.0.0.1"},
		{"the address as a name", all, "127.0.0.1:0", "127.0.0.1", "127.0.0.1"},
		{"a name beside addresses", all, "127.0.0.1:0", "localhost", "localhost"},
		{"another address as a name means the one reached", all, "127.0.0.1:0", "192.0.2.1", "127.0.0.1"},
		{"not the address that is listed", []string{"localhost", "127.0.0.2"}, "127.0.0.1:0", "", ""},
		{"the listed address as a name, another one reached", []string{"localhost", "127.0.0.2"}, "127.0.0.1:0", "127.0.0.2", ""},
		{"only the other family is listed", []string{"localhost", "[::1]"}, "127.0.0.1:0", "", ""},
		{"no address is listed", []string{"localhost"}, "127.0.0.1:0", "", ""},
		{"no address is listed, IPv6", []string{"localhost"}, "[::1]:0", "", ""},
		{"a star catches no address", []string{"*.0.0.1"}, "127.0.0.1:0", "", ""},
	} {
		for source, config := range map[string]func(...string) Config{"files": byFiles, "local": byLocal} {
			t.Run(tt.name+"/"+source, func(t *testing.T) {
				var j journal
				e := newEdge(t, config(tt.hosts...), Options{Hosts: tt.hosts, Log: j.log()})
				addr := listenOn(t, e, tt.listen)
				if strings.HasPrefix(addr, "[::]") {
					addr = "127.0.0.1" + strings.TrimPrefix(addr, "[::]")
				}
				pool := ca.pool.Clone()
				if root, err := os.ReadFile(e.RootPath()); err == nil {
					pool.AppendCertsFromPEM(root)
				}
				_, err := connect(addr, sayName(&tls.Config{RootCAs: pool}, tt.sent, tt.verify))
				if tt.verify != "" {
					if err != nil {
						t.Error(err)
					}
					return
				}
				if err == nil || !strings.Contains(err.Error(), "unrecognized name") {
					t.Errorf("got %v, want alert unrecognized_name", err)
				}
				if !strings.Contains(j.String(), "no route for") {
					t.Errorf("the refusal is not in the log: %s", j.String())
				}
			})
		}
	}
}

// The status lists the addresses of certificates.
func TestStatusListsAddresses(t *testing.T) {
	ca, dir := newTestCA(t), t.TempDir()
	c := &x509.Certificate{DNSNames: []string{"A.test"}, IPAddresses: []net.IP{net.ParseIP("127.0.0.1"), net.ParseIP("::1")}}
	e := newEdge(t, Config{Files: setting.List[FileConfig]{ca.write(t, dir, "a", c)}, Local: &LocalConfig{Dir: setting.Place(filepath.Join(dir, "ca"))}},
		Options{Hosts: []string{"127.0.0.1", "[::1]", "127.0.0.9"}})
	var got [][]string
	for _, s := range e.Certificates() {
		got = append(got, s.Hosts)
	}
	if want := [][]string{{"a.test", "127.0.0.1", "[::1]"}, {"127.0.0.9"}}; !slices.EqualFunc(got, want, slices.Equal) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// openssl req -x509 sets the CA flag in self-signed certificates.
func TestSelfSignedCertificateWithCAFlagIsServed(t *testing.T) {
	ca, dir := newTestCA(t), t.TempDir()
	self := &testCA{key: ca.key}
	template := &x509.Certificate{DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true}
	files := self.writeKey(t, dir, "self", template, ca.key)
	e := newEdge(t, Config{Files: setting.List[FileConfig]{files}}, Options{Hosts: []string{"localhost", "127.0.0.1"}})
	pool := x509.NewCertPool()
	pem, err := os.ReadFile(string(files.Cert))
	if err != nil || !pool.AppendCertsFromPEM(pem) {
		t.Fatal("no certificate", err)
	}
	if _, err := connect(listen(t, e, Limits{}), &tls.Config{ServerName: "127.0.0.1", RootCAs: pool}); err != nil {
		t.Error(err)
	}
}

func TestAddressHostFormat(t *testing.T) {
	for in, want := range map[string]string{
		"127.0.0.1":        "127.0.0.1",
		"::1":              "[::1]",
		"::ffff:127.0.0.1": "127.0.0.1",
		"fe80::1%eth0":     "[fe80::1]",
		"2001:DB8:0::5":    "[2001:db8::5]",
	} {
		if got := addressHost(netip.MustParseAddr(in)); got != want {
			t.Errorf("%s: got %s, want %s", in, got, want)
		}
	}
	if got := addressHost(netip.Addr{}); got != "" {
		t.Errorf("no address: got %q", got)
	}
}
