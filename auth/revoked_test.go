package auth

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"sallyport/auth/apikey"
	"sallyport/auth/identity"
	"sallyport/proxy/message"
	"sallyport/proxy/setting"
)

// revocations reads a file with this text.
func revocations(t testing.TB, text string) (*Revocations, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "revoked.txt")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return ReadRevocations(setting.Path(file))
}

func TestRevocationsMatchWhatTheyName(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(int64(1_800_000_000+s), 0) }
	alice := identity.Principal{Source: "issuer/corp", Name: "alice", ID: "token-1", KeyID: "kid-1", IssuedAt: at(0)}
	bob := identity.Principal{Source: "issuer/corp", Name: "bob", ID: "token-2", KeyID: "kid-2", IssuedAt: at(0)}
	bare := identity.Principal{Source: "issuer/corp", Name: "alice"}
	key := identity.Principal{Source: "apikey", Name: "lab", KeyID: "notebook:9f86d081"}
	signer := identity.Principal{Source: "key", Name: "acme", KeyID: "acme-1"}
	cert := identity.Principal{Source: "cert", Name: "spiffe://lab/batch", KeyID: "sha256:" + strings.Repeat("ab", 32), ID: "1f2a CN=Lab CA,O=Lab"}
	zero := identity.Principal{Source: "cert", Name: "CN=zero", ID: "0 CN=Lab CA,O=Lab"}
	basic := identity.Principal{Source: "basic/legacy", Name: "bob"}
	spaced, numbered := identity.Principal{Source: "issuer/corp", Name: "Alice # Smith"}, identity.Principal{Source: "issuer/corp", Name: "alice#1"}
	for _, c := range []struct {
		line string
		who  identity.Principal
		want bool
	}{
		{"principal issuer/corp:alice before " + at(1).UTC().Format(time.RFC3339), alice, true},
		{"principal issuer/corp:alice before " + at(0).UTC().Format(time.RFC3339), alice, false},
		{"principal issuer/corp:alice before " + at(0).UTC().Format(time.RFC3339), bare, true},
		{"principal issuer/corp:alice", alice, true},
		{"principal issuer/corp:alice", bob, false},
		{"principal issuer/corp:alic", alice, false},
		{"jti issuer/corp token-1 until 2020-01-01", alice, true}, // until only says when the line may go
		{"jti issuer/corp token-1", bob, false},
		{"jti issuer/other token-1", alice, false},
		{`jti issuer/corp "token-1"`, alice, true},
		{"key issuer/corp kid-1", alice, true},
		{"key issuer/corp kid-1", bob, false},
		{"key kid-1", alice, false},
		{"key acme-1", signer, true},
		{"key acme", signer, false},
		{"apikey notebook", key, true},
		{"apikey notebook:9f86d081", key, true},
		{"apikey notebook:11111111", key, false},
		{"apikey lab", key, false},
		{"principal apikey:lab before 2020-01-01", key, true},
		{"certificate sha256:" + strings.Repeat("AB:", 31) + "AB", cert, true},
		{"certificate sha256:" + strings.Repeat("ac", 32), cert, false},
		{"certificate 00:1F:2A CN=Lab CA,O=Lab", cert, true},
		{"certificate 1f2a CN=Other CA", cert, false},
		{"certificate 00:00 CN=Lab CA,O=Lab", zero, true},
		{"certificate 00 1f2a CN=Lab CA,O=Lab", cert, false}, // the serial number is zero, and the rest an issuer
		{"principal basic/legacy:bob", basic, true},
		{`principal "issuer/corp:Alice # Smith" before 2099-01-01`, spaced, true},
		{"principal issuer/corp:alice#1", numbered, true},
	} {
		all, err := revocations(t, "# revoked\n\n"+c.line+"\n")
		if err != nil {
			t.Errorf("%s: %v", c.line, err)
			continue
		}
		e := all.refusal(&c.who)
		if got := e != nil; got != c.want {
			t.Errorf("%s: %s is revoked: %v, want %v", c.line, c.who.String(), got, c.want)
		}
		if e != nil && (e.Reason != CredentialRevoked || e.Status() != 401 || !strings.Contains(e.Error(), "(line 3 of revoked)")) {
			t.Errorf("%s: got %v", c.line, e)
		}
	}
}

