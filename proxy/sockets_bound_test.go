package proxy

import (
	"net/netip"
	"testing"
)

func TestSocketIsBoundToConfiguredAddress(t *testing.T) {
	for _, tt := range []struct {
		socket, configured string
		want               bool
	}{
		{"[::]:443", ":443", true},
		{"[::]:443", "0.0.0.0:443", true}, // package net binds both families for either
		{"[::]:443", "[::]:443", true},
		{"0.0.0.0:443", ":443", true},
		{"[::]:443", ":8443", false},
		{"[::]:443", "127.0.0.1:443", false},
		{"127.0.0.1:443", ":443", false},
		{"127.0.0.1:443", "127.0.0.1:443", true},
		{"[::ffff:127.0.0.1]:443", "127.0.0.1:443", true},
		{"127.0.0.1:443", "localhost:443", true},
		{"[::1]:443", "localhost:443", false}, // package net prefers IPv4
		{"[::1]:443", "[::1]:443", true},
		{"127.0.0.1:443", "127.0.0.1:0", false},
	} {
		s := handedSocket{addr: netip.MustParseAddrPort(tt.socket)}
		if got := s.boundTo(tt.configured); got != tt.want {
			t.Errorf("%s for %q: %v, want %v", tt.socket, tt.configured, got, tt.want)
		}
	}
}
