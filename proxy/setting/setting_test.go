package setting

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

func TestDurationIsPositive(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want time.Duration
		ok   bool
	}{
		{"30s", 30 * time.Second, true},
		{"1h30m", 90 * time.Minute, true},
		{"0s", 0, false},
		{"-1s", 0, false},
		{"30", 0, false},
		{"never", 0, false},
		{"", 0, false},
	} {
		t.Run(tt.in, func(t *testing.T) {
			var d Duration
			err := d.UnmarshalText([]byte(tt.in))
			if d.D() != tt.want || (err == nil) != tt.ok {
				t.Fatalf("got %v, %v; want %v, ok %v", d, err, tt.want, tt.ok)
			}
			if tt.ok && d.String() != tt.in {
				t.Errorf("written as %q, want %q", d, tt.in)
			}
		})
	}
}

func TestTimeoutMayBeNever(t *testing.T) {
	var set, unset Timeout
	if err := set.UnmarshalText([]byte("never")); err != nil || set.Or(time.Second) != 0 {
		t.Errorf("never: %v, %v; want 0", err, set.Or(time.Second))
	}
	if unset.Or(time.Second) != time.Second {
		t.Errorf("none given: got %v, want the default", unset.Or(time.Second))
	}
}

func TestSizeHasUnits(t *testing.T) {
	for _, tt := range []struct {
		in, out string
		want    int64
	}{
		{"512", "512B", 512},
		{"64MiB", "64MiB", 64 << 20},
		{"64 MiB", "64MiB", 64 << 20},
		{"1GB", "1GB", 1e9},
		{"2kB", "2KB", 2000},
		{"64m", "", 0}, {"0", "", 0}, {"-1", "", 0}, {"+5", "", 0}, {"1.5GiB", "", 0}, {"", "", 0}, {"MiB", "", 0},
		{"9999999999GiB", "", 0}, {"1iB", "", 0},
	} {
		t.Run(tt.in, func(t *testing.T) {
			var z Size
			err := z.UnmarshalText([]byte(tt.in))
			if z.B() != tt.want || z.String() != tt.out || (err == nil) != (tt.want != 0) {
				t.Fatalf("got %d %q, %v; want %d %q", z, z, err, tt.want, tt.out)
			}
		})
	}
}

func TestRateIsNumberPerTime(t *testing.T) {
	for _, tt := range []struct {
		in string
		ok bool
	}{
		{"200/s", true}, {"10/m", true}, {"1000/h", true},
		{"200", false}, {"0/s", false}, {"-1/s", false}, {"1/d", false}, {"/s", false}, {"2000000000/s", false}, {"1/s/s", false},
	} {
		t.Run(tt.in, func(t *testing.T) {
			var r Rate
			err := r.UnmarshalText([]byte(tt.in))
			if (err == nil) != tt.ok || tt.ok && r.String() != tt.in || r.IsZero() == tt.ok {
				t.Fatalf("got %v, %v; want ok %v", r, err, tt.ok)
			}
		})
	}
}

func TestURLNeedsSchemeAndHost(t *testing.T) {
	for _, tt := range []struct {
		in string
		ok bool
	}{
		{"http://churn:8000", true}, {"https://login.example/realms/ml", true}, {"unix:///run/app.sock", true}, {"http://[::1]:80", true},
		{"churn:8000", false}, {"/path", false}, {"http://", false}, {"http://u:p@h", false}, {"http://h/#f", false}, {"http://h/#", false},
		{"unix://host/path", false}, {"unix:relative", false}, {"http://h:0", false}, {"http://h:99999", false}, {"http://h:", false}, {"http://:80", false}, {"", false},
	} {
		t.Run(tt.in, func(t *testing.T) {
			var u URL
			err := u.UnmarshalText([]byte(tt.in))
			if (err == nil) != tt.ok || u.IsZero() == tt.ok {
				t.Fatalf("got %v, %v; want ok %v", u, err, tt.ok)
			}
			if tt.ok && u.String() != tt.in {
				t.Errorf("written as %q", u)
			}
		})
	}
}

