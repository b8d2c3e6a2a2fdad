package httpsig

import "strings"

// Line is one field line.
type Line struct{ Name, Value string }

// Lines implements [Fields] for callers without a type of their own.
type Lines []Line

// Line returns the value of the n-th line with this name; letter case does not count.
func (l Lines) Line(name string, n int) (string, bool) {
	for i := range l {
		if strings.EqualFold(l[i].Name, name) {
			if n == 0 {
				return l[i].Value, true
			}
			n--
		}
	}
	return "", false
}
