// Package keycloak holds the story of tokens that Keycloak binds to certificates of clients
// (RFC 8705), and of people who sign in at a terminal.
package keycloak

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"sallyport/examples/story"
)

func TestMain(m *testing.M) { os.Exit(story.Run(m)) }

const (
	rest  = "/v1/models/m:predict"
	asked = "/asked" + rest
	rpc   = "/tensorflow.serving.PredictionService/Predict"
)

// house is Keycloak, a model server that counts its calls, and the folder with the authority.
type house struct {
	dir        string
	issuer     string
	keycloak   *story.Process
	rest, grpc string // of the model server
	calls      atomic.Int64
}

// start starts Keycloak as the README says. It takes half a minute, and minutes on a busy machine.
func start(t *testing.T) *house {
	t.Helper()
	story.Need(t, "curl", "java")
	home := filepath.Join(story.Installed(t, "keycloak", "keycloak/keycloak.version", "keycloak/realm.json"), "keycloak")
	h := &house{dir: t.TempDir()}
	h.ca(t, "init", "--permit-uri", "lab", "--permit-dns", "localhost")
	h.ca(t, "issue", "--server", "--dns", "localhost", "--out", "keycloak")
	for _, name := range []string{"batch", "victim", "unbound", "gateway", "thief"} {
		h.ca(t, "issue", "--spiffe", "spiffe://lab/"+name, "--out", name)
	}
	at := story.FreeAddress(t)
	_, port, _ := net.SplitHostPort(at)
	h.issuer = "https://localhost:" + port + "/realms/lab"
	cmd := exec.Command(filepath.Join(home, "bin", "kc.sh"), "start", "--optimized", "--import-realm", "--cache=local", "--http-enabled=false",
		"--http-host=127.0.0.1", "--https-port="+port, "--hostname=https://localhost:"+port,
		"--https-certificate-file="+h.file("keycloak.pem"), "--https-certificate-key-file="+h.file("keycloak.key"), "--truststore-paths="+h.file("clients-ca/ca.pem"))
	// The first makes the script become Java, so that a signal reaches that; the second makes it start sooner.
	cmd.Env = append(os.Environ(), "KC_RUN_IN_CONTAINER=true", "JAVA_OPTS_APPEND=-XX:TieredStopAtLevel=1")
	h.keycloak = story.Start(t, "keycloak", cmd)
	h.rest, h.grpc = h.serveREST(t), h.serveGRPC(t)
	h.keycloak.ListensWithin(t, at, 6*time.Minute)
	return h
}

func (h *house) file(name string) string { return filepath.Join(h.dir, name) }

func (h *house) ca(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.Command(os.Getenv("SALLYPORT"), append([]string{"ca"}, args...)...)
	cmd.Dir = h.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("sallyport ca %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

func (h *house) serveREST(t *testing.T) string {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.calls.Add(1)
		fmt.Fprint(w, r.Header.Get("X-Sallyport-Principal"), r.Header.Get("Authorization"))
	}))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

func (h *house) serveGRPC(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(grpc.ForceServerCodec(raw{}), grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		h.calls.Add(1)
		var in []byte
		if err := stream.RecvMsg(&in); err != nil {
			return err
		}
		told, _ := metadata.FromIncomingContext(stream.Context())
		out := []byte(strings.Join(told.Get("x-sallyport-principal"), ","))
		return stream.SendMsg(&out)
	}))
	go s.Serve(l)
	t.Cleanup(s.Stop)
	return l.Addr().String()
}

// gateway starts a gateway with the gateway.yaml of this folder and a value of bound_tokens.
func (h *house) gateway(t *testing.T, bound string) *story.Gateway {
	t.Helper()
	return story.StartGateway(t,
		"https://localhost:9000/realms/lab", h.issuer,
		"http://127.0.0.1:8501", "http://"+h.rest, "h2c://127.0.0.1:8500", "h2c://"+h.grpc,
		"clients-ca/", h.file("clients-ca")+"/",
		"gateway.pem", h.file("gateway.pem"), "gateway.key", h.file("gateway.key"),
		"bound_tokens: require", "bound_tokens: "+bound)
}

