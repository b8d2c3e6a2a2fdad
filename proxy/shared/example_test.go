package shared_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"sallyport/proxy/shared"
)

func Example() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	now := time.Date(2026, 11, 24, 9, 30, 0, 0, time.UTC)
	config := shared.ReplayConfig{
		Nonces: 1_000_000,
		PerKey: 250_000,
		Window: time.Minute,
		Skew:   30 * time.Second,
		State:  filepath.Join(dir, "nonces"),
		Now:    func() time.Time { return now },
	}
	// An empty file says that no signature was used before.
	if err := os.WriteFile(config.State, nil, 0o600); err != nil {
		fmt.Println(err)
		return
	}
	r, err := shared.NewReplay(config)
	if err != nil {
		fmt.Println(err)
		return
	}
	claim := [16]byte{0x5a, 0x11, 0x79}
	fmt.Println(r.Claim("acme-2026-11", claim, now, now.Add(time.Minute)))
	fmt.Println(r.Claim("acme-2026-11", claim, now, now.Add(time.Minute)))

	// A planned stop hands over.
	fmt.Println(r.Save())
	if r, err = shared.NewReplay(config); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(r.Claim("acme-2026-11", claim, now, now.Add(time.Minute)))

	// A crash does not.
	if r, err = shared.NewReplay(config); err != nil {
		fmt.Println(err)
		return
	}
	var window *shared.WindowError
	if errors.As(r.Claim("acme-2026-11", claim, now, now.Add(time.Minute)), &window) {
		fmt.Println("refused until", window.Until.UTC().Format(time.TimeOnly))
	}
	// Output:
	// <nil>
	// the signature was used before
	// <nil>
	// the signature was used before
	// refused until 09:30:31
}
