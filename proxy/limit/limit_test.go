package limit

import (
	"net/netip"
	"testing"
)

func TestKey(t *testing.T) {
	for _, tt := range []struct{ name, addr, want string }{
		{"IPv4", "192.0.2.7", "192.0.2.7"},
		{"IPv4 in IPv6", "::ffff:192.0.2.7", "192.0.2.7"},
		{"IPv6", "2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"},
		{"IPv6 with zone", "fe80::1:2%eth0", "fe80::"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := Key(netip.MustParseAddr(tt.addr)); got.String() != tt.want {
				t.Errorf("Key(%s) = %s, want %s", tt.addr, got, tt.want)
			}
		})
	}
	if got := Key(netip.Addr{}); got.IsValid() {
		t.Errorf("Key of no address = %s, want none", got)
	}
}

func TestInFlight(t *testing.T) {
	l := NewCounters(nil).Lease().InFlight("", 2)
	for i, want := range []bool{true, true, false, false} {
		if got := l.Enter(); got != want {
			t.Fatalf("entry %d: got %t, want %t", i, got, want)
		}
	}
	l.Leave()
	if !l.Enter() || l.Enter() {
		t.Error("after one Leave, want exactly one more Enter")
	}
	if l.Len() != 2 {
		t.Errorf("Len = %d, want 2", l.Len())
	}
	free := NewCounters(nil).Lease().InFlight("", 0)
	for range 1000 {
		if !free.Enter() {
			t.Fatal("refused without a limit")
		}
	}
}

func TestConns(t *testing.T) {
	c := NewConns(ConnsConfig{Total: 6, PerAddress: 2, Exempt: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}})
	enter := func(addr string, want bool) {
		t.Helper()
		if got := c.Enter(netip.MustParseAddr(addr)); got != want {
			t.Errorf("Enter(%s) = %t, want %t (%d connections)", addr, got, want, c.Len())
		}
	}
	enter("192.0.2.1", true)
	enter("::ffff:192.0.2.1", true)
	enter("192.0.2.1", false)
	enter("2001:db8::1", true)
	enter("2001:db8::2", true)
	enter("2001:db8::3", false)   // the same /64
	enter("2001:db8:0:1::", true) // the next one
	enter("10.1.1.1", true)
	enter("10.1.1.1", false) // the total
	c.Leave(netip.MustParseAddr("192.0.2.1"))
	enter("10.1.1.1", true) // exempt from the limit by address only
	for _, a := range []string{"192.0.2.1", "2001:db8::1", "2001:db8::9", "2001:db8:0:1::", "10.1.1.1", "10.1.1.1"} {
		c.Leave(netip.MustParseAddr(a))
	}
	if c.Len() != 0 || len(c.byAddr) != 0 {
		t.Errorf("after all left: %d connections, %d addresses, want none", c.Len(), len(c.byAddr))
	}
	if NewConns(ConnsConfig{}).Enter(netip.MustParseAddr("192.0.2.1")) {
		t.Error("the zero config let a connection in")
	}
}
