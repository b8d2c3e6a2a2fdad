package proxy_test

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/proxy/exchange"
)

// TestEveryRefusalRecordsItsCause is the list of all refusals: what was sent, the reason, the status
// and what the audit record says of the cause. Every reason occurs, no cause is long, no cause
// reaches the client, and no record holds a secret that was sent.
func TestEveryRefusalRecordsItsCause(t *testing.T) {
	t.Parallel()
	groups := map[string]func(*testing.T) *refusals{
		"heads": refusedHeads, "slow heads": refusedSlowHeads, "routes": refusedByRoutes, "plain": refusedOnPlainHTTP, "connections": refusedConnections, "forward auth": refusedForProxies,
		"tokens": refusedTokens, "API keys": refusedAPIKeys, "certificates": refusedCertificates, "revocation lists": refusedByEndedLists, "passwords": refusedPasswords, "revocations": refusedRevoked, "issuers": refusedForIssuers, "introspection": refusedByIntrospection,
		"signatures": refusedSignatures, "nonces": refusedNonces,
		"logins": refusedLogins, "rules": refusedByRules, "models": refusedModels, "batches": refusedBatches, "bodies": refusedBodies, "limits": refusedByLimits, "calls": refusedCalls, "encodings": refusedEncodings,
		"upstreams": refusedByUpstreams, "credentials": refusedCredentials, "timeouts": refusedForTimeouts, "stalls": refusedForStalls, "streams": cutStreams, "reloads": cutByReloads, "stops": cutAtTheEnd,
	}
	var mu sync.Mutex // guards seen and ran
	seen, ran := map[string]bool{}, 0
	t.Run("groups", func(t *testing.T) { // ends when all of them have
		for _, name := range slices.Sorted(maps.Keys(groups)) {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				reasons := groups[name](t).compare(t)
				mu.Lock()
				defer mu.Unlock()
				ran++
				for _, reason := range reasons {
					seen[reason] = true
				}
			})
		}
	})
	if ran < len(groups) {
		return // -run has selected some groups only
	}
	for _, reason := range exchange.Reasons() {
		if !seen[reason] {
			t.Errorf("no row provokes %s", reason)
		}
	}
}

// refusals is a gateway with the requests that it has refused, in their order.
type refusals struct {
	*house
	rows    []refusalRow
	secrets []string
}

type refusalRow struct {
	reason string
	status int    // 0: any
	cause  string // … stands for any text
	answer string // what the client received
}

// mostCause is the longest cause in a record, in bytes as written.
const mostCause = 300

// expect adds a refusal that has just happened. answer is what the client received.
func (r *refusals) expect(reason string, status int, cause string, answer any) {
	text, ok := answer.(string)
	if !ok {
		text = fmt.Sprintf("%+v", answer)
	}
	r.rows = append(r.rows, refusalRow{reason, status, cause, text})
}

// secret returns s. No record may contain it.
func (r *refusals) secret(s string) string {
	r.secrets = append(r.secrets, s)
	return s
}

// bearer returns a token with these changes of its claims. No record may contain it.
func (r *refusals) bearer(changes map[string]any) string {
	r.t.Helper()
	claims := r.issuer.Claims("alice", "models.predict")
	for name, value := range changes {
		if claims[name] = value; value == nil {
			delete(claims, name)
		}
	}
	token, err := r.issuer.Sign(claims)
	if err != nil {
		r.t.Fatal(err)
	}
	for part := range strings.SplitSeq(token, ".") {
		r.secret(part)
	}
	return token
}

var portNumber = regexp.MustCompile(`(127\.0\.0\.1|\[::1\]):[0-9]+`)

// compare stops the gateway and compares its records with the rows. It returns their reasons.
func (r *refusals) compare(t *testing.T) (reasons []string) {
	t.Helper()
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	text := r.audit.text()
	for _, s := range r.secrets {
		if i := strings.Index(text, s); i >= 0 {
			t.Errorf("a record holds the secret %q: %.300s", s, text[max(0, i-200):])
		}
	}
	var refused []map[string]any
	for _, record := range r.audit.records(t) {
		if record["reason"] != nil {
			refused = append(refused, record)
		}
	}
	for i, row := range r.rows {
		if i >= len(refused) {
			t.Errorf("no record of %s", row.reason)
			continue
		}
		record := refused[i]
		cause, _ := record["cause"].(string)
		form := strings.ReplaceAll(regexp.QuoteMeta(row.cause), "…", ".*")
		if record["reason"] != row.reason || row.status != 0 && record["status"] != float64(row.status) || !regexp.MustCompile("^(?s:"+form+")$").MatchString(portNumber.ReplaceAllString(cause, "$1:PORT")) {
			t.Errorf("row %d is recorded as\n  %v %v: %s\nwant\n  %s %d: %s", i, record["reason"], record["status"], cause, row.reason, row.status, row.cause)
		}
		if cause == "" || len(cause) > mostCause {
			t.Errorf("%s: the cause has %d bytes: %s", row.reason, len(cause), cause)
		}
		if cause != "" && strings.Contains(row.answer, cause) {
			t.Errorf("%s: the client learned the cause: %s", row.reason, row.answer)
		}
		reasons = append(reasons, row.reason)
	}
	if len(refused) > len(r.rows) {
		t.Errorf("%d more refusals, the first %v", len(refused)-len(r.rows), refused[len(r.rows)])
	}
	return reasons
}

// pipeline sends a request up to most times, until an answer has the status last. It returns the
// statuses of all answers.
func (r *refusals) pipeline(request string, most, last int) (statuses []int) {
	r.t.Helper()
	const batch = 50
	c := r.dial("models.test")
	in := bufio.NewReader(c)
	for len(statuses) < most && !slices.Contains(statuses, last) {
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		_, _ = io.WriteString(c, strings.Repeat(request, batch))
		for range batch {
			res, err := http.ReadResponse(in, nil)
			if err != nil {
				r.t.Fatal(err)
			}
			discard(res.Body)
			statuses = append(statuses, res.StatusCode)
		}
	}
	return statuses
}

// discard reads to the end and ignores errors.
func discard(in io.Reader) { _, _ = io.Copy(io.Discard, in) }

// ask sends a request with these field lines on a connection of its own, and returns the answer. It
// replaces TOKEN by a valid token.
func (r *refusals) ask(line string, fields ...string) string {
	r.t.Helper()
	text := line + "\r\nHost: models.test\r\nConnection: close\r\n"
	for _, f := range fields {
		text += f + "\r\n"
	}
	return r.tell(strings.ReplaceAll(text+"\r\n", "TOKEN", r.bearer(nil)))
}
