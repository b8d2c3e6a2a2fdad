package auth

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/bcrypt"

	"sallyport/auth/apikey"
	"sallyport/auth/authtest"
	"sallyport/proxy/message"
	"sallyport/proxy/setting"
)

// hashOf is the cheapest hash of a password.
func hashOf(t testing.TB, password string) string {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return string(hash)
}

// passwordsOf reads a file with this text for basic/legacy, which ends in an hour of the clock.
func passwordsOf(t testing.TB, c *authtest.Clock, text string) (*Passwords, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "htpasswd")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return ReadPasswords("legacy", &BasicConfig{HTPasswdConfig{setting.Path(file)}, setting.Time{Time: c.Now().Add(time.Hour)}})
}

// legacy is a keyring with the users bob and eve.
func legacy(t *testing.T) *keyring {
	k := newKeyring(t)
	p, err := passwordsOf(t, k.clock, "# users\n\nbob:"+hashOf(t, "sesame")+"\neve:"+hashOf(t, "ö:pä")+":a comment\nlong:"+hashOf(t, strings.Repeat("x", 72))+"\n")
	if err != nil {
		t.Fatal(err)
	}
	table, err := ReadAPIKeys(k.config(), "")
	if err != nil {
		t.Fatal(err)
	}
	k.auth = activeAuth(t, NewMemory(MemoryOptions{Now: k.clock.Now}), Config{
		Issuers: map[string]IssuerConfig{"corp": k.provider.config()}, APIKeys: table, Passwords: map[string]*Passwords{"legacy": p},
	})
	return k
}

func byPassword(user, password string) *message.Head {
	return fields("authorization", basic(user, password))
}