// TestFilesOfWindowsAreRead: with a byte order mark and carriage returns.
func TestFilesOfWindowsAreRead(t *testing.T) {
	for _, text := range []string{"\ufeffkey a\r\nkey b\r\n", "\ufeff# revoked\r\n\r\nkey b", "key b\r\n"} {
		all, err := revocations(t, text)
		if err != nil || all.refusal(&identity.Principal{Source: "key", Name: "b", KeyID: "b"}) == nil {
			t.Errorf("%q: %v", text, err)
		}
	}
	if _, err := revocations(t, "key a\n\ufeffkey b\n"); err == nil {
		t.Error("a byte order mark inside the file is taken")
	}
}

// TestRevocationsOfOnePrincipalAdd checks that no line lifts another.
func TestRevocationsOfOnePrincipalAdd(t *testing.T) {
	who := identity.Principal{Source: "issuer/corp", Name: "alice", IssuedAt: time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)}
	line := func(before string) string { return "principal issuer/corp:alice before " + before + "\n" }
	for _, text := range []string{line("2026-01-01") + line("2027-01-01"), line("2027-01-01") + line("2026-01-01"), "principal issuer/corp:alice\n" + line("2026-01-01"), line("2026-01-01") + "principal issuer/corp:alice\n"} {
		if all, err := revocations(t, text); err != nil || all.refusal(&who) == nil {
			t.Errorf("%q revokes nothing, %v", text, err)
		}
	}
}

func TestFaultsOfRevocationsNameTheirLine(t *testing.T) {
	secret := apikey.New()
	for line, want := range map[string]string{
		"principal":                            "want principal",
		"user issuer/corp:alice":               `unknown kind "user"; want principal`,
		"user alice smith":                     `unknown kind "user"; want principal`,
		"principle issuer/corp:alice":          `unknown kind "principle"; did you mean principal?`,
		secret + " x":                          "unknown kind of unusual form; want principal",
		"principal alice":                      "qualified name",
		"principal issuer:alice":               "qualified name",
		"principal issuer/corp:":               "qualified name",
		"principal issuer/corp:a before today": "before: not a time",
		"principal key:a before 2026-01-01 before 2027-01-01": "twice",
		"jti 8f14e45f":                                  "unique only at its issuer",
		"jti corp 8f14e45f":                             "unique only at its issuer",
		"jti issuer/corp x before 2026-01-01":           "before belongs to a principal",
		"principal issuer/corp:alice # gone":            "a comment has a line of its own",
		"principal issuer/corp:alice BEFORE 2026-01-01": "options are before TIME and until TIME",
		"principal issuer/corp:alice befor 2026-01-01":  "options are before TIME and until TIME",
		"principal issuer/corp:alice before":            "options are before TIME and until TIME",
		"principal issuer/corp:al\u200bice":             "invisible characters",
		"principal issuer/corp:alice\tbob":              "white space",
		"jti issuer/corp x # stolen":                    "a comment has a line of its own",
		"key issuer/corp x y":                           "white space",
		"apikey notebook lab":                           "white space",
		"certificate 1f2a CN=Lab CA # stolen":           "a comment has a line of its own",
		`jti issuer/corp "x`:                            "quoted name does not end",
		`jti issuer/corp "x" y`:                         "quoted name does not end",
		"certificate CN=Lab CA":                         "the serial number in hexadecimal",
		"certificate : 1f2a CN=Lab CA":                  "the serial number in hexadecimal",
		"certificate 1f2a":                              "the serial number in hexadecimal",
		"certificate sha256:abcd":                       "the serial number in hexadecimal",
		"apikey " + secret:                              "in the clear",
	} {
		_, err := revocations(t, "#\n"+line+"\n")
		var fault *LineError
		if !errors.As(err, &fault) || fault.Line != 2 || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", line, err, want)
		}
		if err != nil && strings.Contains(err.Error(), secret) {
			t.Errorf("%v repeats a key", err)
		}
	}
	if _, err := revocations(t, strings.Repeat("x", 1<<20)); err == nil {
		t.Error("an endless line was read")
	}
	if _, err := ReadRevocations("/nowhere/revoked.txt"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
	open := filepath.Join(t.TempDir(), "revoked.txt")
	_ = os.WriteFile(open, []byte("key a\n"), 0o600)
	_ = os.Chmod(open, 0o666)
	if _, err := ReadRevocations(setting.Path(open)); err == nil {
		t.Error("a file that everybody can write was read")
	}
}

