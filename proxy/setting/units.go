package setting

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"time"
)

// Duration is a time span such as 30s, 5m or 1h30m. Zero means that none was
// given; a file cannot say zero.
type Duration time.Duration

// UnmarshalText reads a positive Go duration.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := parseDuration(string(text), "")
	*d = Duration(v)
	return err
}

// MarshalText writes the duration as it is read.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// String is the duration as Go writes it, "" for none.
func (d Duration) String() string {
	if d == 0 {
		return ""
	}
	return shortDuration(time.Duration(d))
}

// D is d for the time package.
func (d Duration) D() time.Duration { return time.Duration(d) }

// Or is d, or def where none was given.
func (d Duration) Or(def time.Duration) time.Duration {
	if d == 0 {
		return def
	}
	return time.Duration(d)
}

// Timeout is a [Duration] that may also be "never". Zero means that none was given.
type Timeout time.Duration

// Never is the timeout that does not come.
const Never Timeout = math.MaxInt64

// UnmarshalText reads a positive Go duration or "never".
func (t *Timeout) UnmarshalText(text []byte) error {
	if string(text) == "never" {
		*t = Never
		return nil
	}
	v, err := parseDuration(string(text), ", or never")
	*t = Timeout(v)
	return err
}

// MarshalText writes the timeout as it is read.
func (t Timeout) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// String is the timeout as it is read, "" for none given.
func (t Timeout) String() string {
	if t == Never {
		return "never"
	}
	return Duration(t).String()
}

// D is t for the time package; never is some centuries.
func (t Timeout) D() time.Duration { return time.Duration(t) }

// Or is t, or def where none was given, or 0 for never.
func (t Timeout) Or(def time.Duration) time.Duration {
	switch t {
	case 0:
		return def
	case Never:
		return 0
	}
	return time.Duration(t)
}

func parseDuration(s, also string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	switch {
	case err != nil:
		return 0, errors.New("not a duration; write a number and ms, s, m or h, such as 30s or 1h30m" + also)
	case d < 0:
		return 0, errors.New("a negative duration; write one above zero, such as 30s" + also)
	case d == 0:
		return 0, errors.New("a duration of zero; remove the line for the default, or write one above zero, such as 30s" + also)
	}
	return d, nil
}

// shortDuration is d without the "0m0s" that time.Duration puts at the end.
func shortDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// Size is a number of bytes such as 512, 64MiB or 1GB. Zero means that none was
// given; a file cannot say zero.
type Size int64

var sizeUnits = [...]struct {
	name  string
	bytes int64
}{
	{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10},
	{"GB", 1e9}, {"MB", 1e6}, {"KB", 1e3}, {"kB", 1e3}, {"B", 1}, {"", 1},
}

// UnmarshalText reads a positive whole number with or without a unit.
func (z *Size) UnmarshalText(text []byte) error {
	s := string(text)
	digits := strings.TrimRight(s, "BKMGikgm ")
	unit := strings.TrimPrefix(s[len(digits):], " ")
	n, err := strconv.ParseInt(digits, 10, 64)
	if err == nil && n <= 0 {
		return errors.New("a size must be above zero; remove the line for the default, or write one such as 64MiB")
	}
	for _, u := range sizeUnits {
		if err == nil && unit == u.name && n <= math.MaxInt64/u.bytes && digits[0] != '+' {
			*z = Size(n * u.bytes)
			return nil
		}
	}
	return errors.New("not a size; write a whole number and B, KiB, MiB, GiB, KB, MB or GB, such as 64MiB")
}

// MarshalText writes the size as it is read.
func (z Size) MarshalText() ([]byte, error) { return []byte(z.String()), nil }

// String is the size in the largest unit that is exact, "" for none.
func (z Size) String() string {
	if z == 0 {
		return ""
	}
	for _, u := range sizeUnits {
		if int64(z)%u.bytes == 0 {
			return strconv.FormatInt(int64(z)/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(z), 10)
}

// B is the number of bytes.
func (z Size) B() int64 { return int64(z) }

// Or is the number of bytes, or def where none was given.
func (z Size) Or(def int64) int64 {
	if z == 0 {
		return def
	}
	return int64(z)
}

// Rate is a number of events in a time, such as 200/s, 10/m or 1000/h. The zero
// Rate means that none was given.
type Rate struct {
	N   int           // events, from 1
	Per time.Duration // a second, a minute or an hour
}

const maxRate = 1_000_000_000

// UnmarshalText reads a rate.
func (r *Rate) UnmarshalText(text []byte) error {
	bad := errors.New("not a rate; write a number and /s, /m or /h, such as 200/s")
	count, unit, _ := strings.Cut(string(text), "/")
	n, err := strconv.ParseUint(count, 10, 32)
	if err != nil {
		return bad
	}
	if n == 0 || n > maxRate {
		return errors.New("a rate must be between 1 and 1000000000; write one such as 200/s")
	}
	switch unit {
	case "s":
		r.Per = time.Second
	case "m":
		r.Per = time.Minute
	case "h":
		r.Per = time.Hour
	default:
		return bad
	}
	r.N = int(n)
	return nil
}

// MarshalText writes the rate as it is read.
func (r Rate) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// String is the rate as it is read, "" for none.
func (r Rate) String() string {
	unit := ""
	switch r.Per {
	case time.Second:
		unit = "s"
	case time.Minute:
		unit = "m"
	case time.Hour:
		unit = "h"
	default:
		return ""
	}
	return strconv.Itoa(r.N) + "/" + unit
}

// IsZero says whether no rate was given.
func (r Rate) IsZero() bool { return r == Rate{} }