func TestPasswordsProveTheirUser(t *testing.T) {
	k := legacy(t)
	only, both := k.chain("basic/legacy"), k.chain("issuer/corp", "apikey", "basic/legacy")
	encoded := base64.StdEncoding.EncodeToString([]byte("bob:sesame"))
	query := byPassword("bob", "sesame")
	query.Query = "access_token=x"
	for _, c := range []struct {
		name, want, beside string // the outcomes where only passwords count, and where others do too
		head               *message.Head
	}{
		{"right", "basic/legacy:bob", "basic/legacy:bob", byPassword("bob", "sesame")},
		{"a colon, UTF-8", "basic/legacy:eve", "basic/legacy:eve", byPassword("eve", "ö:pä")},
		{"as long as bcrypt reads", "basic/legacy:long", "basic/legacy:long", byPassword("long", strings.Repeat("x", 72))},
		{"another case of the scheme", "basic/legacy:bob", "basic/legacy:bob", fields("authorization", "bAsIc   "+encoded)},
		{"one byte more than bcrypt reads", BasicUnknown, BasicUnknown, byPassword("long", strings.Repeat("x", 73))},
		{"very long", BasicUnknown, BasicUnknown, byPassword("long", strings.Repeat("x", 60<<10))},
		{"wrong", BasicUnknown, BasicUnknown, byPassword("bob", "sesamé")},
		{"of another user", BasicUnknown, BasicUnknown, byPassword("eve", "sesame")},
		{"empty", BasicUnknown, BasicUnknown, byPassword("bob", "")},
		{"a zero byte", BasicUnknown, BasicUnknown, byPassword("bob", "sesame\x00sesame")},
		{"nobody", BasicUnknown, BasicUnknown, byPassword("", "sesame")},
		{"unknown", BasicUnknown, BasicUnknown, byPassword("mallory", "sesame")},
		{"another case of the user", BasicUnknown, BasicUnknown, byPassword("Bob", "sesame")},
		{"control characters in the user", BasicUnknown, BasicUnknown, byPassword("bob\x00", "sesame")},
		{"not base64", BasicUnknown, BasicUnknown, fields("authorization", "Basic bob:sesame")},
		{"no colon", BasicUnknown, BasicUnknown, fields("authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte("bob")))},
		{"base64 for URLs", BasicUnknown, BasicUnknown, fields("authorization", "Basic Ym9iOv-_")},
		{"scheme alone", BasicUnknown, BasicUnknown, fields("authorization", "Basic")},
		{"twice", BadCredential, BadCredential, fields("authorization", "Basic "+encoded, "authorization", "Basic "+encoded)},
		{"a token in the query", BadCredential, BadCredential, query},
		{"an API key", UnlistedCredential, "apikey:acme", byPassword("bob", k.acme)},
		{"a bad API key", UnlistedCredential, APIKeyUnknown, byPassword("bob", apikey.New())},
		{"a token", UnlistedCredential, "issuer/corp:alice", fields("authorization", "Bearer "+k.token())},
		{"beside a bad API key", "basic/legacy:bob", APIKeyUnknown, fields("authorization", "Basic "+encoded, "x-api-key", apikey.New())},
		{"another scheme", UnlistedCredential, UnlistedCredential, fields("authorization", "Digest "+encoded)},
		{"none", NoCredential, NoCredential, fields()},
	} {
		for chain, want := range map[*Chain]string{only: c.want, both: c.beside} {
			k.auth.memory.passwords.budget = newBudget(passwordBudget())
			if got := k.outcome(chain, client, c.head); got != want {
				t.Errorf("%s: got %s, want %s", c.name, got, want)
			}
		}
	}
	if got := challenge(only, "models.test", &Error{Reason: NoCredential}); got != `Basic realm="models.test", charset="UTF-8"` {
		t.Errorf("challenge %s", got)
	}
	if got := challenge(both, "models.test", &Error{Reason: BasicUnknown}); got != `Bearer realm="models.test", Basic realm="models.test", charset="UTF-8"` {
		t.Errorf("challenge %s", got)
	}
	if got := challenge(k.chain("basic/legacy", "issuer/corp"), "models.test", &Error{Reason: NoCredential}); got != `Bearer realm="models.test", Basic realm="models.test", charset="UTF-8"` {
		t.Errorf("passwords listed first: challenge %s", got)
	}
	proof := accepted(t, only, byPassword("bob", "sesame"))
	if !proof.Caller.Expires.Equal(k.clock.Now().Add(time.Hour)) || proof.Caller.Kind() != "basic" {
		t.Errorf("got %+v", proof)
	}
	k.clock.Add(time.Hour)
	for _, h := range []*message.Head{byPassword("bob", "sesame"), byPassword("bob", "wrong"), byPassword("mallory", "x")} {
		if got := k.outcome(only, client, h); got != BasicEnded {
			t.Errorf("after until: got %s", got)
		}
	}
	if got := k.outcome(both, client, byPassword("bob", k.acme)); got != "apikey:acme" {
		t.Errorf("an API key after until: got %s", got)
	}
}

func TestFaultsOfPasswordFilesNameTheirLine(t *testing.T) {
	c, secret := authtest.NewClock(), "hunter2secret"
	good := hashOf(t, "x")
	for line, want := range map[string]string{
		"bob":                  "want USER:HASH",
		"bob:" + secret:        "crypt or plain text, and only bcrypt is taken; run htpasswd -B FILE bob",
		"bob:{PLAIN}" + secret: "plain text",
		"bob:$apr1$" + secret:  "MD5 ($apr1$)",
		"bob:{SHA}" + secret:   "SHA-1",
		"bob:$6$" + secret:     "SHA-512",
		"bob:$2y$10$" + secret: "cut off",
		"bob:" + strings.Replace(good, "$2a$", "$2x$", 1): "of an unknown kind",
		"bob:" + strings.Replace(good, "$04$", "$31$", 1): "cost 31, and 4 to 12 are taken",
		"bob:" + strings.Replace(good, "$04$", "$13$", 1): "cost 13",
		"bob:" + strings.Replace(good, "$04$", "$03$", 1): "cost 3",
		":" + good:                            "name is empty",
		"b\u202eob:" + good:                   "invisible characters",
		"b\xffob:" + good:                     "not UTF-8",
		strings.Repeat("b", 256) + ":" + good: "longer than",
		"ok:" + good:                          "user ok stands there twice",
	} {
		_, err := passwordsOf(t, c, "ok:"+good+"\n"+line+"\n")
		var fault *LineError
		if !errors.As(err, &fault) || fault.Line != 2 || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %s", line, err, want)
		}
		if err != nil && (strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), good[10:])) {
			t.Errorf("%v repeats a hash", err)
		}
	}
	// The example of Apache's documentation of htpasswd -nbB.
	apache, err := passwordsOf(t, c, "myName:$2y$05$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqC\n")
	if err != nil {
		t.Fatal(err)
	}
	if b := (&passwordAuth{NewMemory(MemoryOptions{}), apache}); !b.matches(apache.users["myName"], []byte("myName"), []byte("myPassword")) || b.matches(apache.users["myName"], []byte("myName"), []byte("myPasswort")) {
		t.Error("a hash of Apache's htpasswd does not verify")
	}
	for _, kind := range []string{"$2a$", "$2b$", "$2y$"} {
		if _, err := passwordsOf(t, c, "bob:"+strings.Replace(good, "$2a$", kind, 1)+"\n"); err != nil {
			t.Error(err)
		}
	}
}

