package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/auth/authtest"
	"sallyport/proxy/setting"
)

// askFrom presents a token from an address.
func askFrom(c *Chain, peer netip.Addr, token string) error {
	_, err := c.Authenticate(context.Background(), from(peer, head("Bearer "+token)))
	return err
}

var attacker = netip.MustParseAddr("198.51.100.66")

// TestFloodOfRandomTokensStarvesNobody: the issuer hangs on every token of the attacker. A
// victim at another address has a cached token and then new ones. It waits for nobody.
func TestFloodOfRandomTokensStarvesNobody(t *testing.T) {
	o := newOpaque(t, func(c *IssuerConfig) { c.Introspection.Timeout = setting.Duration(30 * time.Second) })
	hung, release := make(chan struct{}, 1000), make(chan struct{})
	defer close(release)
	o.AnswerLookUps(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token := r.PostForm.Get("token")
		if strings.HasPrefix(token, "random-") {
			hung <- struct{}{}
			select {
			case <-release:
			case <-r.Context().Done():
			}
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, o.About(token))
	}))
	cached := o.know("victim-cached", nil)
	if err := askFrom(o.chain, client, cached); err != nil {
		t.Fatal(err)
	}
	ctx, leave := context.WithCancel(context.Background())
	var flood sync.WaitGroup
	var refused atomic.Int64
	for i := range 2000 {
		flood.Go(func() {
			_, err := o.chain.Authenticate(ctx, from(attacker, head(fmt.Sprintf("Bearer random-%d", i))))
			if err == nil {
				t.Error("a random token is accepted")
			}
			if ctx.Err() == nil {
				refused.Add(1)
			}
		})
	}
	for range defaultConcurrency / shareOfEach {
		<-hung
	}
	for refused.Load() < 2000-maxLooksOf { // those that found their address's line full
		time.Sleep(time.Millisecond)
	}
	if err := askFrom(o.chain, client, cached); err != nil {
		t.Errorf("the cached token: %v", err)
	}
	for i := range 20 {
		if err := askFrom(o.chain, client, o.know(fmt.Sprint("victim-", i), nil)); err != nil {
			t.Errorf("new token %d: %v", i, err)
		}
	}
	if n := len(hung); n != 0 {
		t.Errorf("the attacker has %d places too many", n)
	}
	leave()
	flood.Wait()
}

// TestFloodFromManyAddressesLeavesAPlace: attackers at sixty addresses fill the line. A
// victim still gets a place in it, and is the next to be looked up.
func TestFloodFromManyAddressesLeavesAPlace(t *testing.T) {
	q := newLookQueue(8)
	var running []*look
	admit := func() {
		for k := q.next(); k != nil; k = q.next() {
			running = append(running, k)
		}
	}
	lost := 0
	for i := range 60 {
		for range maxLooksOf {
			k := &look{owner: uint64(i)}
			if q.full(k.owner) {
				t.Fatal("full too early")
			}
			if q.enter(k) != nil {
				lost++
			}
			admit()
		}
	}
	if q.waiting != maxLooks || len(running) != 8 || lost != 60*maxLooksOf-maxLooks-8 {
		t.Fatalf("%d wait, %d run, %d lost", q.waiting, len(running), lost)
	}
	victim := &look{owner: 1000}
	if out := q.enter(victim); out == nil || out == victim {
		t.Fatalf("the victim gets no place in line: %v", out)
	}
	q.leave(running[0])
	before := len(running)
	admit()
	if len(running) != before+1 || running[before].owner < 4 {
		t.Errorf("an address that had a place gets the next one")
	}
	for i := 1; running[len(running)-1] != victim; i++ {
		if i == 60+len(running[:8]) {
			t.Fatal("the victim waits behind more than one look-up of each address")
		}
		q.leave(running[i])
		admit()
	}
}

