package limit_test

import (
	"fmt"
	"time"

	"sallyport/proxy/limit"
	"sallyport/proxy/setting"
)

func ExampleRate() {
	now := time.Date(2026, 11, 24, 9, 30, 0, 0, time.UTC)
	r := limit.NewRate(limit.RateConfig{
		Scope: limit.Scope{Per: setting.List[string]{"principal"}},
		Limit: setting.Rate{N: 10, Per: time.Second},
		Burst: 2,
	}, func() time.Time { return now })

	for range 3 {
		retry, ok := r.Allow("issuer/corp:alice")
		fmt.Println(ok, retry)
	}
	// Output:
	// true 0s
	// true 0s
	// false 100ms
}
