package proxy_test

import (
	"slices"
	"testing"
)

// Two callers with rights to different models send calls in turn. Each is decided by itself, whatever the
// call before left in the memory that both use: allowed, refused, cut or still being read.
func TestCallsInTurnAreDecidedByThemselves(t *testing.T) {
	const route = `{host: models.test, upstream: tf, callers: [issuer/corp, apikey/bench], rules: [
  {allow: predict, models: "half_*", who: {scope: models.predict}},
  {allow: predict, models: "own_*", who: {principal: "apikey:bench"}}]}`
	g, token := benchGatewayTo(t, route, answerCalls)
	half := [][]byte{modelSpec("half_plus_two", 3)}
	own := [][]byte{modelSpec("own_model", 0)}
	message := func(specs [][]byte, before, behind int) []byte {
		return framedText(string(predictRequest(specs, before, behind)))
	}
	type call struct {
		name, credential string
		content          []byte
		status           string
	}
	calls := []call{
		{"alice's model", token, message(half, 0, 100), "0"},
		{"alice, the other's model", token, message(own, 0, 100), "7"},
		{"alice, no model", token, message(nil, 0, 100), "3"},
		{"alice, cut", token, message(half, 0, 100)[:30], "3"},
		{"alice, large", token, message(half, 0, 200<<10), "0"},
		{"alice, large, the model last", token, message(half, 200<<10, 0), "0"},
		{"the key's model", benchAPIKey, message(own, 0, 100), "0"},
		{"the key, alice's model", benchAPIKey, message(half, 0, 100), "7"},
		{"the key, both models", benchAPIKey, message(slices.Concat(own, half), 0, 100), "3"},
		{"the key, large, alice's model last", benchAPIKey, message(half, 200<<10, 0), "7"},
		{"nobody", "x", message(half, 0, 100), "16"},
	}
	var s benchStream
	for _, first := range calls {
		for _, second := range calls {
			for _, c := range []call{first, second} {
				s.setCall("Bearer "+c.credential, c.content)
				if g.Serve(&s); s.call != c.status {
					t.Fatalf("%s, then %s: %s has status %q; want %s", first.name, second.name, c.name, s.call, c.status)
				}
			}
		}
	}
}