// TestVerifiedPasswordsGoWithTheirLine checks what a later configuration takes over.
func TestVerifiedPasswordsGoWithTheirLine(t *testing.T) {
	k := legacy(t)
	accepted(t, k.chain("basic/legacy"), byPassword("bob", "sesame"))
	old := k.auth.passwords["legacy"]
	same, other := string(old.users["bob"].hash), hashOf(t, "sesame")
	for name, c := range map[string]struct {
		text string
		want bool
	}{
		"the same line":    {"bob:" + same + "\n", true},
		"another hash":     {"bob:" + other + "\n", false},
		"of another user":  {"eve:" + same + "\nbob:" + other + "\n", false},
		"without the line": {"eve:" + same + "\n", false},
	} {
		p, err := passwordsOf(t, k.clock, c.text)
		if err != nil {
			t.Fatal(err)
		}
		p.adopt(old)
		mark := k.auth.memory.passwords.mark([]byte("sesame"))
		if got := p.users["bob"].remembers(&mark); got != c.want {
			t.Errorf("%s: remembered is %v, want %v", name, got, c.want)
		}
		if p.users["eve"].remembers(&mark) {
			t.Errorf("%s: the password counts for another user", name)
		}
	}
	before, after := k.auth.memory.passwords.mark([]byte("sesame")), newPasswordMemory().mark([]byte("sesame"))
	if before == after {
		t.Error("the mark of a password depends on no key")
	}
}

// TestUnknownUsersAreComparedToo checks that an unknown user's password is compared with a real hash,
// and that even the right password of that hash proves nobody.
func TestUnknownUsersAreComparedToo(t *testing.T) {
	k := legacy(t)
	p, err := passwordsOf(t, k.clock, "bob:"+hashOf(t, "sesame")+"\n")
	if err != nil {
		t.Fatal(err)
	}
	b := &passwordAuth{k.auth.memory, p}
	if b.matches(nil, []byte("mallory"), []byte("sesame")) || !b.matches(p.users["bob"], []byte("bob"), []byte("sesame")) {
		t.Error("the password of the compared user proves an unknown one")
	}
}

