package exchange

import (
	"html"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sallyport/proxy/pages"
)

// Each reason has words for people: what happened, and what to do. They are not those for programs.
func TestEveryReasonHasAPage(t *testing.T) {
	p, err := pages.New(&pages.Config{Title: "Model lab"})
	if err != nil {
		t.Fatal(err)
	}
	heading := regexp.MustCompile(`<h1>(.*?)</h1>`)
	paragraph := regexp.MustCompile(`(?s)<p>(.*?)</p>`)
	forPrograms := regexp.MustCompile(`(?i)caller|credential|token|upstream|gateway|proxy|audit|policy|\broutes?\b|principal|nonce|header|body|method|\{|\}`)
	for _, reason := range Reasons() {
		page := string(p.Refuse("models.test", &pages.Refusal{Reason: reason, RequestID: "0123", SignIn: "/in"}))
		if strings.Contains(page, "<h1>This did not work</h1>") {
			t.Errorf("%s: the page has no words of its own", reason)
			continue
		}
		all := paragraph.FindAllStringSubmatch(page, -1)
		if len(all) != 2 {
			t.Errorf("%s: the page has %d paragraphs; want what happened, and what to do", reason, len(all))
			continue
		}
		text := []string{heading.FindStringSubmatch(page)[1], all[0][1], all[1][1]}
		for i, s := range text {
			s = html.UnescapeString(s)
			if found := forPrograms.FindString(s); found != "" {
				t.Errorf("%s: %q has %q", reason, s, found)
			}
			if i > 0 && (!strings.HasSuffix(s, ".") || len(s) > 240) {
				t.Errorf("%s: %q is no short sentence", reason, s)
			}
		}
		if o := outcomes[reason]; o.text != "" && strings.EqualFold(strings.TrimSuffix(text[1], "."), strings.TrimSuffix(o.text, ".")) {
			t.Errorf("%s: people read the text for programs: %s", reason, o.text)
		}
	}
}

// Package pages cannot import the reasons. It names none that do not exist.
func TestPagesNameNoOtherReasons(t *testing.T) {
	source, err := os.ReadFile("../pages/words.go")
	if err != nil {
		t.Fatal(err)
	}
	known, seen := Reasons(), 0
	for _, list := range regexp.MustCompile(`(?s)\tcase (".*?"):\n`).FindAllStringSubmatch(string(source), -1) {
		for _, name := range regexp.MustCompile(`"([^"]*)"`).FindAllStringSubmatch(list[1], -1) {
			if seen++; !slices.Contains(known, name[1]) {
				t.Errorf("the gateway has no reason %s", name[1])
			}
		}
	}
	if seen < len(known) {
		t.Errorf("words.go names %d reasons of %d", seen, len(known))
	}
}
