package setting

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"time"
)

// Duration is a time span such as 30s, 5m or 1h30m. Zero means none; a file cannot contain
// zero.
type Duration time.Duration

// UnmarshalText parses a positive Go duration.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := parseDuration(string(text), "")
	*d = Duration(v)
	return err
}

// MarshalText returns the text of the duration.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// String returns the duration as Go formats it, but shorter; "" for none.
func (d Duration) String() string {
	if d == 0 {
		return ""
	}
	return shortDuration(time.Duration(d))
}

// D returns d as a time.Duration.
func (d Duration) D() time.Duration { return time.Duration(d) }

// Or returns d, or def if none was given.
func (d Duration) Or(def time.Duration) time.Duration {
	if d == 0 {
		return def
	}
	return time.Duration(d)
}

// Timeout is a [Duration] that may also be "never". Zero means none.
type Timeout time.Duration

// Never is the timeout that never expires.
const Never Timeout = math.MaxInt64

// UnmarshalText parses a positive Go duration or "never".
func (t *Timeout) UnmarshalText(text []byte) error {
	if string(text) == "never" {
		*t = Never
		return nil
	}
	v, err := parseDuration(string(text), ", or never")
	*t = Timeout(v)
	return err
}

// MarshalText returns the text of the timeout.
func (t Timeout) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// String returns the timeout; "" for none.
func (t Timeout) String() string {
	if t == Never {
		return "never"
	}
	return Duration(t).String()
}

// D returns t as a time.Duration; Never is about 292 years.
func (t Timeout) D() time.Duration { return time.Duration(t) }

// Or returns t, def if none was given, or 0 for never.
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

// shortDuration formats d without a trailing "0m0s".
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

// Size is a number of bytes such as 512, 64MiB or 1GB. Zero means none; a file cannot contain
// zero.
type Size int64

var sizeUnits = [...]struct {
	name  string
	bytes int64
}{
	{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10},
	{"GB", 1e9}, {"MB", 1e6}, {"KB", 1e3}, {"kB", 1e3}, {"B", 1}, {"", 1},
}

// UnmarshalText parses a positive whole number with an optional unit.
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

// MarshalText returns the text of the size.
func (z Size) MarshalText() ([]byte, error) { return []byte(z.String()), nil }

// String returns the size in the largest exact unit; "" for none.
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

// B returns the number of bytes.
func (z Size) B() int64 { return int64(z) }

// Or returns the number of bytes, or def if none was given.
func (z Size) Or(def int64) int64 {
	if z == 0 {
		return def
	}
	return int64(z)
}

// Rate is a number of events per time, such as 200/s, 10/m or 1000/h. The zero Rate means none.
type Rate struct {
	N   int           // events, at least 1
	Per time.Duration // a second, a minute or an hour
}

const maxRate = 1_000_000_000

// UnmarshalText parses a rate.
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

// MarshalText returns the text of the rate.
func (r Rate) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// String returns the rate; "" for none.
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

// IsZero reports whether no rate was given.
func (r Rate) IsZero() bool { return r == Rate{} }

const (
	// MaxBurst is the largest burst of a rate.
	MaxBurst = 1_000_000
	// MaxRefill limits the refill time of a whole burst. It keeps sums of times within an int64.
	MaxRefill = 366 * 24 * time.Hour
)

// CheckBurst records at path why a burst does not fit the rate. The burst is how many events may
// come at once after a quiet time; 0 is the default.
func (r Rate) CheckBurst(path string, burst int, f *Faults) {
	if burst < 0 || burst > MaxBurst {
		f.Add(path, strconv.Itoa(burst), "out of range", "write a number from 1 to 1000000, or leave it out")
	} else if n := int64(r.N); n > 0 && int64(burst) > int64(MaxRefill)/max(int64(r.Per)/n, 1) {
		f.Add(path, strconv.Itoa(burst), "would take more than a year to refill", "write a smaller number")
	}
}
