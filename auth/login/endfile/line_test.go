package endfile

import (
	"fmt"
	"strings"
	"testing"
)

// sealed returns a text with its checksum.
func sealed(text string) []byte {
	return []byte(strings.TrimSuffix(string(seal([]byte(text), 0)), "\n"))
}

// A line has one form. Another one was not written by a gateway, although its checksum is right.
func TestLinesHaveOneForm(t *testing.T) {
	login, id := strings.Repeat("0a", 16), strings.Repeat("1b", 32)
	for _, good := range []string{
		"session " + login + " " + id + " 1 2", "sid " + login + " " + id + " 0 -1", "before " + login + " " + id + " -9223372036854775808 9223372036854775807",
	} {
		l, err := parseLine(sealed(good))
		if err != nil {
			t.Errorf("%s: %v", good, err)
		} else if got := string(appendLine(nil, &l)); got != string(sealed(good))+"\n" {
			t.Errorf("%s is written as %s", good, got)
		}
	}
	for _, bad := range []string{
		"", " ", "session", "session " + login, "session " + login + " " + id, "session " + login + " " + id + " 1", "session " + login + " " + id + " 1 2 3",
		"Session " + login + " " + id + " 1 2", "end " + login + " " + id + " 1 2", " session " + login + " " + id + " 1 2", "session  " + login + " " + id + " 1 2",
		"session " + strings.ToUpper(login) + " " + id + " 1 2", "session " + login + " " + strings.ToUpper(id) + " 1 2",
		"session " + login[2:] + " " + id + " 1 2", "session " + login + "0a " + id + " 1 2", "session " + login + " " + id[1:] + " 1 2", "session " + login + " " + strings.Repeat("g", 64) + " 1 2",
		"session " + login + " " + id + " 01 2", "session " + login + " " + id + " +1 2", "session " + login + " " + id + " -0 2", "session " + login + " " + id + " -01 2", "session " + login + " " + id + " 1 1e3",
		"session " + login + " " + id + " 1 2 ", "session " + login + " " + id + " 1 \t2", "session " + login + " " + id + " 1 9223372036854775808", "session " + login + " " + id + " 1_0 2", "session " + login + " " + id + " 0x1 2",
	} {
		if l, err := parseLine(sealed(bad)); err == nil {
			t.Errorf("%q is read as %+v", bad, l)
		}
	}
	for text, good := range map[string]bool{
		magic + " 1 5": true, magic + " 1 -5": true,
		magic + " 1 05": false, magic + " 1 +5": false, magic + " 1 5 6": false, magic + " 1 ": false, magic + " 1": false, magic + " 1 x": false, magic + " 01 5": false,
	} {
		if _, err := parseHeader(sealed(text)); (err == nil) != good {
			t.Errorf("header %q: %v", text, err)
		}
	}
	wrong := sealed(fmt.Sprintf("session %s %s 1 2", login, id))
	wrong[len(wrong)-1] ^= 1
	if _, err := parseLine(wrong); err == nil {
		t.Error("a line with a wrong checksum is read")
	}
}

// A start reads every line twice, so that garbage would take longer than the rest.
func TestReadingALineAllocatesNothing(t *testing.T) {
	l := numbered(1)
	text := appendLine(nil, &l)
	text = text[:len(text)-1]
	if n := testing.AllocsPerRun(100, func() {
		if _, err := parseLine(text); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
