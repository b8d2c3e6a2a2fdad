package auth

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"sallyport/auth/apikey"
	"sallyport/auth/authtest"
	"sallyport/proxy/message"
	"sallyport/proxy/setting"
)

// keyring is an Auth with an issuer, corp, and two API keys: acme has two secrets, orbit
// expires in an hour.
type keyring struct {
	t                *testing.T
	clock            *authtest.Clock
	provider         *provider
	signer           authtest.Key
	auth             *Auth
	old, acme, orbit string
}

func newKeyring(t *testing.T) *keyring {
	k := &keyring{t: t, clock: authtest.NewClock(), signer: authtest.NewKey("ed", "EdDSA", authtest.Ed25519()), old: apikey.New(), acme: apikey.New(), orbit: apikey.New()}
	k.provider = newProvider(t, k.signer.JWK())
	k.auth = k.load(k.config())
	return k
}

func (k *keyring) config() map[string]APIKeyConfig {
	return map[string]APIKeyConfig{
		"acme":  {Hash: setting.List[string]{apikey.HashText(k.old), apikey.HashText(k.acme)}, Groups: setting.List[string]{"partners"}},
		"orbit": {Hash: setting.List[string]{apikey.HashText(k.orbit)}, Principal: "probe", NotAfter: setting.Time{Time: k.clock.Now().Add(time.Hour)}},
	}
}

func (k *keyring) load(all map[string]APIKeyConfig) *Auth {
	k.t.Helper()
	table, err := ReadAPIKeys(all, "")
	if err != nil {
		k.t.Fatal(err)
	}
	return activeAuth(k.t, NewMemory(MemoryOptions{Now: k.clock.Now}), Config{
		Issuers: map[string]IssuerConfig{"corp": k.provider.config()}, APIKeys: table,
	})
}

func (k *keyring) chain(callers ...string) *Chain {
	k.t.Helper()
	c, err := k.auth.Route(Demand{Callers: callers})
	if err != nil {
		k.t.Fatal(err)
	}
	return c
}

func (k *keyring) token() string {
	return k.signer.Token(k.provider.claims(k.clock.Now(), nil))
}

// fields is a request with these pairs of name and value.
func fields(pairs ...string) *message.Head {
	h := &message.Head{Method: "POST", Path: "/predict"}
	for i := 0; i < len(pairs); i += 2 {
		h.Fields.Add(pairs[i], pairs[i+1])
	}
	return h
}