// TestGuessingStarvesNobody fills the gate from one address. A caller whose password was verified
// passes at once, even from that address. A fresh one at another address waits for one check at most.
func TestGuessingStarvesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &keyring{t: t, clock: authtest.NewClock()}
		p, err := passwordsOf(t, k.clock, "bob:"+hashOf(t, "sesame")+"\neve:"+hashOf(t, "other")+"\n")
		if err != nil {
			t.Fatal(err)
		}
		k.auth = activeAuth(t, NewMemory(MemoryOptions{Now: k.clock.Now}), Config{Passwords: map[string]*Passwords{"legacy": p}})
		c, g := k.chain("basic/legacy"), k.auth.memory.passwords.gate
		accepted(t, c, byPassword("bob", "sesame"))

		// All places are taken, as if slow checks were running.
		places := g.free
		for range places {
			if err := g.enter(t.Context(), 1); err != nil {
				t.Fatal(err)
			}
		}
		var mu sync.Mutex
		results := map[string]int{}
		var all sync.WaitGroup
		ask := func(who string, peer netip.Addr, h *message.Head) {
			all.Go(func() {
				_, err := c.Authenticate(context.Background(), from(peer, h))
				mu.Lock()
				defer mu.Unlock()
				why := "ok"
				if e := (*Error)(nil); errors.As(err, &e) {
					why = e.Reason
				}
				results[who+" "+why]++
			})
		}
		for i := range 100 {
			ask("guesser", client, byPassword("eve", fmt.Sprint("guess ", i)))
		}
		synctest.Wait()
		if results["guesser "+BasicBusy] != 100-maxQueue {
			t.Errorf("got %v, want %d guesses in the queue", results, maxQueue)
		}
		accepted(t, c, byPassword("bob", "sesame"))
		ask("victim", netip.MustParseAddr("198.51.100.1"), byPassword("eve", "other"))
		synctest.Wait()
		// A third address comes after the victim, and keeps the one place for all that wait.
		third := make(chan struct{})
		all.Go(func() {
			if err := g.enter(context.Background(), 1); err != nil {
				t.Error(err)
			}
			<-third
			g.exit()
		})
		synctest.Wait()
		g.exit()
		synctest.Wait()
		if results["victim ok"] != 1 || results["guesser "+BasicUnknown]+results["guesser "+TooManyFailures] > 1 {
			t.Errorf("the victim's turn came late: %v", results)
		}
		close(third)
		all.Wait()
		if results["victim ok"] != 1 || results["guesser "+BasicUnknown] != passwordBudget().Burst || results["guesser "+TooManyFailures] != maxQueue-passwordBudget().Burst {
			t.Errorf("got %v", results)
		}
		// The address is spent: what was verified there counts on, and other addresses feel nothing.
		accepted(t, c, byPassword("bob", "sesame"))
		if got := k.outcome(c, client, byPassword("mallory", "x")); got != TooManyFailures {
			t.Errorf("another guess: got %s", got)
		}
		if got := k.outcome(c, netip.MustParseAddr("198.51.100.2"), byPassword("mallory", "x")); got != BasicUnknown {
			t.Errorf("another address: got %s", got)
		}
		k.clock.Add(time.Second)
		if got := k.outcome(c, client, byPassword("mallory", "x")); got != BasicUnknown {
			t.Errorf("a second later: got %s", got)
		}
		for range places - 1 {
			g.exit()
		}
		if g.free != places || len(g.queues)+len(g.turns) != 0 {
			t.Errorf("%d places are free of %d; %d queues are left", g.free, places, len(g.queues))
		}
	})
}

// TestGateForgetsWhoLeaves cancels checks that wait, some at the moment of their turn.
func TestGateForgetsWhoLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gate{free: 1, queues: map[uint64]*gateQueue{}}
		_ = g.enter(t.Context(), 0)
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		for i := range 50 {
			all.Go(func() {
				if g.enter(ctx, uint64(i%3)) == nil {
					g.exit()
				}
			})
		}
		synctest.Wait()
		go g.exit()
		cancel()
		all.Wait()
		synctest.Wait()
		if g.free != 1 || len(g.queues)+len(g.turns) != 0 {
			t.Errorf("%d free, %d queues and %d turns are left", g.free, len(g.queues), len(g.turns))
		}
		if err := g.enter(ctx, 1); err != nil {
			t.Errorf("a free place: %v", err)
		}
		for owner := range uint64(maxQueues) {
			all.Go(func() { _ = g.enter(ctx, owner) })
		}
		all.Wait()
	})
}

