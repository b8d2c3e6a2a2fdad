package login_test

import (
	"crypto/rand"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"sallyport/auth"
	"sallyport/auth/login"
)

const domainCookie = "__Secure-sallyport.models.example"

func ofDomain(d *desk) { d.config.CookieDomain = "models.example" }

// TestOneLoginServesHostsOfDomain signs in at one host and asks at others, from the cookie and from the
// cache.
func TestOneLoginServesHostsOfDomain(t *testing.T) {
	for _, memory := range []bool{false, true} {
		d := newDesk(t, ofDomain, func(d *desk) { d.config.Memory = memory })
		b := d.browser()
		s := b.signIn()
		if len(b.cookies) != 1 || b.cookies[domainCookie] == "" {
			t.Errorf("cookies: %v", slices.Collect(maps.Keys(b.cookies)))
		}
		for range 2 {
			for host, reason := range map[string]string{
				"models.example": "", "a.models.example": "", "b.a.models.example": "", "evilmodels.example": login.BadSession, "example": login.BadSession, "models.example.evil": login.BadSession,
			} {
				_, err := b.at(host)
				wantReason(t, host, err, reason)
			}
		}
		r, err := d.login.End(t.Context(), s, login.Answer{Host: "a.models.example", Origin: "https://a.models.example", Cookie: b.field()})
		wantReason(t, "sign-out", err, "")
		for _, line := range r.Cookies {
			if domain := strings.HasSuffix(line, "; Domain=models.example"); domain != strings.HasPrefix(line, domainCookie) {
				t.Errorf("set at sign-out: %s", line)
			}
		}
		for _, host := range []string{"models.example", "a.models.example"} {
			_, err := b.at(host)
			wantReason(t, "after sign-out, at "+host, err, login.SessionEnded)
		}
	}
}

// TestPlaceOfSessionIsSealed changes the place for which sessions are, and moves cookies to the names that
// would be read then.
func TestPlaceOfSessionIsSealed(t *testing.T) {
	for _, memory := range []bool{false, true} {
		d := newDesk(t, func(d *desk) { d.config.Memory, d.config.Keys = memory, mustKeys(t) })
		domains := []string{"", "models.example", "example"}
		names := map[string]string{"": "__Host-sallyport", "models.example": domainCookie, "example": "__Secure-sallyport.example"}
		for _, from := range domains {
			d.config.CookieDomain = from
			d.reload()
			b := d.browser()
			b.signIn()
			for _, to := range domains {
				d.config.CookieDomain = to
				d.reload()
				moved := &browser{d, map[string]string{names[to]: b.cookies[names[from]]}}
				_, err := b.ask()
				_, movedErr := moved.ask()
				if from == to {
					wantReason(t, "the same place", err, "")
					wantReason(t, "the same place", movedErr, "")
					continue
				}
				wantReason(t, fmt.Sprintf("from %q to %q", from, to), err, auth.NoCredential)
				wantReason(t, fmt.Sprintf("moved from %q to %q", from, to), movedErr, login.BadSession)
			}
			d.config.CookieDomain = from
			d.reload()
			b.serves("issuer/corp:alice")
		}
	}
}

// TestHostSessionGivesWayToDomain finds a session of an earlier configuration at sign-in and sign-out. It
// would serve again if that configuration returned.
func TestHostSessionGivesWayToDomain(t *testing.T) {
	d := newDesk(t)
	for _, leave := range []bool{false, true} {
		d.config.CookieDomain = ""
		d.reload()
		b := d.browser()
		b.signIn()
		b.cookies["__Host-sallyport.1"], b.cookies["__Host-sallyportal"], b.cookies["sallyport"] = "x", "app", "app"
		d.config.CookieDomain = "models.example"
		d.reload()
		if leave {
			b.signOut(nil)
		} else {
			b.signIn()
			b.serves("issuer/corp:alice")
			delete(b.cookies, domainCookie)
		}
		if got := slices.Sorted(maps.Keys(b.cookies)); !slices.Equal(got, []string{"__Host-sallyportal", "sallyport"}) {
			t.Errorf("left are %v", got)
		}
	}
}

