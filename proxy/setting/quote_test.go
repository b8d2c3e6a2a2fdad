package setting

import (
	"strings"
	"testing"
)

func TestQuotedIsBoundedAndEscaped(t *testing.T) {
	for _, c := range []struct {
		s    string
		most int
		want string
	}{
		{"", 8, `""`},
		{"account", 8, `"account"`},
		{"accounts", 8, `"accounts"`},
		{"accounting", 8, `"accounti…"`},
		{"a\n\"\x1b", 20, `"a\n\"\x1b"`},
		{"a\x00\x00\x00", 8, `"a\x00…"`},
		{"öööööö", 8, `"öööö…"`},
		{"\xff\u202e", 40, `"\xff\u202e"`},
	} {
		if got := Quoted(c.s, c.most); got != c.want {
			t.Errorf("Quoted(%q, %d) = %s; want %s", c.s, c.most, got, c.want)
		}
	}
}

func TestQuotedListIsBounded(t *testing.T) {
	if got := QuotedList([]string{"a", "b c"}, 40); got != `"a", "b c"` {
		t.Errorf("got %s", got)
	}
	many := make([]string, 10_000)
	for i := range many {
		many[i] = strings.Repeat("\x00", 100)
	}
	if got := QuotedList(many, 40); len(got) > 100 || !strings.HasSuffix(got, "…") {
		t.Errorf("%d bytes: %s", len(got), got)
	}
}
