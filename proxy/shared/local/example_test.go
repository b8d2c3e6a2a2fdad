package local_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"sallyport/proxy/shared"
	"sallyport/proxy/shared/local"
)

func Example() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	ctx := context.Background()
	now := time.Date(2026, 11, 24, 9, 30, 0, 0, time.UTC)
	config := local.Config{
		Bounds: local.Bounds{Nonces: 1_000_000, PerKey: 250_000, Window: time.Minute, Skew: 30 * time.Second},
		Now:    func() time.Time { return now },
	}
	state := filepath.Join(dir, "nonces")
	start := func() *local.Replay {
		r, err := local.New(config)
		if err == nil {
			err = r.Begin(state)
		}
		if err != nil {
			fmt.Println(err)
		}
		return r
	}
	// An empty file says that no signature was used before.
	if err := os.WriteFile(state, nil, 0o600); err != nil {
		fmt.Println(err)
		return
	}
	r := start()
	claim := [16]byte{0x5a, 0x11, 0x79}
	fmt.Println(r.Claim(ctx, "acme-2026-11", claim, now, now.Add(time.Minute)))
	fmt.Println(r.Claim(ctx, "acme-2026-11", claim, now, now.Add(time.Minute)))

	// A planned stop hands the claims over.
	fmt.Println(r.Save())
	r = start()
	fmt.Println(r.Claim(ctx, "acme-2026-11", claim, now, now.Add(time.Minute)))

	// No other process can use the file while this one lives. A second one does not know what
	// was used.
	r = start()
	var window *shared.WindowError
	if errors.As(r.Claim(ctx, "acme-2026-11", claim, now, now.Add(time.Minute)), &window) {
		fmt.Println("refused until", window.Until.UTC().Format(time.TimeOnly))
	}
	// Output:
	// <nil>
	// the signature was used before
	// <nil>
	// the signature was used before
	// refused until 09:30:31
}
