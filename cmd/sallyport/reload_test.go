package main

import (
	"errors"
	"strings"
	"testing"

	"sallyport/proxy"
)

// A refused reload says that the gateway keeps what it has: the same faults are printed where no
// gateway runs.
func TestRefusedReloadSaysWhatTheGatewayKeeps(t *testing.T) {
	var out, problems strings.Builder
	report := proxy.ReloadReport{Result: proxy.ReloadRefused, From: "3f9a", To: "3f9a", Summary: "the configuration has a fault",
		Faults: proxy.Faults{{File: "gateway.yaml", Line: 3, Path: "drain", Problem: "too short", Cure: "write 10s"}}}
	var faults proxy.Faults
	if err := printReload(&out, &problems, &report); !errors.As(err, &faults) || len(faults) != 1 || out.Len() != 0 {
		t.Errorf("got %v, and printed %q", err, &out)
	}
	if got, want := problems.String(), "sallyport: the configuration has a fault; the gateway keeps config 3f9a\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
