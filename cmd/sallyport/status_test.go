package main

import (
	"strings"
	"testing"
	"time"

	"sallyport/proxy"
	"sallyport/proxy/admin"
)

// The table shows a file of ended sessions that cannot be written.
func TestStatusShowsFilesOfEndedSessions(t *testing.T) {
	var s proxy.StatusReport
	if text := statusText(&s, painter(false), time.Now()); strings.Contains(text, "ENDED SESSIONS") {
		t.Errorf("without such a file:\n%s", text)
	}
	s.SessionFiles = append(s.SessionFiles, admin.SessionFile{Path: "/srv/ends", Lines: 7, Unsaved: 2, Failures: 3, LastError: "/srv/ends: no space left on device"})
	text := statusText(&s, painter(false), time.Now())
	for _, want := range []string{"ENDED SESSIONS", "NOT ON DISK"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) > 4 && f[0] == "/srv/ends" {
			if strings.Join(f[:4], " ") != "/srv/ends 7 2 3" || !strings.Contains(line, "no space left") {
				t.Errorf("got %q", line)
			}
			return
		}
	}
	t.Errorf("the file is not in\n%s", text)
}
