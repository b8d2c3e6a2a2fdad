package auth

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sallyport/proxy/setting"
)

// TestForgerCannotRefuseKnownTokensOfItsAddress: the verdict about a victim's token becomes too old
// while somebody behind the same address has spent the budget, fills the line of the address, and
// has tokens at which the issuer fails. The victim's token is looked up again all the same.
func TestForgerCannotRefuseKnownTokensOfItsAddress(t *testing.T) {
	for name, attack := range map[string]func(*opaque){
		"budget": func(o *opaque) {
			for i := range 20 {
				_ = askFrom(o.chain, attacker, fmt.Sprint("random-", i))
			}
		},
		"failures": func(o *opaque) { _ = askFrom(o.chain, attacker, "poison") },
		"line": func(o *opaque) {
			ctx, leave := context.WithCancel(context.Background())
			leave()
			for i := range 2 * maxLooksOf {
				_, _ = o.chain.Authenticate(ctx, from(attacker, head(fmt.Sprintf("Bearer hang-%d", i))))
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := newOpaque(t, func(c *IssuerConfig) { c.Introspection.Timeout = setting.Duration(30 * time.Second) })
			o.memory.budget = newBudget(Budget{Burst: 10, Every: time.Hour})
			o.AnswerLookUps(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch token := r.PostForm.Get("token"); {
				case token == "poison":
					w.WriteHeader(500)
				case strings.HasPrefix(token, "hang"):
					<-r.Context().Done()
				default:
					w.Header().Set("Content-Type", "application/json")
					fmt.Fprint(w, o.About(token))
				}
			}))
			victim, revoked := o.know("victim", nil), o.know("revoked", map[string]any{"sub": "bob"})
			for _, token := range []string{victim, revoked} {
				if err := askFrom(o.chain, attacker, token); err != nil {
					t.Fatal(err)
				}
			}
			o.clock.Add(2 * time.Minute)
			o.memory.tokens.sweep(o.clock.Now().Unix())
			attack(o)
			if err := askFrom(o.chain, attacker, o.know("new", nil)); err == nil {
				t.Error("the attack has no effect on new tokens: the test shows nothing")
			}
			if err := askFrom(o.chain, attacker, victim); err != nil {
				t.Errorf("the victim: %v", err)
			}
			o.Know(revoked, nil)
			if got := reason(t, askFrom(o.chain, attacker, revoked)); got != TokenInactive {
				t.Errorf("the revoked token: %s", got)
			}
		})
	}
}

// TestAnswersWithOddClaimsStopOneTokenOnly: attackers at many addresses have tokens of which the
// issuer says what nobody can use. It does so of inactive tokens too. The victim feels nothing.
func TestAnswersWithOddClaimsStopOneTokenOnly(t *testing.T) {
	deep := strings.Repeat("[", 1000) + strings.Repeat("]", 1000)
	for name, c := range map[string]struct{ answer, why, cause string }{
		"exp null":              {`{"active":true,"exp":null}`, IssuerUnavailable, "exp: not a number"},
		"exp a string":          {`{"active":true,"exp":"1800000000"}`, IssuerUnavailable, "exp: not a number"},
		"exp huge":              {`{"active":true,"exp":1e300}`, IssuerUnavailable, "exp: not a date"},
		"exp negative":          {`{"active":true,"exp":-1}`, IssuerUnavailable, "exp: not a date"},
		"EXP":                   {`{"EXP":1,"active":true}`, IssuerUnavailable, "exp in another letter case"},
		"aud an object":         {`{"active":true,"aud":{"models":"models"}}`, IssuerUnavailable, "aud: not a string"},
		"deep":                  {`{"active":true,"x":` + deep + "}", IssuerUnavailable, "nested too deep"},
		"inactive, exp null":    {`{"active":false,"exp":null}`, TokenInactive, "not active"},
		"inactive, exp 0":       {`{"active":false,"exp":0,"aud":null}`, TokenInactive, "not active"},
		"inactive, iat a text":  {`{"iat":"","active":false}`, TokenInactive, "not active"},
		"inactive, EXP":         {`{"EXP":1,"active":false}`, TokenInactive, "not active"},
		"inactive, deep claims": {`{"active":false,"x":` + deep + "}", TokenInactive, "not active"},
	} {
		t.Run(name, func(t *testing.T) {
			o := newOpaque(t, nil)
			o.memory.budget = newBudget(Budget{Burst: 2, Every: time.Hour})
			o.AnswerLookUps(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				if token := r.PostForm.Get("token"); strings.HasPrefix(token, "victim") {
					fmt.Fprint(w, o.About(token))
					return
				}
				fmt.Fprint(w, c.answer)
			}))
			for i := range 10 {
				peer := netip.AddrFrom4([4]byte{198, 51, 100, byte(i)})
				for _, token := range []string{"a", "a", "b"} {
					err := askFrom(o.chain, peer, fmt.Sprint(token, i))
					if got := reason(t, err); got != c.why || !strings.Contains(err.Error(), c.cause) {
						t.Fatalf("got %v, want %s: %s", err, c.why, c.cause)
					}
				}
				if got := reason(t, askFrom(o.chain, peer, "third")); got != TooManyFailures {
					t.Errorf("got %s, want the budget spent", got)
				}
			}
			o.asked(t, 20) // the verdict is remembered
			want(t, o.chain, o.know("victim", nil), "")
		})
	}
}
