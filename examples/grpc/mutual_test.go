package grpc

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"sallyport/examples/story"
)

// mutual is a server that talks to nobody without a certificate, and the folder with the authority.
type mutual struct {
	*house
	dir, at string
}

func startMutual(t *testing.T) *mutual {
	t.Helper()
	m := &mutual{house: &house{python: filepath.Join(story.Installed(t, "grpc", "grpc/requirements.txt"), "bin", "python")}, dir: t.TempDir(), at: story.FreeAddress(t)}
	m.ca(t, "init")
	m.ca(t, "init", "--dir", "stranger")
	m.ca(t, "issue", "--server", "--dns", "localhost", "--out", "server")
	m.ca(t, "issue", "--spiffe", "spiffe://lab/gateway", "--out", "gateway")
	m.server = story.Start(t, "serve.py", exec.Command(m.python, "serve.py", m.at, m.file("clients-ca/ca.pem"), m.file("server.pem"), m.file("server.key")))
	m.server.Prints(t, "serves")
	m.provider = story.StartProvider(t)
	return m
}

func (m *mutual) file(name string) string { return filepath.Join(m.dir, name) }

func (m *mutual) ca(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.Command(os.Getenv("SALLYPORT"), append([]string{"ca"}, args...)...)
	cmd.Dir = m.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("sallyport ca %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// renew replaces the files of a certificate, as a nightly job does.
func (m *mutual) renew(t *testing.T, name string, issue ...string) {
	t.Helper()
	m.ca(t, append(append([]string{"issue"}, issue...), "--out", "next")...)
	for _, kind := range []string{".key", ".pem"} {
		if err := os.Rename(m.file("next"+kind), m.file(name+kind)); err != nil {
			t.Fatal(err)
		}
	}
}

// behind starts a gateway before the server. certificate is the setting of its certificate; "" is none.
func (m *mutual) behind(t *testing.T, certificate string) *story.Gateway {
	t.Helper()
	_, port, _ := net.SplitHostPort(m.at)
	return story.StartGateway(t,
		`"h2c://127.0.0.1:8500"`, `"h2://localhost:`+port+`", ca: `+m.file("clients-ca/ca.pem")+certificate,
		"https://localhost:9000", m.provider.URL,
		"../openid-provider/provider.crt", m.provider.CA)
}

func (m *mutual) with(name string) string {
	return ", client_certificate: {cert: " + m.file(name+".pem") + ", key: " + m.file(name+".key") + "}"
}

// predict makes a call and returns whom the server took the gateway for.
func predict(t *testing.T, c *grpc.ClientConn) (gateway string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	in, out := []byte("hello"), []byte{}
	var trailer metadata.MD
	err = c.Invoke(ctx, service+"Predict", &in, &out, grpc.Trailer(&trailer))
	return strings.Join(trailer.Get("x-gateway"), ","), err
}

// TestServerThatDemandsCertificates: grpcio with require_client_auth, as TensorFlow Serving with
// client_verify, behind a gateway with a certificate. Another with none and one with a stranger's are
// refused, and the log says why.
func TestServerThatDemandsCertificates(t *testing.T) {
	m := startMutual(t)
	token := m.provider.Token(t, "models.predict", "")
	good := m.behind(t, m.with("gateway"))
	c := m.dial(t, good, token)
	t.Run("calls of each kind", func(t *testing.T) { calls(t, c) })
	if got, err := predict(t, c); err != nil || got != "spiffe://lab/gateway" {
		t.Errorf("the server takes the gateway for %q, %v", got, err)
	}
	m.ca(t, "issue", "--dir", "stranger", "--spiffe", "spiffe://lab/gateway", "--out", "strange")
	for name, certificate := range map[string]string{"none": "", "a stranger's": m.with("strange")} {
		t.Run(name, func(t *testing.T) {
			g := m.behind(t, certificate)
			_, err := predict(t, m.dial(t, g, token))
			if status.Code(err) != codes.Unavailable || strings.Contains(err.Error(), "certificate") {
				t.Errorf("got %v, want UNAVAILABLE and no cause", err)
			}
			g.Process.Prints(t, "client_certificate: of the upstream names it")
			if _, err := predict(t, c); err != nil {
				t.Errorf("the victim beside: %v", err)
			}
		})
	}
	t.Run("rotation", func(t *testing.T) { m.rotates(t, c, good) })
}

// rotates renews the certificate while a client calls without a pause: no call fails. Files of which
// only one is new change nothing. After that a stranger's takes their place: calls fail, until the good
// one is back.
func (m *mutual) rotates(t *testing.T, c *grpc.ClientConn, g *story.Gateway) {
	until := func(what string, holds func(gateway string, err error) bool, mayFail bool) {
		t.Helper()
		for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			gateway, err := predict(t, c)
			if holds(gateway, err) {
				return
			}
			if err != nil && !mayFail {
				t.Fatalf("until %s: %v", what, err)
			}
		}
		t.Fatalf("not within a minute: %s", what)
	}
	named := func(want string) func(string, error) bool {
		return func(gateway string, err error) bool { return err == nil && gateway == want }
	}
	m.renew(t, "gateway", "--spiffe", "spiffe://lab/renewed")
	until("the renewed certificate is used", named("spiffe://lab/renewed"), false)

	good, err := os.ReadFile(m.file("gateway.key"))
	if err != nil {
		t.Fatal(err)
	}
	m.ca(t, "issue", "--spiffe", "spiffe://lab/half", "--out", "half")
	if err := os.Rename(m.file("half.key"), m.file("gateway.key")); err != nil {
		t.Fatal(err)
	}
	g.Process.Prints(t, "private key does not match")
	if gateway, err := predict(t, c); err != nil || gateway != "spiffe://lab/renewed" {
		t.Errorf("with half of the files new: %q, %v", gateway, err)
	}
	if err := os.WriteFile(m.file("gateway.key"), good, 0o600); err != nil {
		t.Fatal(err)
	}
	m.renew(t, "gateway", "--dir", "stranger", "--spiffe", "spiffe://lab/evil")
	until("the stranger's certificate is refused", func(_ string, err error) bool { return status.Code(err) == codes.Unavailable }, false)
	m.renew(t, "gateway", "--spiffe", "spiffe://lab/back")
	until("the good certificate is back", named("spiffe://lab/back"), true)
}
