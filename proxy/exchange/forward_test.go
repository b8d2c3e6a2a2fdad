package exchange

import (
	"errors"
	"strings"
	"testing"

	"sallyport/auth/httpsig"
	"sallyport/auth/identity"
	"sallyport/policy"
	"sallyport/policy/model"
	"sallyport/proxy/message"
	"sallyport/proxy/route"
	"sallyport/proxy/seal"
	"sallyport/proxy/setting"
)

// decided is an exchange that has a grant for the call in its head. Its route has no upstream: an
// attempt to reach one panics.
func decided(t *testing.T, unverified bool) (*exchange, verdict) {
	t.Helper()
	d, _ := model.ByName("tensorflow")
	p, err := policy.New(d, "rules", []policy.Rule{{Allow: setting.List[string]{"*"}}})
	if err != nil {
		t.Fatal(err)
	}
	x := &exchange{}
	x.route = &route.Route{Dialect: d, Policy: p}
	x.head = &message.Head{Method: "POST", Path: "/v1/models/half_plus_two:predict"}
	x.caller = identity.Principal{Source: "key", Name: "acme"}
	x.reading, err = readAt(x.route, x.head, x.head.Path, false, &x.modelAsk)
	if err != nil {
		t.Fatal(err)
	}
	call := x.reading.Call
	x.interpreted = x.form()
	var v verdict
	v.kind = granted
	if unverified {
		x.content.verified = seal.NewVerified(seal.WithoutTrailers(strings.NewReader("")), httpsig.Digests{}.NewChecker())
		v.provisional, err = p.Provide(&x.caller, call, nil)
	} else {
		v.grant, err = p.Decide(&x.caller, call, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	return x, v
}

// A bug in the gateway could change a request after it was authorized.
func TestGrantForwardsItsOwnCallAlone(t *testing.T) {
	for name, alter := range map[string]func(*exchange){
		"another method":  func(x *exchange) { x.head.Method = "GET" },
		"another model":   func(x *exchange) { x.reading.Path = "/v1/models/secret:predict" },
		"another version": func(x *exchange) { x.reading.Path = "/v1/models/half_plus_two/versions/2:predict" },
	} {
		for _, unverified := range []bool{false, true} {
			x, v := decided(t, unverified)
			alter(x)
			if err := x.forward(v); !errors.Is(err, errNoGrant) || asRefusal(err).reason != reasonInternal {
				t.Errorf("%s, unverified body %v: got %v", name, unverified, err)
			}
		}
	}
}

func TestZeroVerdictForwardsNothing(t *testing.T) {
	x, _ := decided(t, false)
	for name, v := range map[string]verdict{"zero": {}, "granted without a grant": {kind: granted}} {
		if err := x.forward(v); !errors.Is(err, errNoGrant) {
			t.Errorf("%s: got %v", name, err)
		}
		if err := x.respond(v.grant); !errors.Is(err, errNoGrant) {
			t.Errorf("%s: a fixed answer: got %v", name, err)
		}
	}
}

// A provisional grant only permits bodies whose end is withheld.
func TestProvisionalGrantDoesNotForwardAVerifiedBody(t *testing.T) {
	x, v := decided(t, true)
	x.content.verified = nil
	if err := x.forward(v); !errors.Is(err, errNoGrant) {
		t.Errorf("got %v", err)
	}
}
