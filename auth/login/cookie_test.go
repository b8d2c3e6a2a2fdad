package login

import (
	"strings"
	"testing"

	"sallyport/auth/login/endfile"
)

// TestOwnCookiesAreStripped cuts the gateway's cookies and leaves those of apps byte for byte.
func TestOwnCookiesAreStripped(t *testing.T) {
	for field, want := range map[string]string{
		"":                             "",
		"a=1;b=2 ;  c":                 "a=1;b=2 ;  c",
		"a=1; __Host-sallyport=x; b=2": "a=1; b=2",
		"__Host-sallyport=x; a=1":      "a=1",
		"a=1;__Host-sallyport=x":       "a=1",
		"__Host-sallyport=1.x;__Host-sallyport.1=y; __Host-sallyport-login.abcd=z":  "",
		"__Secure-sallyport = x;a=sallyport":                                        "a=sallyport",
		"sallyport=app; __Host-sallyports=app; __host-sallyport=app":                "sallyport=app; __Host-sallyports=app; __host-sallyport=app",
		"a=\"x; __Host-sallyport=y\"; b=2":                                          "a=\"x; b=2",
		"\t__Host-sallyport=x ;  a=1":                                               "a=1",
		"__Host-sallyport; __Host-sallyport.; __Host-sallyport-login.=; a=\"1 2\"":  "a=\"1 2\"",
		"__Host-sallyport-logins=app; a=__Host-sallyport=x; __Secure-sallyport.3=y": "__Host-sallyport-logins=app; a=__Host-sallyport=x",
	} {
		if got := Strip(field); got != want {
			t.Errorf("%q: got %q, want %q", field, got, want)
		}
	}
}

// FuzzCookie reads and opens sessions of hostile Cookie fields, and strips them.
func FuzzCookie(f *testing.F) {
	for _, s := range []string{"a=1", "__Host-sallyport=1.AAAA", "__Host-sallyport=2.AA; __Host-sallyport.1=BB", "__Host-sallyport=1.A;__Host-sallyport=1.B", "__Host-sallyport=9.x", "__Host-sallyport-login.x=y", "__Secure-sallyport.a.b=2.AA; __Secure-sallyport.a.b=1.BB; __Secure-sallyport.a.b.1=C"} {
		f.Add(s)
	}
	l := &Login{keys: keysOf(f, NewKey()), cookie: hostPrefix + sessionName}
	site := &Login{keys: l.keys, cookie: securePrefix + sessionName + ".a.b", domain: ".a.b"}
	f.Fuzz(func(t *testing.T, field string) {
		_, found, err := site.ReadCookie(field)
		several := site.Readings(field)
		if len(several) > maxReadings || found && err == nil && len(several) == 0 {
			t.Errorf("%d readings", len(several))
		}
		for i := range several {
			if _, err := site.unseal(site.domain, &several[i]); err == nil {
				t.Error("a forged session opens")
			}
		}
		if _, found, _ := site.ReadCookie(Strip(field)); found {
			t.Errorf("a session is left in %q", Strip(field))
		}
		c, found, err := l.ReadCookie(field)
		if err != nil && !found {
			t.Error("refused without a cookie")
		}
		if found && err == nil {
			if len(c.Parts()) == 0 || !c.Matches(c.Text(), func(a, b string) bool { return a == b }) || c.Matches(c.Text()+"x", func(a, b string) bool { return a == b }) {
				t.Errorf("%q does not match itself", c.Text())
			}
			if _, err := l.unseal("host", &c); err == nil {
				t.Error("a forged session opens")
			}
		}
		stripped := Strip(field)
		if Strip(stripped) != stripped || len(stripped) > len(field) {
			t.Errorf("%q becomes %q and then %q", field, stripped, Strip(stripped))
		}
		if _, found, _ := l.ReadCookie(stripped); found {
			t.Errorf("%q: a session is left in %q", field, stripped)
		}
		if !strings.Contains(field, sessionName) && stripped != field {
			t.Errorf("%q was changed to %q", field, stripped)
		}
	})
}

// FuzzRecord decodes what only somebody with the key could seal; it must not fail in other ways.
func FuzzRecord(f *testing.F) {
	r := record{claims: "{}", generation: 3, hint: pack("a..b"), expires: 5}
	f.Add(r.encode())
	r.access, r.idFrom, r.idUntil = pack("e30.e30.AA"), 4, 9
	f.Add(r.encode())
	r.memory = true
	f.Add(r.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := decodeRecord(b); err == nil {
			again, err := decodeRecord(r.encode())
			if err != nil || again != r {
				t.Errorf("%+v becomes %+v, %v", r, again, err)
			}
		}
		_, _ = decodeAttempt(b)
	})
}