func basic(user, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

// outcome returns the caller of a request, or the reason of the refusal. No error may
// repeat a key.
func (k *keyring) outcome(c *Chain, peer netip.Addr, h *message.Head) string {
	k.t.Helper()
	proof, err := c.Authenticate(context.Background(), from(peer, h))
	if err == nil {
		return proof.Caller.String()
	}
	for _, text := range []string{err.Error(), challenge(c, "models.test", err)} {
		if strings.Contains(text, apikey.Prefix) {
			k.t.Errorf("%q repeats a key", text)
		}
	}
	return reason(k.t, err)
}

// changed returns a key with another digit at a place.
func changed(key string, at int) string {
	digit := "a"
	if key[at] == 'a' {
		digit = "b"
	}
	return key[:at] + digit + key[at+1:]
}

func TestAPIKeyProvesItsPrincipal(t *testing.T) {
	k := newKeyring(t)
	c := k.chain("apikey")
	for name, h := range map[string]*message.Head{
		"Bearer":         fields("authorization", "Bearer "+k.acme),
		"bearer, spaces": fields("authorization", "bEARER   "+k.acme),
		"X-Api-Key":      fields("x-api-key", k.acme),
		"Api-Key":        fields("api-key", k.acme),
		"Basic":          fields("authorization", basic("", k.acme)),
		"Basic, a user":  fields("authorization", basic("anyone", k.acme)),
		"the old secret": fields("authorization", "Bearer "+k.old),
	} {
		if got := k.outcome(c, client, h); got != "apikey:acme" {
			t.Errorf("%s: got %s", name, got)
		}
	}
	proof, err := c.Authenticate(t.Context(), from(client, fields("api-key", k.orbit)))
	if err != nil || proof.Caller.String() != "apikey:probe" || !proof.Caller.Expires.Equal(k.clock.Now().Add(time.Hour)) || proof.Caller.Kind() != "apikey" {
		t.Errorf("got %+v, %v", proof, err)
	}
	proof, _ = c.Authenticate(t.Context(), from(client, fields("api-key", k.acme)))
	if want := "acme:" + apikey.HashText(k.acme)[7:15]; proof.Caller.KeyID != want || len(proof.Caller.Groups) != 1 {
		t.Errorf("key id %s, groups %v; want %s and partners", proof.Caller.KeyID, proof.Caller.Groups, want)
	}
}

func TestBadAPIKeysAreRefused(t *testing.T) {
	k := newKeyring(t)
	long := apikey.Prefix + strings.Repeat("x", 60<<10)
	query := fields()
	query.Query = "api_key=" + k.acme + "&x-api-key=" + k.acme
	beside := fields("authorization", "Bearer "+k.acme)
	beside.Query = "access_token=x"
	for _, c := range []struct {
		name, want string
		head       *message.Head
	}{
		{"nothing", NoCredential, fields()},
		{"a changed digit", APIKeyUnknown, fields("authorization", "Bearer "+changed(k.acme, 20))},
		{"a changed checksum", APIKeyUnknown, fields("x-api-key", changed(k.acme, len(k.acme)-1))},
		{"a right checksum", APIKeyUnknown, fields("authorization", "Bearer "+apikey.New())},
		{"cut off", APIKeyUnknown, fields("authorization", "Bearer "+k.acme[:30])},
		{"longer", APIKeyUnknown, fields("authorization", "Bearer "+k.acme+"A")},
		{"a space after it", APIKeyUnknown, fields("authorization", "Bearer "+k.acme+" ")},
		{"two in one", APIKeyUnknown, fields("x-api-key", k.acme+", "+k.acme)},
		{"very long", APIKeyUnknown, fields("authorization", "Bearer "+long)},
		{"very long, X-Api-Key", APIKeyUnknown, fields("x-api-key", long)},
		{"very long, Basic", APIKeyUnknown, fields("authorization", basic("u", long))},
		{"its hash", APIKeyUnknown, fields("x-api-key", apikey.HashText(k.acme))},
		{"empty", APIKeyUnknown, fields("x-api-key", "")},
		{"another form", APIKeyUnknown, fields("api-key", "hunter2")},
		{"of another caller", APIKeyUnknown, fields("x-api-key", k.orbit)},
		{"other letters", UnlistedCredential, fields("authorization", "Bearer "+strings.ToUpper(k.acme))},
		{"a token", UnlistedCredential, fields("authorization", "Bearer "+k.token())},
		{"another scheme", UnlistedCredential, fields("authorization", "ApiKey "+k.acme)},
		{"no scheme", UnlistedCredential, fields("authorization", k.acme)},
		{"Basic without a colon", APIKeyUnknown, fields("authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(k.acme)))},
		{"Basic, the key as user", APIKeyUnknown, fields("authorization", basic(k.acme, ""))},
		{"Basic, a colon in the password", APIKeyUnknown, fields("authorization", basic("u", k.acme+":"))},
		{"Basic, a colon before it", UnlistedCredential, fields("authorization", basic("u", ":"+k.acme))},
		{"Basic, not base64", UnlistedCredential, fields("authorization", "Basic "+k.acme)},
		{"in the query", NoCredential, query},
		{"in a cookie", NoCredential, fields("cookie", "api_key="+k.acme+"; x-api-key="+k.acme)},
		{"beside a token in the query", BadCredential, beside},
		{"the same in two fields", BadCredential, fields("authorization", "Bearer "+k.acme, "x-api-key", k.acme)},
		{"a bad one behind a good one", BadCredential, fields("x-api-key", k.acme, "api-key", apikey.New())},
		{"X-Api-Key twice", BadCredential, fields("x-api-key", k.acme, "x-api-key", k.acme)},
		{"Authorization twice", BadCredential, fields("authorization", "Bearer "+k.acme, "authorization", "Bearer "+k.acme)},
	} {
		if got := k.outcome(k.chain("apikey/acme"), client, c.head); got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
	}
	k.clock.Add(time.Hour)
	if got := k.outcome(k.chain("apikey"), client, fields("x-api-key", k.orbit)); got != APIKeyExpired {
		t.Errorf("after not_after: got %s", got)
	}
}

// TestHashOfZeroesIsNoMasterKey checks that a text without a hash finds no entry.
func TestHashOfZeroesIsNoMasterKey(t *testing.T) {
	k := newKeyring(t)
	k.auth = k.load(map[string]APIKeyConfig{"zero": {Hash: setting.List[string]{"sha256:" + strings.Repeat("0", 64)}}})
	for _, key := range []string{"sp_", "x", changed(k.acme, 20)} {
		if got := k.outcome(k.chain("apikey"), client, fields("x-api-key", key)); got != APIKeyUnknown {
			t.Errorf("got %s", got)
		}
	}
}

// TestAPIKeyNeverReachesAnIssuer sends keys to routes that list an issuer. The key is no
// token there, whatever form it has.
func TestAPIKeyNeverReachesAnIssuer(t *testing.T) {
	k := newKeyring(t)
	asked := k.provider.config()
	asked.Introspection = &IntrospectionConfig{ClientID: "gateway", ClientSecret: setting.Literal([]byte("secret"))}
	k.auth = activeAuth(t, k.auth.memory, Config{Issuers: map[string]IssuerConfig{"corp": asked}, APIKeys: k.auth.apiKeys})
	only, both := k.chain("issuer/corp"), k.chain("issuer/corp", "apikey")
	defer func() {
		if n := k.provider.LookUps(); n != 0 {
			t.Errorf("the issuer was asked about %d tokens, the last %q", n, k.provider.LastLookUp().Form)
		}
	}()
	for _, key := range []string{k.acme, apikey.New(), changed(k.acme, 20), "sp_a.b.c"} {
		if got := k.outcome(only, client, head("Bearer "+key)); got != UnlistedCredential {
			t.Errorf("issuer alone: got %s", got)
		}
	}
	if got := k.outcome(both, client, head("Bearer sp_a.b.c")); got != APIKeyUnknown {
		t.Errorf("got %s", got)
	}
	for want, h := range map[string]*message.Head{
		"apikey:acme":       head("Bearer " + k.acme),
		"issuer/corp:alice": head("Bearer " + k.token()),
		APIKeyUnknown:       fields("authorization", "Bearer "+k.token(), "x-api-key", apikey.New()), // a good token excuses no bad key
		BadCredential:       fields("authorization", "Bearer x.y.z|", "x-api-key", k.acme),
	} {
		if got := k.outcome(both, client, h); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if got := k.outcome(both, client, fields("authorization", "Bearer "+k.token(), "x-api-key", k.acme)); got != "issuer/corp:alice" {
		t.Errorf("both: got %s, want the first that the route lists", got)
	}
}

// TestUnknownAPIKeysLockNobodyOut floods from the victim's own address. The forger is
// stopped; the victim's key and cached token count on, and other addresses feel nothing.
func TestUnknownAPIKeysLockNobodyOut(t *testing.T) {
	k := newKeyring(t)
	c := k.chain("issuer/corp", "apikey")
	token := fields("authorization", "Bearer "+k.token())
	if got := k.outcome(c, client, token); got != "issuer/corp:alice" {
		t.Fatal(got)
	}
	last := ""
	for range 300 {
		last = k.outcome(c, client, fields("x-api-key", apikey.New()))
		if got := k.outcome(c, client, fields("x-api-key", k.acme)); got != "apikey:acme" {
			t.Fatalf("the victim got %s", got)
		}
	}
	if last != TooManyFailures {
		t.Errorf("the forger got %s at last", last)
	}
	if got := k.outcome(c, client, token); got != "issuer/corp:alice" {
		t.Errorf("the cached token got %s", got)
	}
	if got := k.outcome(c, netip.MustParseAddr("198.51.100.1"), fields("x-api-key", apikey.New())); got != APIKeyUnknown {
		t.Errorf("another address got %s", got)
	}
}

// TestRecheckOfAPIKeys checks requests in flight against later configurations.
func TestRecheckOfAPIKeys(t *testing.T) {
	k := newKeyring(t)
	h := fields("x-api-key", k.acme)
	proof := accepted(t, k.chain("apikey"), h)
	for name, c := range map[string]struct {
		change func(map[string]APIKeyConfig)
		want   string
	}{
		"nothing":       {func(map[string]APIKeyConfig) {}, "apikey:acme"},
		"old secret":    {func(m map[string]APIKeyConfig) { m["acme"] = APIKeyConfig{Hash: m["acme"].Hash[1:]} }, "apikey:acme"},
		"this secret":   {func(m map[string]APIKeyConfig) { m["acme"] = APIKeyConfig{Hash: m["acme"].Hash[:1]} }, APIKeyUnknown},
		"the key":       {func(m map[string]APIKeyConfig) { delete(m, "acme") }, APIKeyUnknown},
		"its principal": {func(m map[string]APIKeyConfig) { m["acme"] = APIKeyConfig{Hash: m["acme"].Hash, Principal: "x"} }, BadCredential},
		"its time": {func(m map[string]APIKeyConfig) {
			m["acme"] = APIKeyConfig{Hash: m["acme"].Hash, NotAfter: setting.Time{Time: k.clock.Now()}}
		}, APIKeyExpired},
	} {
		all := k.config()
		c.change(all)
		k.auth = k.load(all)
		if got := recheck(t, k.chain("apikey"), h, proof); got != c.want {
			t.Errorf("%s: got %s, want %s", name, got, c.want)
		}
	}
}

func TestAPIKeysAskForBearerOnce(t *testing.T) {
	k := newKeyring(t)
	c := k.chain("issuer/corp", "apikey")
	for _, e := range []struct{ reason, want string }{
		{NoCredential, `Bearer realm="models.test"`},
		{APIKeyUnknown, `Bearer realm="models.test", error="invalid_token", error_description="the API key is not valid"`},
	} {
		if got := challenge(c, "models.test", &Error{Reason: e.reason}); got != e.want {
			t.Errorf("%s: got %s", e.reason, got)
		}
	}
}

func TestAPIKeyFile(t *testing.T) {
	k := newKeyring(t)
	file := filepath.Join(t.TempDir(), "keys")
	read := func(text string) (*APIKeys, error) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return ReadAPIKeys(map[string]APIKeyConfig{"orbit": k.config()["orbit"]}, setting.Path(file))
	}
	table, err := read("# users\n\nacme " + apikey.HashText(k.old) + " " + apikey.HashText(k.acme) + " groups=a,b principal=corp not_after=2030-01-01 rate=10/s burst=20 in_flight=4\n")
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(table.Principals(), " "); got != "corp probe" {
		t.Errorf("got %s", got)
	}
	hash, _ := apikey.Hash(k.acme)
	if e := table.byHash[hash]; len(e.principal.Groups) != 2 || e.principal.Expires.Year() != 2030 || e.limited != "acme" {
		t.Errorf("got %+v", e)
	}
	if want := (APIKeyLimits{APIKeyRate{setting.Rate{N: 10, Per: time.Second}, 20}, 4}); table.Limits()["acme"] != want || len(table.Limits()) != 1 {
		t.Errorf("limits %+v", table.Limits())
	}
	for line, want := range map[string]string{
		"acme " + k.acme:                       "in the clear",
		k.acme + " " + apikey.HashText(k.acme): "in the clear",
		"acme":                                 "no hash",
		"acme md5:0123":                        "want NAME",
		"acme sha256:0123":                     "64 hexadecimal",
		"acme " + strings.ToUpper(apikey.HashText(k.acme)):       "want NAME",
		"acme " + apikey.HashText(k.orbit):                       "same hash",
		"orbit " + apikey.HashText(k.acme):                       "twice",
		"acme " + apikey.HashText(k.acme) + " not_after=ever":    "not a time",
		"a:b " + apikey.HashText(k.acme):                         "not a name",
		"acme " + apikey.HashText(k.acme) + " scopes=everything": "want NAME",
		"acme " + apikey.HashText(k.acme) + "@soon":              "not a time behind the @",
		"acme " + apikey.HashText(k.acme) + " rate=fast":         "not a rate",
		"acme " + apikey.HashText(k.acme) + " burst=5":           "rate.limit: missing",
		"acme " + apikey.HashText(k.acme) + " in_flight=0":       "in_flight= wants a number",
	} {
		_, err := read("#\n" + line + "\n")
		var fault *APIKeyError
		if !errors.As(err, &fault) || fault.Line != 2 || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
		if err != nil && (strings.Contains(err.Error(), k.acme) || strings.Contains(err.Error(), apikey.HashText(k.acme)[7:])) {
			t.Errorf("%v repeats a key or its hash", err)
		}
	}
	if _, err := read(strings.Repeat("x", 1<<20)); err == nil {
		t.Error("an endless line was read")
	}
	_, _ = read("")
	if err := os.Chmod(file, 0o622); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{file, filepath.Dir(file), file + ".missing"} {
		if _, err := ReadAPIKeys(nil, setting.Path(name)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestSecretsOfAKeyEndByThemselves gives the old secret an end of its own, in either form.
func TestSecretsOfAKeyEndByThemselves(t *testing.T) {
	k := newKeyring(t)
	end := k.clock.Now().Add(time.Hour)
	hashes := setting.List[string]{apikey.HashText(k.old) + "@" + end.UTC().Format(time.RFC3339), apikey.HashText(k.acme)}
	file := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(file, []byte("acme "+strings.Join(hashes, " ")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	inline, err := ReadAPIKeys(map[string]APIKeyConfig{"acme": {Hash: hashes}}, "")
	if err != nil {
		t.Fatal(err)
	}
	listed, err := ReadAPIKeys(nil, setting.Path(file))
	if err != nil {
		t.Fatal(err)
	}
	start := k.clock.Now()
	for name, table := range map[string]*APIKeys{"inline": inline, "in the file": listed} {
		k.clock.Add(start.Sub(k.clock.Now()))
		k.auth = activeAuth(t, NewMemory(MemoryOptions{Now: k.clock.Now}), Config{APIKeys: table})
		c := k.chain("apikey")
		if proof := accepted(t, c, fields("x-api-key", k.old)); !proof.Caller.Expires.Equal(end) {
			t.Errorf("%s: expires at %s, want %s", name, proof.Caller.Expires, end)
		}
		k.clock.Add(time.Hour)
		if got := k.outcome(c, client, fields("x-api-key", k.old)); got != APIKeyExpired {
			t.Errorf("%s: the old secret got %s", name, got)
		}
		if got := k.outcome(c, client, fields("x-api-key", k.acme)); got != "apikey:acme" {
			t.Errorf("%s: the new secret got %s", name, got)
		}
	}
	// The key's own end comes first where it is earlier.
	both := APIKeyConfig{Hash: hashes, NotAfter: setting.Time{Time: end.Add(-time.Minute)}}
	for i, at := range both.Ends() {
		if !at.Equal(end.Add(-time.Minute)) {
			t.Errorf("secret %d ends at %s", i, at)
		}
	}
}

// TestEndsOfAPIKeyFileAreSummedUp asks for the next end among many.
func TestEndsOfAPIKeyFileAreSummedUp(t *testing.T) {
	day := func(d int) time.Time { return time.Date(2027, 1, d, 0, 0, 0, 0, time.UTC) }
	var text strings.Builder
	for _, key := range []struct {
		name string
		end  string
	}{{"ended", "2026-01-01"}, {"b", "2027-01-09"}, {"a", "2027-01-05"}, {"c", "2027-03-09"}, {"never", ""}} {
		hash := apikey.HashText(apikey.New())
		if text.WriteString(key.name + " " + hash); key.end != "" {
			text.WriteString(" not_after=" + key.end)
		}
		text.WriteString("\n")
	}
	file := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(file, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	keys, err := ReadAPIKeys(nil, setting.Path(file))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		now   time.Time
		name  string
		at    time.Time
		count int
	}{{day(1), "a", day(5), 2}, {day(5), "b", day(9), 1}, {day(10), "c", time.Date(2027, 3, 9, 0, 0, 0, 0, time.UTC), 1}, {day(100), "", time.Time{}, 0}} {
		name, at, count, ok := keys.FileEnd(c.now, 30*24*time.Hour)
		if name != c.name || !at.Equal(c.at) || count != c.count || ok != (c.name != "") {
			t.Errorf("at %s: got %s %s %d %t", c.now, name, at, count, ok)
		}
	}
}

// TestManyAPIKeysAreBounded loads files of keys. It fails by memory, and logs the time.
func TestManyAPIKeysAreBounded(t *testing.T) {
	for _, n := range []int{1000, 100_000} {
		var text strings.Builder
		for i := range n {
			fmt.Fprintf(&text, "user-%d sha256:%064x groups=ml-team not_after=2027-06-30\n", i, i)
		}
		file := filepath.Join(t.TempDir(), "keys")
		if err := os.WriteFile(file, []byte(text.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		begin := time.Now()
		keys, err := ReadAPIKeys(nil, setting.Path(file))
		took := time.Since(begin)
		if err != nil {
			t.Fatal(err)
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		used := int64(after.HeapAlloc) - int64(before.HeapAlloc)
		t.Logf("%d keys: %s, %d bytes each", n, took, used/int64(n))
		if most := int64(n) << 10; used > most {
			t.Errorf("%d keys use %d bytes, want at most %d", n, used, most)
		}
		runtime.KeepAlive(keys)
	}
}

// TestOwnLimitsCountBesideAnotherCredential names the key whose limits count, also where another
// credential names the caller.
func TestOwnLimitsCountBesideAnotherCredential(t *testing.T) {
	k := newKeyring(t)
	all := k.config()
	acme := all["acme"]
	acme.InFlight = 1
	all["acme"] = acme
	k.auth = k.load(all)
	c, err := k.auth.Route(Demand{Callers: []string{"issuer/corp", "apikey"}, All: true, Independent: true})
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{k.acme: "acme", k.old: "acme", k.orbit: ""} {
		proof := accepted(t, c, fields("authorization", "Bearer "+k.token(), "x-api-key", key))
		if proof.Caller.String() != "issuer/corp:alice" || proof.Limited != want {
			t.Errorf("got %s limited as %q, want %q", proof.Caller.String(), proof.Limited, want)
		}
	}
}