// TestRecheckOfPasswords checks requests in flight against later configurations.
func TestRecheckOfPasswords(t *testing.T) {
	k := legacy(t)
	h := byPassword("bob", "sesame")
	proof := accepted(t, k.chain("basic/legacy"), h)
	m := k.auth.memory
	for text, want := range map[string]string{
		"bob:" + string(k.auth.passwords["legacy"].users["bob"].hash) + "\n": "basic/legacy:bob",
		"bob:" + hashOf(t, "sesame") + "\n":                                  "basic/legacy:bob",
		"bob:" + hashOf(t, "changed") + "\n":                                 BasicUnknown,
		"eve:" + hashOf(t, "sesame") + "\n":                                  BasicUnknown,
	} {
		p, err := passwordsOf(t, k.clock, text)
		if err != nil {
			t.Fatal(err)
		}
		k.auth = activeAuth(t, m, Config{Passwords: map[string]*Passwords{"legacy": p}})
		if got := recheck(t, k.chain("basic/legacy"), h, proof); got != want {
			t.Errorf("%s: got %s, want %s", text[:3], got, want)
		}
	}
}

// TestPasswordsBesideOtherCredentials combines a password with an API key: a bad one is never excused
// by a good one, and both must be of one alias unless the route says otherwise.
func TestPasswordsBesideOtherCredentials(t *testing.T) {
	k := legacy(t)
	k.auth.aliases = map[string]string{"basic/legacy:bob": "batch", "apikey:acme": "batch"}
	route := func(d Demand) *Chain {
		d.Callers = []string{"basic/legacy", "apikey"}
		c, err := k.auth.Route(d)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	chains := []*Chain{route(Demand{}), route(Demand{All: true}), route(Demand{All: true, Independent: true})}
	for _, c := range []struct {
		password, key string
		want          [3]string // any, all of one alias, all
	}{
		{"sesame", k.acme, [3]string{"basic/legacy:bob", "basic/legacy:bob", "basic/legacy:bob"}},
		{"sesame", k.orbit, [3]string{"basic/legacy:bob", ProofsDiffer, "basic/legacy:bob"}},
		{"sesame", "", [3]string{"basic/legacy:bob", NoCredential, NoCredential}},
		{"", k.acme, [3]string{"apikey:acme", NoCredential, NoCredential}},
		{"wrong", k.acme, [3]string{BasicUnknown, BasicUnknown, BasicUnknown}},
		{"sesame", apikey.New(), [3]string{APIKeyUnknown, APIKeyUnknown, APIKeyUnknown}},
		{"", "", [3]string{NoCredential, NoCredential, NoCredential}},
	} {
		h := fields()
		if c.password != "" {
			h.Fields.Add("authorization", basic("bob", c.password))
		}
		if c.key != "" {
			h.Fields.Add("x-api-key", c.key)
		}
		for i, chain := range chains {
			if got := k.outcome(chain, client, h); got != c.want[i] {
				t.Errorf("password %q, key %.6q, chain %d: got %s, want %s", c.password, c.key, i, got, c.want[i])
			}
		}
	}
}

// FuzzBasic checks that a value of Authorization proves bob only if it is his name and password.
func FuzzBasic(f *testing.F) {
	c := authtest.NewClock()
	p, err := passwordsOf(f, c, "bob:"+hashOf(f, "sesame")+"\n")
	if err != nil {
		f.Fatal(err)
	}
	a := activeAuth(f, NewMemory(MemoryOptions{Now: c.Now}), Config{Passwords: map[string]*Passwords{"legacy": p}})
	chain, err := a.Route(Demand{Callers: []string{"basic/legacy"}})
	if err != nil {
		f.Fatal(err)
	}
	for _, value := range []string{basic("bob", "sesame"), "basic  " + basic("bob", "sesame")[6:], basic("bob", "sesame\x00"), basic("bob", ""), "Basic", "Basic =", basic("bob:sesame", "x")} {
		f.Add(value)
	}
	f.Fuzz(func(t *testing.T, value string) {
		a.memory.passwords.budget = newBudget(passwordBudget())
		proof, err := chain.Authenticate(t.Context(), from(client, fields("authorization", value)))
		scheme, raw, _ := strings.Cut(value, " ")
		text, _ := base64.StdEncoding.DecodeString(strings.TrimLeft(raw, " "))
		right := strings.EqualFold(scheme, "Basic") && string(text) == "bob:sesame"
		if err == nil && (!right || proof.Caller.String() != "basic/legacy:bob") {
			t.Errorf("%q proves %s", value, proof.Caller.String())
		}
	})
}