// TestSplitTextIsReadBack splits sealed texts of all sizes.
func TestSplitTextIsReadBack(t *testing.T) {
	l := &Login{cookie: hostPrefix + sessionName}
	for _, n := range []int{44, 2849, 2850, 2851, 5700, 5701, 11400} {
		values := split(make([]byte, n))
		field := "app=1"
		for i, v := range values {
			field = l.partName(i) + "=" + v + "; " + field // in any order
		}
		c, found, err := l.ReadCookie(field)
		if !found || err != nil {
			t.Fatalf("%d bytes: %v", n, err)
		}
		if b, err := c.sealed(new(unsealing)); err != nil || len(b) != n {
			t.Errorf("%d bytes: got %d, %v", n, len(b), err)
		}
	}
	if split(make([]byte, 11401)) != nil {
		t.Error("more than four cookies")
	}
}

// TestForgottenEndsEndAllOlderSessions overflows the memory of ends: no ended session may return.
func TestForgottenEndsEndAllOlderSessions(t *testing.T) {
	s := &state{live: map[endfile.ID]*live{}}
	first := record{id: sessionID{1}, begun: 100, issued: 100, subject: "alice", issuer: "i"}
	first.ends = endsOf(&first)
	if err := s.end(endfile.Line{ID: first.ends[endfile.Session].ID, At: 150, Until: 1 << 62}); err != nil {
		t.Fatal(err)
	}
	for i := range endfile.MaxEnds {
		r := record{id: sessionID{2, byte(i), byte(i >> 8), byte(i >> 16)}}
		if err := s.end(endfile.Line{ID: endsOf(&r)[endfile.Session].ID, At: 200, Until: 1 << 62}); err != nil {
			t.Fatal(err)
		}
	}
	honest, late := record{id: sessionID{9}, begun: 149}, record{id: sessionID{9}, begun: 151}
	if s.ends.Len() != endfile.MaxEnds || !s.hasEnded(&first) || !s.hasEnded(&honest) || s.hasEnded(&late) {
		t.Errorf("%d ends, %v %v %v", s.ends.Len(), s.hasEnded(&first), s.hasEnded(&honest), s.hasEnded(&late))
	}
	s.forget(201)
	if s.ends.Len() != 0 {
		t.Errorf("%d ends are left", s.ends.Len())
	}
}

// TestForgottenEndOfAClockThatWasSetBack overflows the memory of ends after a session has ended that began,
// by its record, later than the clock says: see state.begin.
func TestForgottenEndOfAClockThatWasSetBack(t *testing.T) {
	s := &state{live: map[endfile.ID]*live{}}
	s.ends.Raise(1000)
	first := record{id: sessionID{1}, begun: s.begin(100), issued: 100, subject: "alice", issuer: "i"}
	first.ends = endsOf(&first)
	for i := range endfile.MaxEnds + 1 {
		r := first
		if i > 0 {
			r = record{id: sessionID{2, byte(i), byte(i >> 8), byte(i >> 16)}}
			r.ends = endsOf(&r)
		}
		if err := s.end(endfile.Line{ID: r.ends[endfile.Session].ID, At: 150, Until: 1 << 62}); err != nil {
			t.Fatal(err)
		}
	}
	if next := (&record{id: sessionID{9}, begun: s.begin(160)}); !s.hasEnded(&first) || s.hasEnded(next) {
		t.Errorf("the session came back: %v; the next one has ended: %v", !s.hasEnded(&first), s.hasEnded(next))
	}
}

// TestSeventyThousandEndsOfAFile takes more ends from a file than are kept.
func TestSeventyThousandEndsOfAFile(t *testing.T) {
	s := &state{live: map[endfile.ID]*live{}}
	const n = 70_000
	var lines []endfile.Line
	ofSession := func(i int) record {
		r := record{id: sessionID{3, byte(i), byte(i >> 8), byte(i >> 16)}, begun: 1000 + int64(i), issued: 1000 + int64(i)}
		r.ends = endsOf(&r)
		return r
	}
	for i := range n {
		r := ofSession(i)
		lines = append(lines, endfile.Line{Kind: endfile.Session, ID: r.ends[endfile.Session].ID, At: r.begun, Until: 1 << 62})
	}
	s.Apply(500, lines)
	for i := range n {
		if r := ofSession(i); !s.hasEnded(&r) {
			t.Fatalf("session %d came back", i)
		}
	}
	if honest := ofSession(n); s.hasEnded(&honest) || s.ends.Len() != endfile.MaxEnds || s.changes.Load() != 1 {
		t.Errorf("%d ends, %d changes", s.ends.Len(), s.changes.Load())
	}
	s.Apply(500, lines[n-100:]) // another process has rewritten the file
	if s.changes.Load() != 1 {
		t.Error("known ends make every session look again")
	}
}

func TestUsedStatesAreBounded(t *testing.T) {
	u := used{until: map[[stateSize]byte]int64{}}
	for i := range 3 * maxUsed {
		if s := ([stateSize]byte{byte(i), byte(i >> 8), byte(i >> 16)}); !u.add(s, 100) || u.add(s, 101) {
			t.Fatalf("state %d", i)
		}
	}
	if len(u.until) != maxUsed || len(u.order) != maxUsed {
		t.Errorf("%d and %d states", len(u.until), len(u.order))
	}
}