// FuzzRevocations checks that printing what was read gives what reads the same.
func FuzzRevocations(f *testing.F) {
	for _, line := range []string{
		"principal issuer/corp:alice before 2026-01-01 until 2027-01-01T00:00:00Z", `jti issuer/corp "a until 2026-01-01"`, "key issuer/corp kid", "key a",
		"apikey a:01", "certificate 1F:2A CN=x y", "certificate 0 0 0", "certificate sha256:" + strings.Repeat("0A:", 31) + "0A", `principal issuer/corp:" x "`, `jti issuer/x " "`,
	} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		first, err := ParseRevocation(line)
		if err != nil {
			return
		}
		again, err := ParseRevocation(first.String())
		if err != nil || again.String() != first.String() || again.ID != first.ID || again.Source != first.Source || !again.Before.Equal(first.Before.Time) || !again.Until.Equal(first.Until.Time) {
			t.Errorf("%q became %q: %+v, %v", line, first.String(), again, err)
		}
	})
}

// TestManyRevocationsAreBounded loads 100,000 lines. It fails by memory, and logs the time.
func TestManyRevocationsAreBounded(t *testing.T) {
	var text strings.Builder
	for i := range 100_000 {
		fmt.Fprintf(&text, "jti issuer/corp 8f14e45f-ceea-467f-a8d5-%012x until 2027-01-01\n", i)
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	begin := time.Now()
	all, err := revocations(t, text.String())
	t.Logf("100,000 revocations in %s", time.Since(begin))
	if err != nil {
		t.Fatal(err)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if used := int64(after.HeapAlloc) - int64(before.HeapAlloc); used > 32<<20 {
		t.Errorf("%d bytes for 100,000 revocations, want at most 32 MiB", used)
	}
	if e := all.refusal(&identity.Principal{Source: "issuer/corp", Name: "alice", ID: "8f14e45f-ceea-467f-a8d5-00000001869f"}); e == nil {
		t.Error("the last line revokes nothing")
	}
}

// TestRevocationIsCheckedForEachCredential revokes one of two credentials: a good one of another
// caller excuses nothing, and a cached token counts no longer.
func TestRevocationIsCheckedForEachCredential(t *testing.T) {
	k := newKeyring(t)
	token, both := fields("authorization", "Bearer "+k.token()), fields("authorization", "Bearer "+k.token(), "x-api-key", k.acme)
	if got := k.outcome(k.chain("issuer/corp", "apikey"), client, both); got != "issuer/corp:alice" {
		t.Fatal(got)
	}
	for line, want := range map[string][2]string{
		"apikey acme":                   {"issuer/corp:alice", CredentialRevoked},
		"principal issuer/corp:alice":   {CredentialRevoked, CredentialRevoked},
		"principal issuer/corp:mallory": {"issuer/corp:alice", "issuer/corp:alice"},
	} {
		all, err := revocations(t, line+"\n")
		if err != nil {
			t.Fatal(err)
		}
		k.auth.Revoke(all)
		c := k.chain("issuer/corp", "apikey")
		for i, h := range []*message.Head{token, both} {
			if got := k.outcome(c, client, h); got != want[i] {
				t.Errorf("%s: got %s, want %s", line, got, want[i])
			}
		}
		proof, err := c.Recheck(t.Context(), from(client, token), Proof{Caller: identity.Principal{Source: "issuer/corp", Name: "alice"}})
		if got := reason(t, err); (got == "") != (want[0] != CredentialRevoked) || err != nil && !proof.Caller.IsZero() {
			t.Errorf("%s: recheck got %q", line, got)
		}
	}
}

// TestRevocationCountsForOpaqueTokens revokes tokens whose answers are in memory. The issuer is not
// asked again.
func TestRevocationCountsForOpaqueTokens(t *testing.T) {
	o := newOpaque(t, nil)
	token, other := o.know("opaque-1", map[string]any{"jti": "j-1"}), o.know("opaque-2", map[string]any{"jti": "j-2", "sub": "bob"})
	want(t, o.chain, token, "")
	want(t, o.chain, other, "")
	for line, why := range map[string]string{
		"jti issuer/corp j-1":                           CredentialRevoked,
		"jti issuer/corp j-3":                           "",
		"principal issuer/corp:alice":                   CredentialRevoked,
		"principal issuer/corp:alice before 2020-01-01": "",
	} {
		all, err := revocations(t, line+"\n")
		if err != nil {
			t.Fatal(err)
		}
		o.auth.Revoke(all)
		chain, err := o.auth.Route(Demand{Callers: []string{"issuer/corp"}})
		if err != nil {
			t.Fatal(err)
		}
		want(t, chain, token, why)
		want(t, chain, other, "")
	}
	o.asked(t, 2)
}