// TestRandomTokensSpendTheBudgetOfTheirAddress, and of no other. Repeating a refused token
// costs nothing.
func TestRandomTokensSpendTheBudgetOfTheirAddress(t *testing.T) {
	o := newOpaque(t, nil)
	o.memory.budget = newBudget(Budget{Burst: 10, Every: time.Hour})
	cached := o.know("cached-from-there", nil)
	if err := askFrom(o.chain, attacker, cached); err != nil {
		t.Fatal(err)
	}
	for range 50 {
		if got := reason(t, askFrom(o.chain, attacker, "same")); got != TokenInactive {
			t.Fatalf("got %s", got)
		}
	}
	for i := range 50 {
		wanted := TokenInactive
		if i >= 9 {
			wanted = TooManyFailures
		}
		if got := reason(t, askFrom(o.chain, attacker, fmt.Sprint("random-", i))); got != wanted {
			t.Fatalf("token %d: got %q, want %q", i, got, wanted)
		}
	}
	o.asked(t, 11)
	if err := askFrom(o.chain, attacker, cached); err != nil {
		t.Errorf("a cached token behind the same address: %v", err)
	}
	if err := askFrom(o.chain, client, o.know("victim", nil)); err != nil {
		t.Errorf("another address: %v", err)
	}
	for i := range 50 { // honest callers spend nothing
		if err := askFrom(o.chain, client, o.know(fmt.Sprint("honest-", i), nil)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestClientThatLeavesIsChargedToo: closing the connection early saves no budget.
func TestClientThatLeavesIsChargedToo(t *testing.T) {
	o := newOpaque(t, nil)
	o.memory.budget = newBudget(Budget{Burst: 1, Every: time.Hour})
	started, release := make(chan struct{}), make(chan struct{})
	o.AnswerLookUps(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(started)
		<-release
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"active":false}`)
	}))
	ctx, leave := context.WithCancel(context.Background())
	go func() { <-started; leave() }()
	if _, err := o.chain.Authenticate(ctx, from(attacker, head("Bearer random"))); reason(t, err) != IssuerUnavailable {
		t.Errorf("got %v", err)
	}
	close(release)
	want(t, o.chain, "random", TokenInactive) // from another address: it waits for the same look-up
	if got := reason(t, askFrom(o.chain, attacker, "another")); got != TooManyFailures {
		t.Errorf("got %s", got)
	}
}

// TestUnusableAnswersAreNeverAccepted: each is 503 with a cause, and charged to nobody.
func TestUnusableAnswersAreNeverAccepted(t *testing.T) {
	good := func(o *opaque) string { return o.About("s3cret-t0ken") }
	reply := func(status int, kind string, text func(*opaque) string) func(*opaque) http.HandlerFunc {
		return func(o *opaque) http.HandlerFunc {
			return func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", kind)
				w.WriteHeader(status)
				fmt.Fprint(w, text(o))
			}
		}
	}
	text := func(s string) func(*opaque) http.HandlerFunc {
		return reply(200, "application/json", func(*opaque) string { return s })
	}
	also := func(s string) func(*opaque) http.HandlerFunc {
		return reply(200, "application/json", func(o *opaque) string { return s + good(o)[1:] })
	}
	for name, c := range map[string]struct {
		answer func(*opaque) http.HandlerFunc
		cause  string
	}{
		"HTML":                  {reply(200, "text/html", func(*opaque) string { return "<html>" }), `its type is "text/html", not application/json`},
		"a page as JSON":        {text("<html>"), "not a JSON object"},
		"JSON as a page":        {reply(200, "text/html; charset=utf-8", good), `its type is "text/html"`},
		"no type":               {reply(200, "", good), `its type is ""`},
		"a JWT of another kind": {reply(200, "application/jwt", good), `its type is "application/jwt"`},
		"empty":                 {text(""), "not a JSON object"},
		"null":                  {text("null"), "not a JSON object"},
		"an array":              {text(`[{"active":true}]`), "not a JSON object"},
		"two objects":           {text(`{"active":true}{}`), "unexpected data"},
		"no active":             {text(`{"sub":"alice"}`), "active is absent"},
		"active a string":       {text(`{"active":"true"}`), "active is absent, or not"},
		"active a number":       {text(`{"active":1}`), "active is absent, or not"},
		"active null":           {text(`{"active":null}`), "active is absent"},
		"active in an array":    {text(`{"active":[true]}`), "active is absent, or not"},
		"active twice":          {also(`{"active":false,`), "duplicate name"},
		"sub twice":             {also(`{"sub":"root",`), "duplicate name"},
		"sub twice inside":      {also(`{"x":{"sub":"a","sub":"b"},`), "duplicate name"},
		"Active":                {also(`{"Active":true,`), "active in another letter case"},
		"not UTF-8":             {text("{\"active\":true,\"x\":\"\xff\"}"), "not well-formed JSON"},
		"long":                  {text(`{"active":true,"x":"` + strings.Repeat("x", maxAnswer) + `"}`), "too large"},
		"long by its header": {func(*opaque) http.HandlerFunc {
			return func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Length", "1073741824") }
		}, "too large"},
		"a gigabyte": {func(*opaque) http.HandlerFunc { return endlessAnswer }, "too large"},
		"a redirect": {func(*opaque) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
			}
		}, "bad status 307"},
		"no content": {reply(204, "application/json", func(*opaque) string { return "" }), "bad status 204"},
		"401":        {reply(401, "application/json", good), "bad status 401: the issuer refuses the gateway itself"},
		"403":        {reply(403, "application/json", good), "bad status 403: the issuer refuses the gateway itself"},
		"500":        {reply(500, "application/json", good), "bad status 500"},
		"closed": {func(*opaque) http.HandlerFunc {
			return func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
		}, "unreachable"},
		"silent":                {func(*opaque) http.HandlerFunc { return authtest.Hang().ServeHTTP }, "timed out"},
		"a JWT, but not signed": {reply(200, signedAnswer, good), "signed answer: the token does not have three segments"},
	} {
		t.Run(name, func(t *testing.T) {
			o := newOpaque(t, func(c *IssuerConfig) {
				if name == "silent" {
					c.Introspection.Timeout = setting.Duration(time.Second)
				}
			})
			token := o.know("s3cret-t0ken", nil)
			o.AnswerLookUps(c.answer(o))
			p, err := ask(o.chain, token)
			if got := reason(t, err); got != IssuerUnavailable || asError(err).Status() != 503 || !p.IsZero() {
				t.Fatalf("got %q, %v", p.String(), err)
			}
			if !strings.Contains(err.Error(), c.cause) || !strings.Contains(err.Error(), "issuer corp: token not looked up: "+o.URL) || strings.Contains(err.Error(), token) {
				t.Errorf("got %v, want %q", err, c.cause)
			}
			if o.memory.CacheStatus().Tokens != 0 {
				t.Error("something is cached")
			}
			if st := o.auth.Status()[0].Introspection; st.LastError == "" || st.LookUps.Failed != 1 {
				t.Errorf("status %+v", st)
			}
			want(t, o.chain, "an0ther", IssuerUnavailable) // pauses
			o.asked(t, 1)
			if name == "silent" {
				return // its timeout is too short for a busy machine
			}
			o.AnswerLookUps(nil)
			o.clock.Add(time.Second)
			want(t, o.chain, token, "")
			if st := o.auth.Status()[0].Introspection; st.LastError != "" {
				t.Errorf("status %+v", st)
			}
		})
	}
}

func endlessAnswer(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	for {
		if _, err := io.WriteString(w, strings.Repeat(" ", 1<<16)); err != nil {
			return
		}
	}
}

// TestDeadIssuerIsNotHammered: each failure makes the next attempt wait longer, and requests
// in between do not wait.
func TestDeadIssuerIsNotHammered(t *testing.T) {
	o := newOpaque(t, nil)
	o.AnswerLookUps(authtest.Status(500))
	for range 120 { // a minute
		for i := range 5 {
			want(t, o.chain, fmt.Sprint("token-", i), IssuerUnavailable)
		}
		o.clock.Add(500 * time.Millisecond)
	}
	if n := o.LookUps(); n < 5 || n > 15 {
		t.Errorf("%d look-ups in a minute", n)
	}
	o.AnswerLookUps(nil)
	o.clock.Add(lastPause)
	want(t, o.chain, o.know("0paque", nil), "")
}

// TestTokenThatTheIssuerFailsAtStopsOneAddressOnly: the attacker knows a token at which the
// issuer fails, and repeats it.
func TestTokenThatTheIssuerFailsAtStopsOneAddressOnly(t *testing.T) {
	o := newOpaque(t, nil)
	o.AnswerLookUps(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if token := r.PostForm.Get("token"); token != "poison" {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, o.About(token))
			return
		}
		w.WriteHeader(500)
	}))
	for i := range 20 {
		for range 10 {
			if got := reason(t, askFrom(o.chain, attacker, "poison")); got != IssuerUnavailable {
				t.Fatalf("got %s", got)
			}
		}
		want(t, o.chain, o.know(fmt.Sprint("victim-", i), nil), "")
		o.clock.Add(time.Second)
	}
}

// TestTokensThatTheIssuerRefusesStopNobody: an issuer answers 400 to a token of a form that it
// does not introspect. Attackers at many addresses send such tokens.
func TestTokensThatTheIssuerRefusesStopNobody(t *testing.T) {
	o := newOpaque(t, nil)
	o.memory.budget = newBudget(Budget{Burst: 20, Every: time.Hour})
	o.AnswerLookUps(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if token := r.PostForm.Get("token"); !strings.HasPrefix(token, "eyJ") {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, o.About(token))
			return
		}
		w.WriteHeader(400)
	}))
	for address := range 10 {
		peer := netip.AddrFrom4([4]byte{198, 51, 100, byte(address)})
		for i := range 20 {
			for range 3 { // it is remembered
				if got := reason(t, askFrom(o.chain, peer, fmt.Sprintf("eyJ.a.b.c.%d-%d", address, i))); got != IssuerUnavailable {
					t.Fatalf("got %s", got)
				}
			}
		}
		if got := reason(t, askFrom(o.chain, peer, "eyJ.a.b.c.last")); got != TooManyFailures {
			t.Fatalf("got %s", got)
		}
		want(t, o.chain, o.know(fmt.Sprint("victim-", address), nil), "")
	}
	o.asked(t, 10*20+10)
}

// TestRefusalOfTheGatewayChargesNoCaller: some issuers answer 400 to wrong credentials of a client
// (RFC 6749, section 5.2). That is no caller's fault, and no property of their tokens.
func TestRefusalOfTheGatewayChargesNoCaller(t *testing.T) {
	for _, code := range []string{"invalid_client", "unauthorized_client"} {
		o := newOpaque(t, nil)
		o.memory.budget = newBudget(Budget{Burst: 5, Every: time.Hour})
		o.AnswerLookUps(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(400)
			fmt.Fprintf(w, `{"error": %q}`, code)
		}))
		token := o.know("honest", nil)
		for range 20 {
			want(t, o.chain, token, IssuerUnavailable)
			o.clock.Add(lastPause)
		}
		_, err := ask(o.chain, token)
		if !errors.Is(err, errClientRefused) {
			t.Errorf("%s: got %v, want the cause that the issuer refuses the gateway", code, err)
		}
		o.AnswerLookUps(nil)
		o.clock.Add(lastPause)
		want(t, o.chain, token, "")
	}
}

// TestSecretsAreInNoErrorOrLog greps what the gateway says about look-ups.
func TestSecretsAreInNoErrorOrLog(t *testing.T) {
	o := newOpaque(t, nil)
	logged := &strings.Builder{}
	o.memory.log = textLog(logged)
	var said []string
	for i, answer := range []http.Handler{
		authtest.Status(401), authtest.Text("<html>"), nil,
		http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { // an issuer that repeats what it gets
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(map[string]any{"active": true, "iss": o.URL, "aud": "models", "token_type": "x", "exp": r.PostForm.Get("token")})
		}),
		http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, r.PostForm.Get("token"), r.Header.Get("Authorization"))
		}),
		http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/"+r.PostForm.Get("token")+"?"+clientSecret, http.StatusFound)
		}),
	} {
		o.AnswerLookUps(answer)
		_, err := ask(o.chain, fmt.Sprintf("s3cret-t0ken-%d", i))
		if err == nil {
			t.Fatal("accepted")
		}
		said = append(said, err.Error(), fmt.Sprintf("%+v %#v", o.auth.Status()[0], o.auth.Status()[0].Introspection))
		o.clock.Add(time.Hour)
	}
	for _, text := range append(said, logged.String()) {
		for _, secret := range []string{"s3cret", "czNjcmV0", "Basic "} {
			if strings.Contains(text, secret) {
				t.Errorf("%q contains %q", text, secret)
			}
		}
	}
	if !strings.Contains(logged.String(), "issuer not asked about a token") {
		t.Errorf("the log lacks the failure: %s", logged.String())
	}
}

// TestCloseEndsLookUps: none remains of a configuration that is gone, even if its issuer hangs.
func TestCloseEndsLookUps(t *testing.T) {
	o := newOpaque(t, func(c *IssuerConfig) { c.Introspection.Timeout = setting.Duration(30 * time.Second) })
	started := make(chan struct{})
	o.AnswerLookUps(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { close(started); <-r.Context().Done() }))
	done := make(chan error)
	go func() { done <- askFrom(o.chain, client, "token") }()
	<-started
	o.auth.Close()
	if got := reason(t, <-done); got != IssuerUnavailable {
		t.Errorf("got %s", got)
	}
}