// TestTossedCookiesLockNobodyOut adds cookies of the session's names, as any host of the domain can.
func TestTossedCookiesLockNobodyOut(t *testing.T) {
	large := func(d *desk) {
		d.provider.Person("alice", map[string]any{"blob": incompressible(9000)})
	}
	for name, change := range map[string]func(*desk){"one cookie": func(*desk) {}, "several": large, "in memory": func(d *desk) { d.config.Memory = true }} {
		d := newDesk(t, ofDomain, change)
		victim, attacker := d.browser(), d.browser()
		victim.signIn()
		own := victim.field()
		d.provider.Person("mallory", nil)
		left := attacker.signIn()
		ended := attacker.field()
		d.login.End(t.Context(), left, login.Answer{Host: host, Origin: origin})
		attacker.cookies = map[string]string{}
		attacker.signIn()
		first := domainCookie + "="
		for what, x := range map[string]struct{ field, reason string }{
			"made up, before":       {first + "1.AAAA; " + own, ""},
			"made up, behind":       {own + "; " + first + "1.AAAA", ""},
			"made up, of two parts": {first + "2.AAAA; " + domainCookie + ".1=x; " + own, ""},
			"further parts":         {domainCookie + ".1=x; " + own + "; " + domainCookie + ".1=y; " + domainCookie + ".2=y", ""},
			"its own twice":         {own + "; " + own, ""},
			"without a form":        {first + "; " + first + "x; " + own, ""},
			"of an ended session":   {ended + "; " + own, ""},
			"too many":              {own + strings.Join(many(first, 17), ""), login.BadSession},
			"only made up":          {first + "1.AAAA; " + first + "1.BBBB", login.BadSession},
			"only ended":            {first + "1.AAAA; " + ended, login.SessionEnded},
		} {
			p, err := d.chain.Authenticate(t.Context(), request("a.models.example", x.field))
			wantReason(t, name+", "+what, err, x.reason)
			if err == nil && p.Caller.Name != "alice" {
				t.Errorf("%s, %s: the caller is %s", name, what, p.Caller.Name)
			}
			if err == nil {
				continue
			}
			// A login helps unless it would leave too much to try.
			e := loginError(t, err)
			if again := strings.HasPrefix(what, "only"); e.Again() != again {
				t.Errorf("%s, %s: begin a login: %v", name, what, !again)
			}
		}
		if _, err := d.chain.Authenticate(t.Context(), request("b.models.example", own)); err != nil {
			t.Errorf("%s: the person's own cookies: %v", name, err)
		}
	}
}

// TestTwoGoodSessionsEnd brings a session of the attacker beside the person's own, in either order. Both end,
// and the next sign-in serves though the attacker's cookie is still there.
func TestTwoGoodSessionsEnd(t *testing.T) {
	for name, change := range map[string]func(*desk){"one cookie": func(*desk) {}, "in memory": func(d *desk) { d.config.Memory = true }} {
		d := newDesk(t, ofDomain, change)
		beside := d.browser()
		beside.signIn()
		for _, last := range []bool{false, true} {
			join := func(own, tossed string) string {
				if last {
					return own + "; " + tossed
				}
				return tossed + "; " + own
			}
			victim, attacker := d.browser(), d.browser()
			victim.signIn()
			d.provider.Person("mallory", nil)
			attacker.signIn()
			d.provider.Person("alice", nil)
			own, tossed := victim.field(), attacker.field()
			_, err := d.chain.Authenticate(t.Context(), request("a.models.example", join(own, tossed)))
			wantReason(t, name, err, login.BadSession)
			e := loginError(t, err)
			if !e.Again() || !strings.Contains(e.Error(), "there are sessions of issuer/corp:") || !strings.Contains(e.Error(), "corp:mallory") || !strings.Contains(e.Error(), "corp:alice") {
				t.Errorf("%s: sign in again: %v, after %v", name, e.Again(), e)
			}
			for _, field := range []string{own, tossed, join(own, tossed)} {
				_, err := d.chain.Authenticate(t.Context(), request("b.models.example", field))
				wantReason(t, name+", afterwards", err, login.SessionEnded)
			}
			victim.signIn()
			if p, err := d.chain.Authenticate(t.Context(), request("a.models.example", join(victim.field(), tossed))); err != nil || p.Caller.Name != "alice" {
				t.Errorf("%s: after the next sign-in: %q, %v", name, p.Caller.Name, err)
			}
			beside.serves("issuer/corp:alice")
		}
	}
}

// TestTwoGoodSessionsOfManyRequests brings both sessions in requests at once, as a page does that loads its
// parts. While one of them ends the sessions, none is served by the session that is left for a moment.
func TestTwoGoodSessionsOfManyRequests(t *testing.T) {
	d := newDesk(t, ofDomain)
	for range 50 {
		victim, attacker := d.browser(), d.browser()
		victim.signIn()
		attacker.signIn()
		field := attacker.field() + "; " + victim.field()
		var requests sync.WaitGroup
		for range 8 {
			requests.Go(func() {
				for range 20 {
					if p, err := d.chain.Authenticate(t.Context(), request("a.models.example", field)); err == nil {
						t.Errorf("served by %s", p.Caller.ID)
						return
					}
				}
			})
		}
		requests.Wait()
	}
}