// pair are curl's arguments for a certificate; "" is none.
func (h *house) pair(name string) []string {
	if name == "" {
		return nil
	}
	return []string{"--cert", h.file(name + ".pem"), "--key", h.file(name + ".key")}
}

// token gets an access token by client credentials, for which the certificate is the proof.
func (h *house) token(t *testing.T, client string) string {
	t.Helper()
	a := story.Curl(t, h.file("clients-ca/ca.pem"), append(h.pair(client), "-d", "grant_type=client_credentials", "-d", "client_id="+client, h.issuer+"/protocol/openid-connect/token")...)
	var answer struct {
		Token string `json:"access_token"`
	}
	a.JSON(t, &answer)
	if answer.Token == "" {
		t.Fatalf("no token for %s: %d %s", client, a.Status, a.Body)
	}
	return answer.Token
}

// call makes a call in one way and returns its status, 200 for OK of gRPC, and its text.
func (h *house) call(t *testing.T, g *story.Gateway, way, token, cert string) (int, string) {
	t.Helper()
	switch way {
	case "gRPC":
		return h.invoke(t, g, token, cert)
	case "introspection":
		return h.curl(t, g, asked, token, cert, "--http2")
	}
	return h.curl(t, g, rest, token, cert, way)
}

var ways = []string{"--http1.1", "--http2", "gRPC", "introspection"}

func (h *house) curl(t *testing.T, g *story.Gateway, path, token, cert string, more ...string) (int, string) {
	t.Helper()
	a := g.Curl(t, path, append(append(h.pair(cert), "--json", "{}", "-H", "Authorization: Bearer "+token), more...)...)
	return a.Status, a.Body
}

func (h *house) invoke(t *testing.T, g *story.Gateway, token, cert string) (int, string) {
	t.Helper()
	_, port, _ := net.SplitHostPort(g.Address)
	c, err := grpc.NewClient("localhost:"+port, grpc.WithTransportCredentials(credentials.NewTLS(h.tlsConfig(t, g, cert))), grpc.WithDefaultCallOptions(grpc.ForceCodec(raw{})))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+token), time.Minute)
	defer cancel()
	var in, out []byte
	err = c.Invoke(ctx, rpc, &in, &out)
	switch status.Code(err) {
	case codes.OK:
		return 200, string(out)
	case codes.Unauthenticated:
		return 401, err.Error()
	}
	return 0, err.Error()
}

func (h *house) tlsConfig(t *testing.T, g *story.Gateway, name string) *tls.Config {
	t.Helper()
	pem, err := os.ReadFile(g.CA)
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{RootCAs: x509.NewCertPool(), ServerName: "localhost"}
	config.RootCAs.AppendCertsFromPEM(pem)
	if name != "" {
		cert, err := tls.LoadX509KeyPair(h.file(name+".pem"), h.file(name+".key"))
		if err != nil {
			t.Fatal(err)
		}
		config.Certificates = []tls.Certificate{cert}
	}
	return config
}

// raw is messages as bytes.
type raw struct{}

func (raw) Marshal(v any) ([]byte, error)      { return *v.(*[]byte), nil }
func (raw) Unmarshal(data []byte, v any) error { *v.(*[]byte) = bytes.Clone(data); return nil }
func (raw) Name() string                       { return "proto" }

