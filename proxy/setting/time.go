package setting

import (
	"errors"
	"time"
)

// Time is a moment such as 2027-02-01T00:00:00Z, or a day, which means its start in UTC. The
// zero Time means none.
type Time struct{ time.Time }

// UnmarshalText parses RFC 3339, or a day such as 2027-02-01.
func (t *Time) UnmarshalText(text []byte) error {
	for _, form := range []string{time.RFC3339, time.DateOnly} {
		if at, err := time.Parse(form, string(text)); err == nil {
			t.Time = at
			return nil
		}
	}
	return errors.New("not a time; write one such as 2027-02-01T00:00:00Z, or a day such as 2027-02-01")
}

// MarshalText returns the text of the time; "" for none.
func (t Time) MarshalText() ([]byte, error) {
	if t.IsZero() {
		return nil, nil
	}
	return []byte(t.Format(time.RFC3339)), nil
}