func TestCIDRTakesRangesAndAddresses(t *testing.T) {
	for _, tt := range []struct {
		in, holds string
		ok        bool
	}{
		{"10.0.0.0/8", "10.1.2.3", true}, {"10.0.0.1", "::ffff:10.0.0.1", true}, {"fd00::/8", "fd00::1", true}, {"::ffff:10.0.0.1", "10.0.0.1", true},
		{"10.0.0.1/8", "", false}, {"::ffff:10.0.0.0/104", "", false}, {"fe80::1%eth0", "", false}, {"localhost", "", false}, {"", "", false},
	} {
		t.Run(tt.in, func(t *testing.T) {
			var c CIDR
			if err := c.UnmarshalText([]byte(tt.in)); (err == nil) != tt.ok {
				t.Fatalf("got %v, want ok %v", err, tt.ok)
			}
			if tt.ok && !c.Contains(netip.MustParseAddr(tt.holds)) {
				t.Errorf("%v does not hold %s", c, tt.holds)
			}
		})
	}
	if (CIDR{}).Contains(netip.MustParseAddr("0.0.0.0")) {
		t.Error("the zero CIDR holds an address")
	}
}

func TestGlobMatchesBySegments(t *testing.T) {
	for _, tt := range []struct {
		glob, name string
		want       bool
	}{
		{"bert", "bert", true}, {"bert", "berta", false}, {"bert", "", false},
		{"bert-*", "bert-base", true}, {"bert-*", "bert-", true}, {"bert-*", "bert", false}, {"bert-*", "bert-a/b", false},
		{"*", "", true}, {"*", "a/b", false}, {"**", "a/b", true}, {"**", "", true},
		{"a*b*c", "axxbyyc", true}, {"a*b*c", "acb", false}, {"a/**/c", "a/b/x/c", true}, {"a/**/c", "a/c", false},
		{"**/c", "a/b/c", true}, {"*/c", "a/b/c", false}, {"a.c", "abc", false},
	} {
		t.Run(tt.glob+" "+tt.name, func(t *testing.T) {
			g, err := ParseGlob(tt.glob)
			if err != nil {
				t.Fatal(err)
			}
			if got := g.Match(tt.name); got != tt.want {
				t.Errorf("got %v", got)
			}
		})
	}
	for _, bad := range []string{"", "a?", "[a]", "***", `a\b`, "{a,b}"} {
		if _, err := ParseGlob(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
	if (Glob{}).Match("") {
		t.Error("the zero Glob matches")
	}
}

// The text of a decoded value decodes to the same value.
func FuzzUnits(f *testing.F) {
	for _, s := range []string{"30s", "1h30m", "never", "64MiB", "1kB", "200/s", "10.0.0.0/8", "::1", "http://a:80", "a-*/**", "0", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		again(t, s, new(Duration), new(Duration))
		again(t, s, new(Timeout), new(Timeout))
		again(t, s, new(Size), new(Size))
		again(t, s, new(Rate), new(Rate))
		again(t, s, new(CIDR), new(CIDR))
		again(t, s, new(URL), new(URL))
		again(t, s, new(Glob), new(Glob))
	})
}

type unit interface {
	UnmarshalText([]byte) error
	String() string
}

func again(t *testing.T, s string, first, second unit) {
	t.Helper()
	if first.UnmarshalText([]byte(s)) != nil {
		return
	}
	written := first.String()
	if err := second.UnmarshalText([]byte(written)); err != nil || second.String() != written || written == "" {
		t.Errorf("%T: %q is written as %q, and that as %q, %v", first, s, written, second, err)
	}
}

func ExampleDecode() {
	var section struct {
		Body Size         `yaml:"body"`
		Host List[string] `yaml:"host"`
	}
	_, faults := Decode("gateway.yaml", []byte("body: 64m\nhots: a.example\n"), &section)
	fmt.Println(faults)
	// Output:
	// gateway.yaml:1: body: "64m": not a size; write a whole number and B, KiB, MiB, GiB, KB, MB or GB, such as 64MiB
	// gateway.yaml:2: hots: unknown field; did you mean host?
}