// incompressible returns a text of n bytes.
func incompressible(n int) string {
	s := ""
	for len(s) < n {
		s += rand.Text()
	}
	return s[:n]
}

// many returns made-up cookies.
func many(first string, n int) (all []string) {
	for i := range n {
		all = append(all, fmt.Sprint("; ", first, "1.AAA", i))
	}
	return all
}

// TestTossedPartsCostLittle tosses as many cookies of all names as a request has room for.
func TestTossedPartsCostLittle(t *testing.T) {
	d := newDesk(t, ofDomain)
	var field strings.Builder
	for i := range 300 {
		for _, name := range []string{"=4.", ".1=", ".2=", ".3="} {
			fmt.Fprintf(&field, "; %s%s%d", domainCookie, name, i)
		}
	}
	if all := d.login.Readings(field.String()[2:]); all != nil {
		t.Errorf("%d readings are tried", len(all))
	}
	field.Reset()
	for i := range 3 {
		for _, name := range []string{"=4.", ".1=", ".2=", ".3="} {
			fmt.Fprintf(&field, "; %s%sAAA%d", domainCookie, name, i)
		}
	}
	if all := d.login.Readings(field.String()[2:]); all != nil {
		t.Errorf("%d readings are tried", len(all))
	}
	two := "{}=4.A; {}=1.B; {}.1=A; {}.1=B; {}.2=A; {}.2=B; {}.3=A; {}.3=B"
	if all := d.login.Readings(strings.ReplaceAll(two, "{}", domainCookie)); len(all) != 9 {
		t.Errorf("%d readings are tried, not 8 and 1", len(all))
	}
	if all := newDesk(t).login.Readings("__Host-sallyport=1.AAAA; __Host-sallyport=1.BBBB"); all != nil {
		t.Error("no other host can toss a cookie of one host")
	}
}

// TestPageOfAnotherHostIsOfDomain reads pages to return to, at a login whose people sign in at one host.
func TestPageOfAnotherHostIsOfDomain(t *testing.T) {
	d := newDesk(t, ofDomain, func(d *desk) { d.config.SignInHost = host })
	for to, want := range map[string][2]string{
		"/a?b=c":                                     {"/a?b=c", ""},
		"https://a.models.example/x?y=%2F#z":         {"https://a.models.example/x?y=%2F", "a.models.example"},
		"https://a.models.example":                   {"https://a.models.example/", "a.models.example"},
		"https://models.example:8443/x":              {"https://models.example:8443/x", "models.example:8443"},
		"https://a.models.example//evil.example":     {"https://a.models.example/", "a.models.example"},
		"https://a.models.example/\\evil.example":    {"https://a.models.example/", "a.models.example"},
		"https://a.models.example/.sallyport/x":      {"https://a.models.example/", "a.models.example"},
		"https://a.models.example/\r\nX: y":          {"https://a.models.example/", "a.models.example"},
		"https://evil.example/":                      {"/", ""},
		"https://evilmodels.example/":                {"/", ""},
		"https://models.example.evil.example/":       {"/", ""},
		"https://a.models.example@evil.example/":     {"/", ""},
		"https://evil.example\\.models.example/":     {"/", ""},
		"https://evil.example#.models.example/":      {"/", ""},
		"https://evil.example?.models.example/":      {"/", ""},
		"https://user:x@a.models.example/":           {"/", ""},
		"https://A.models.example/":                  {"/", ""},
		"https://a.models.example./":                 {"/", ""},
		"https://a.models.example:443/":              {"/", ""},
		"https://a.models.example:/":                 {"/", ""},
		"https://a.models.example:99999/":            {"/", ""},
		"https://.models.example/":                   {"/", ""},
		"https:///a.models.example/":                 {"/", ""},
		"https:/a.models.example/":                   {"/", ""},
		"https:a.models.example/":                    {"/", ""},
		"HTTPS://a.models.example/":                  {"/", ""},
		"http://a.models.example/":                   {"/", ""},
		"//a.models.example/":                        {"/", ""},
		" https://a.models.example/":                 {"/", ""},
		"https:// a.models.example/":                 {"/", ""},
		"https://a.models.example\x00.evil.example/": {"/", ""},
		"javascript:https://a.models.example/":       {"/", ""},
		"":                                           {"/", ""},
	} {
		if page, authority := d.login.ReturnURL(to); page != want[0] || authority != want[1] {
			t.Errorf("%q: got %q at %q, want %q", to, page, authority, want)
		}
	}
	if page, authority := newDesk(t, ofDomain).login.ReturnURL("https://a.models.example/"); page != "/" || authority != "" {
		t.Errorf("a login of each host returns to %q at %q", page, authority)
	}
}