func TestTokensOfKeycloakAreBoundToCertificates(t *testing.T) {
	h := start(t)
	require, accept, off := h.gateway(t, "require"), h.gateway(t, "accept"), h.gateway(t, "off")
	batch, victim, unbound := h.token(t, "batch"), h.token(t, "victim"), h.token(t, "unbound")
	bearer := map[string]string{"batch": batch, "unbound": unbound}
	for _, c := range []struct {
		name        string
		gateway     *story.Gateway
		token, cert string
		status      int
	}{
		{"require, its certificate", require, "batch", "batch", 200},
		{"require, another certificate", require, "batch", "thief", 401},
		{"require, no certificate", require, "batch", "", 401},
		{"require, token without binding", require, "unbound", "unbound", 401},
		{"accept, its certificate", accept, "batch", "batch", 200},
		{"accept, another certificate", accept, "batch", "thief", 401},
		{"accept, no certificate", accept, "batch", "", 401},
		{"accept, token without binding", accept, "unbound", "", 200},
		{"off, its certificate", off, "batch", "batch", 401},
	} {
		for _, way := range ways {
			t.Run(c.name+", "+strings.TrimLeft(way, "-"), func(t *testing.T) {
				before := h.calls.Load()
				code, text := h.call(t, c.gateway, way, bearer[c.token], c.cert)
				want := "issuer/lab:" + c.token
				if way == "introspection" {
					want = "issuer/asked:" + c.token
				}
				if c.status == 401 {
					want = "the token is bound to a key"
					if c.token == "unbound" || c.gateway == off {
						want = "token"
					}
				}
				if code != c.status || !strings.Contains(text, want) || strings.Contains(text, bearer[c.token]) {
					t.Errorf("%d %s, want %d and %q", code, text, c.status, want)
				}
				if called := h.calls.Load() > before; called != (c.status == 200) {
					t.Errorf("the model server was called: %t", called)
				}
			})
		}
	}
	t.Run("one connection", func(t *testing.T) { h.oneConnection(t, require, batch, victim) })
	t.Run("a person at a terminal", func(t *testing.T) { h.people(t, require) })
	t.Run("Keycloak is asked by a certificate", func(t *testing.T) { h.signedOut(t, require) })
	for _, g := range []*story.Gateway{require, accept, off} {
		if text := g.Process.Output(); strings.Contains(text, batch) || strings.Contains(text, unbound) {
			t.Error("a log holds a token")
		}
	}
}

// oneConnection: a connection with a certificate carries tokens of others too. Each counts for itself,
// and a refusal ends nobody's turn.
func (h *house) oneConnection(t *testing.T, g *story.Gateway, batch, victim string) {
	transport := &http.Transport{TLSClientConfig: h.tlsConfig(t, g, "victim"), ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: time.Minute}
	for range 5 {
		for token, want := range map[string]int{batch: 401, victim: 200} {
			if got, err := post(client, g.URL(rest), token); got != want || err != nil {
				t.Errorf("got %d %v, want %d", got, err, want)
			}
		}
	}
}

func post(c *http.Client, url, token string) (int, error) {
	r, err := http.NewRequest("POST", url, strings.NewReader("{}"))
	if err != nil {
		return 0, err
	}
	r.Header.Set("Authorization", "Bearer "+token)
	res, err := c.Do(r)
	if err != nil {
		return 0, err
	}
	_, err = io.Copy(io.Discard, res.Body)
	return res.StatusCode, errors.Join(err, res.Body.Close())
}

// signedOut revokes a token at Keycloak. The gateway hears of it within max_age, and only where it asks.
func (h *house) signedOut(t *testing.T, g *story.Gateway) {
	token := h.token(t, "batch")
	if code, text := h.call(t, g, "introspection", token, "batch"); code != 200 {
		t.Fatalf("%d %s", code, text)
	}
	a := story.Curl(t, h.file("clients-ca/ca.pem"), append(h.pair("batch"), "-d", "client_id=batch", "-d", "token="+token, h.issuer+"/protocol/openid-connect/revoke")...)
	if a.Status != 200 {
		t.Fatalf("revoke: %d %s", a.Status, a.Body)
	}
	code, text := 200, ""
	for end := time.Now().Add(time.Minute); code == 200 && time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		code, text = h.call(t, g, "introspection", token, "batch")
	}
	var refusal struct{ Reason string }
	if err := json.Unmarshal([]byte(text), &refusal); err != nil || code != 401 || refusal.Reason != "token_inactive" {
		t.Errorf("a revoked token: %d %s", code, text)
	}
	if code, text := h.call(t, g, "introspection", h.token(t, "victim"), "victim"); code != 200 {
		t.Errorf("the victim beside: %d %s", code, text)
	}
}
