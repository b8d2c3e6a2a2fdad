package setting

import (
	"errors"
	"time"
)

// Time is a moment such as 2027-02-01T00:00:00Z, or a day, which stands for its
// beginning in UTC. The zero Time means that none was given.
type Time struct{ time.Time }

// UnmarshalText reads RFC 3339, or a day as 2027-02-01.
func (t *Time) UnmarshalText(text []byte) error {
	for _, form := range []string{time.RFC3339, time.DateOnly} {
		if at, err := time.Parse(form, string(text)); err == nil {
			t.Time = at
			return nil
		}
	}
	return errors.New("not a time; write one such as 2027-02-01T00:00:00Z, or a day such as 2027-02-01")
}

// MarshalText writes the time as it is read; "" for none.
func (t Time) MarshalText() ([]byte, error) {
	if t.IsZero() {
		return nil, nil
	}
	return []byte(t.Format(time.RFC3339)), nil
}
