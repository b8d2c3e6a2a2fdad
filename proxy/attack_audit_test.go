package proxy_test

import (
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"sallyport/proxy"
)

// logHouse is a house with an issuer and a judge, whose logs are recorded.
func logHouse(t *testing.T) (h *house, j *judge, log *lines) {
	t.Helper()
	iss, at := newIssuer(t)
	j, log = newJudge(t, nil), &lines{}
	h = lodge(t, fmt.Sprintf(`
listen: {https: "127.0.0.1:0", http: "127.0.0.1:0", health: "127.0.0.1:0"}
tls: {local: {dir: "%%s/ca"}}
issuers: {corp: {url: %q, audience: models}}
routes:%s`, at, j.before(``)), proxy.Options{Log: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	h.issuer = iss
	return h, j, log
}

func (l *lines) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// oddities are strings that break logs or terminals, or mislead their readers.
var oddities = []string{
	"\n{\"time\":\"x\",\"reason\":\"\"}", "\r\n", "\x00", "\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "\x7f", "\x08\x08\x08", "\t", "\u202ereversed", "\u2028", "\u0085", "\xff\xfe", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xc0\xaf",
	`"`, `","status":200,"principal":"root`, `\`, `\u000a`, `</script><script>`, "'; drop table x; --", "${jndi:ldap://evil.test}", "%s%n%x", "=cmd|'/c calc'!A1", "\U0001f600", strings.Repeat("x", 9000), strings.Repeat("\x01", 3000), strings.Repeat("\"", 3000),
}

// sane checks lines of an audit log: each is one JSON object of bounded length with unique keys and
// without terminal escapes.
func sane(t *testing.T, log string) (count int) {
	t.Helper()
	for line := range strings.Lines(log) {
		count++
		if !utf8.ValidString(line) || strings.ContainsFunc(strings.TrimSuffix(line, "\n"), func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("a line holds what cannot be printed: %.300q", line)
		}
		if len(line) > 5000 {
			t.Errorf("a line of %d bytes: %.300q", len(line), line)
		}
		d := json.NewDecoder(strings.NewReader(line))
		seen := map[string]bool{}
		_, _ = d.Token()
		for d.More() {
			key, err := d.Token()
			if err != nil {
				t.Fatalf("%.300q: %v", line, err)
			}
			var value any
			if err := d.Decode(&value); err != nil {
				t.Fatalf("%.300q: %v", line, err)
			}
			if name := fmt.Sprint(key); seen[name] {
				t.Errorf("%s twice in %.300q", name, line)
			} else {
				seen[name] = true
			}
		}
		if !json.Valid([]byte(line)) {
			t.Errorf("no JSON: %.300q", line)
		}
	}
	return count
}

func TestAttackLogInjection(t *testing.T) {
	t.Parallel()
	h, j, log := logHouse(t)
	sent := 0
	for _, odd := range oddities {
		// In path, host and method, if the engine accepts them.
		for _, head := range []string{"GET /" + odd + " HTTP/1.1\r\nHost: models.test", "GET / HTTP/1.1\r\nHost: " + odd, "GET" + odd + " / HTTP/1.1\r\nHost: models.test", "GET http://" + odd + "/ HTTP/1.1\r\nHost: models.test", "GET / HTTP/1.1\r\nHost: models.test\r\nX-Sallyport-" + odd + ": x"} {
			h.tell(head + "\r\nConnection: close\r\n\r\n")
			h.tell(head + "\r\nConnection: close\r\nAuthorization: Bearer " + h.token() + "\r\n\r\n")
			sent += 2
		}
		// In the principal, by an issuer that lets its users choose their names.
		claims := h.issuer.Claims("al"+odd+"ice", "models.predict", "x"+odd)
		token, err := h.issuer.Sign(claims)
		if err != nil {
			t.Fatal(err)
		}
		h.tell("GET /principal HTTP/1.1\r\nHost: models.test\r\nConnection: close\r\nAuthorization: Bearer " + token + "\r\n\r\n")
		// In the unverified parts of a token.
		part := strings.Split(h.token(), ".")
		header, _ := json.Marshal(map[string]string{"alg": "ES256", "kid": odd, "typ": "JWT"})
		iss, _ := json.Marshal(map[string]any{"iss": odd, "sub": odd, "aud": "models"})
		for _, forged := range []string{base64.RawURLEncoding.EncodeToString(header) + "." + part[1] + "." + part[2], part[0] + "." + base64.RawURLEncoding.EncodeToString(iss) + "." + part[2]} {
			h.tell("GET / HTTP/1.1\r\nHost: models.test\r\nConnection: close\r\nAuthorization: Bearer " + forged + "\r\n\r\n")
		}
		sent += 3
		// In the server name of the handshake.
		if c, err := tls.Dial("tcp", h.addrs.HTTPS[0].String(), &tls.Config{ServerName: odd[:min(len(odd), 200)], InsecureSkipVerify: true}); err == nil {
			c.Close()
		}
	}
	up := j.taken()
	h.end(j, up)
	audit := h.audit.text()
	if n := sane(t, audit); n == 0 || n > sent {
		t.Errorf("%d lines for %d requests", n, sent)
	}
	for line := range strings.Lines(log.text()) {
		if strings.ContainsFunc(strings.TrimSuffix(line, "\n"), unicode.IsControl) || !strings.HasPrefix(line, "time=") {
			t.Errorf("the log holds %.300q", line)
		}
	}
	// Different principals must arrive at the upstream as different names.
	names := map[string]bool{}
	for _, r := range up {
		if r.Target == "/principal" {
			names[r.get("x-sallyport-principal")] = true
		}
	}
	for _, rec := range h.audit.records(t) {
		if p, _ := rec["principal"].(string); p != "" && !strings.HasPrefix(p, "issuer/corp:al") {
			t.Errorf("the principal %q", p)
		}
	}
	if len(names) < 10 {
		t.Errorf("the upstream was told of %d principals: %v", len(names), names)
	}
}

// No log or metric holds a credential or a part of one, wherever a client has put it.
func TestAttackSecretsInLogs(t *testing.T) {
	t.Parallel()
	h, j, log := logHouse(t)
	good := h.token()
	part := strings.Split(good, ".")
	expired := h.issuer.Claims("alice", "models.predict")
	expired["exp"], expired["iat"] = 1000, 900
	old, _ := h.issuer.Sign(expired)
	forged := part[0] + "." + part[1] + "." + strings.Repeat("A", len(part[2]))
	secrets := []string{good, old, forged, "hunter2-password", "sk-api-key-0123456789", base64.StdEncoding.EncodeToString([]byte("alice:hunter2-password"))}
	for _, s := range secrets {
		for _, fields := range []string{
			"Authorization: Bearer " + s, "Authorization: Basic " + s, "Authorization: " + s, "Authorization: Bearer " + s + "\r\nAuthorization: Bearer " + s, "Authorization: bearer  " + s + " x",
			"Cookie: session=" + s, "X-Api-Key: " + s, "Proxy-Authorization: Bearer " + s, "X-Sallyport-Principal: " + s, "X-" + s[:16] + ": x", "Host: " + s[:16] + ":pw@models.test", "Expect: " + s, "Connection: " + s[:16], "Content-Type: a\r\nContent-Type: " + s, "Content-Length: " + s,
		} {
			h.tell("GET / HTTP/1.1\r\nHost: models.test\r\nConnection: close\r\n" + fields + "\r\n\r\n")
		}
		for _, target := range []string{"/?access_token=" + s, "//?access_token=" + s, "/%zz?access_token=" + s, "/#access_token=" + s, "/x#" + s, "http://models.test/?access_token=" + s, "https://alice:" + s + "@models.test/", "//alice:" + s + "@models.test/", "alice:" + s + "@models.test:443"} {
			for _, head := range []string{"GET ", "CONNECT "} {
				h.tell(head + target + " HTTP/1.1\r\nHost: models.test\r\nConnection: close\r\nAuthorization: Bearer " + good + "\r\n\r\n")
			}
		}
		h.tell("GET / HTTP/1.1\r\nHost: alice:" + s + "@models.test\r\nConnection: close\r\n\r\n")
		h.tell("POST / HTTP/1.1\r\nHost: models.test\r\nConnection: close\r\nAuthorization: Bearer " + good + "\r\nContent-Length: " + fmt.Sprint(len(s)) + "\r\n\r\n" + s)
		f := h.frames()
		f.headers(1, true, ":method: GET", ":scheme: https", ":authority: models.test", ":path: //x?access_token="+s, "authorization: Bearer "+s, "cookie: "+s)
		f.wait(1)
		f.c.Close()
	}
	metrics := h.get("/metrics") + h.get("/readyz")
	h.end(j, nil)
	for where, text := range map[string]string{"the audit log": h.audit.text(), "the log": log.text(), "metrics or readiness": metrics} {
		for _, s := range append(secrets, part[1], part[2], strings.Split(old, ".")[2]) {
			for i := 0; i+16 <= min(len(s), 400); i += 16 {
				if s[i:i+16] != strings.Repeat("A", 16) && strings.Contains(text, s[i:i+16]) {
					at := strings.Index(text, s[i:i+16])
					t.Fatalf("%s holds %q of a secret: %q", where, s[i:i+16], text[max(0, at-300):at+16])
				}
			}
		}
	}
}

// Text chosen by a client never becomes a metric label.
func TestAttackMetricLabels(t *testing.T) {
	t.Parallel()
	h, j, _ := logHouse(t)
	random := rand.New(rand.NewPCG(3, 4))
	word := func() string { return fmt.Sprintf("Q%dQ", random.Uint64()) }
	f := h.frames()
	for id := uint32(1); id < 600; id += 2 {
		lines := h.usual(word(), "/"+word(), "x-"+strings.ToLower(word())+": y", "user-agent: "+word())
		if id%8 == 1 {
			lines[2] = ":authority: " + word() + ".test"
		}
		if id%8 == 3 {
			lines[4] = "authorization: Bearer " + word()
		}
		f.headers(id, true, lines...)
		f.wait(id)
	}
	metrics := h.get("/metrics")
	if i := strings.IndexAny(metrics, "Q"); i >= 0 && regexp.MustCompile(`[Qq]\d+[Qq]`).MatchString(metrics) {
		t.Errorf("a client's word is in the metrics: %.200s", metrics[max(0, i-100):])
	}
	var series []string
	for line := range strings.Lines(metrics) {
		if strings.HasPrefix(line, "sallyport_requests_total{") {
			series = append(series, strings.TrimSpace(line))
		}
	}
	if len(series) == 0 || len(series) > 10 {
		t.Errorf("%d series for 300 requests that had three outcomes: %s", len(series), strings.Join(series, "\n"))
	}
	if slices.ContainsFunc(series, func(s string) bool { return !strings.Contains(s, `method="other"`) }) {
		t.Errorf("a method that is no one's: %s", strings.Join(series, "\n"))
	}
	f.c.Close()
	h.end(j, nil)
}
