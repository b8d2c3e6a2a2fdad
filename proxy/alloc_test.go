//go:build !race

package proxy_test

// The race detector makes pools forget.

import "testing"

// TestRequestAllocatesLittle sends a small request with a cached token, which is forwarded,
// answered, audited and counted. It allocates twice: for the request id and for the text of the
// answer's head.
func TestRequestAllocatesLittle(t *testing.T) {
	g, token := benchGateway(t, benchRoute, usualAnswer)
	token = "Bearer " + token
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
