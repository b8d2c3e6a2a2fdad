package ca

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

const day = 24 * time.Hour

// span is a flag with a time such as 24h or 7d.
type span struct {
	time.Duration
}

// Set parses a duration of Go, or whole days.
func (s *span) Set(text string) error {
	wrong := errors.New("want a time such as 24h or 7d")
	if days, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.Atoi(days)
		if err != nil || n < 0 || n > 100000 {
			return wrong
		}
		s.Duration = time.Duration(n) * day
		return nil
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return wrong
	}
	s.Duration = d
	return nil
}

// String writes whole days as such.
func (s *span) String() string {
	if s.Duration >= 2*day && s.Duration%day == 0 {
		return fmt.Sprintf("%dd", s.Duration/day)
	}
	text := s.Duration.String()
	if short, ok := strings.CutSuffix(text, "h0m0s"); ok {
		return short + "h"
	}
	return text
}

// Type names the kind of value in the help.
func (*span) Type() string { return "time" }

// check refuses a span outside the limits, for the flag of a name.
func (s *span) check(flag string, least, most time.Duration) error {
	if s.Duration < least || s.Duration > most {
		return fmt.Errorf("--%s %s: want %s to %s", flag, s, &span{least}, &span{most})
	}
	return nil
}
