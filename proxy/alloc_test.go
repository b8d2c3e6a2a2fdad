//go:build !race

package proxy_test

// The race detector makes pools forget.

import (
	"testing"

	"sallyport/proxy"
)

// TestRequestAllocatesLittle sends a small request with a cached token, and one with an API key,
// which are forwarded, answered, audited and counted. Each allocates twice: for the request id and
// for the text of the answer's head.
func TestRequestAllocatesLittle(t *testing.T) {
	t.Run("token", func(t *testing.T) {
		g, token := benchGateway(t, benchRoute, usualAnswer)
		allocatesLittle(t, g, "Bearer "+token)
	})
	t.Run("API key", func(t *testing.T) {
		g, _ := benchGateway(t, `{host: models.test, upstream: "http://%s", callers: apikey/bench, rules: [{allow: "*", who: {principal: "apikey:bench"}}]}`, usualAnswer)
		allocatesLittle(t, g, "Bearer "+benchAPIKey)
	})
}

// TestCallAllocatesLittle sends a small gRPC call under a rule about models. Reading the model
// allocates nothing, so the call allocates as often as under a rule that is not about models.
func TestCallAllocatesLittle(t *testing.T) {
	for name, route := range map[string]string{"any model": callRoute, "some models": modelCallRoute} {
		t.Run(name, func(t *testing.T) {
			g, token := benchGatewayTo(t, route, answerCalls)
			token = "Bearer " + token
			content := framedText(string(predictRequest([][]byte{modelSpec("half_plus_two", 0)}, 0, 100)))
			var s benchStream
			prepare := testing.AllocsPerRun(200, func() { s.setCall(token, content) })
			whole := testing.AllocsPerRun(1000, func() {
				s.setCall(token, content)
				g.Serve(&s)
				if s.call != "0" {
					t.Fatalf("status %q", s.call)
				}
			})
			if allocs := whole - prepare; allocs > 15 {
				t.Errorf("a call allocates %v times, want at most 15", allocs)
			}
		})
	}
}

func allocatesLittle(t *testing.T, g *proxy.Gateway, token string) {
	t.Helper()
	var s benchStream
	prepare := testing.AllocsPerRun(200, func() { s.request(token) })
	whole := testing.AllocsPerRun(1000, func() {
		s.request(token)
		g.Serve(&s)
		if s.status != 200 {
			t.Fatalf("status %d", s.status)
		}
	})
	if allocs := whole - prepare; allocs > 2 {
		t.Errorf("a request allocates %v times, want at most 2", allocs)
	}
}
