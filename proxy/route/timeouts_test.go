package route

import (
	"testing"
	"time"

	"sallyport/proxy/setting"
	"sallyport/proxy/upstream"
)

func TestCallsTakeTheCallersDeadline(t *testing.T) {
	usual := upstream.Timeouts{Connect: 5 * time.Second, Head: time.Minute, Idle: time.Minute}
	for deadline, want := range map[string]time.Duration{
		"":           time.Hour,
		"1H":         time.Hour + 5*time.Second,
		"90M":        90*time.Minute + 5*time.Second,
		"10S":        15 * time.Second,
		"250m":       5250 * time.Millisecond,
		"7u":         5*time.Second + 7*time.Microsecond,
		"1n":         5*time.Second + time.Nanosecond,
		"0S":         5 * time.Second,
		"99999999H":  24*time.Hour + 5*time.Second, // more than a Duration holds
		"99999999S":  24*time.Hour + 5*time.Second,
		"100000000n": time.Hour, // nine digits
		"S":          time.Hour,
		"5":          time.Hour,
		"5s":         time.Hour,
		"-5S":        time.Hour,
		"+5S":        time.Hour,
		" 5S":        time.Hour,
		"1_0S":       time.Hour,
		"1.5S":       time.Hour,
	} {
		for _, c := range []struct {
			set         TimeoutsConfig
			head, pause time.Duration
		}{
			{TimeoutsConfig{Connect: 1, Total: 1}, want, want},
			{TimeoutsConfig{Head: setting.Timeout(time.Minute)}, usual.Head, want},
			{TimeoutsConfig{Idle: setting.Never}, want, 0},
			{TimeoutsConfig{Head: setting.Never, Idle: setting.Timeout(time.Minute)}, usual.Head, 0},
		} {
			got := NewCallTimeouts(c.set).Timeouts(usual, deadline)
			if got.Head != c.head || got.Pause != c.pause || got.Idle != usual.Idle || got.Connect != usual.Connect || got.Total != 0 {
				t.Errorf("deadline %q, set %v: %+v; want head %s, pause %s", deadline, c.set, got, c.head, c.pause)
			}
		}
	}
}
