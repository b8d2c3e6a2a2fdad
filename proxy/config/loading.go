package config

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"sallyport/proxy/watch"
)

// Loading says how the configuration in use was loaded. A later reload that finds the same content
// tells it to the operator, who may not know that the watcher has been faster.
type Loading struct {
	At      time.Time
	By      Loader
	Files   []string // that the watcher had reported as changed
	Summary string   // the configuration, or the change as of [ChangedSummary]
}

// Loader is what had a configuration loaded.
type Loader int

// These are the loaders of a configuration.
const (
	ByStart   Loader = iota // the gateway read it when it started
	ByRequest               // somebody ran `sallyport reload`, or sent SIGHUP
	ByWatcher               // its files had changed
)

// FirstLoading is how a gateway loaded its first configuration.
func FirstLoading(o Outline, at time.Time) Loading {
	hash, _ := ShortHashes(o.Hash(), o.Hash())
	return Loading{At: at, By: ByStart, Summary: "config " + hash}
}

// maxNamed limits how many files a summary names.
const maxNamed = 4

// UnchangedSummary says why a reload of c at the time now changed nothing: the gateway had loaded the
// same content before. It mentions single-file mounts only where one may hide an edit: the mount
// shows a file that is gone, or it is a file of the configuration that the last load did not see
// change.
func UnchangedSummary(c *Config, last *Loading, now time.Time) string {
	ago := max(0, now.Sub(last.At).Truncate(time.Second))
	when := fmt.Sprintf("%v ago, at %s", ago, last.At.UTC().Format("15:04:05Z"))
	if ago >= 24*time.Hour {
		when = "at " + last.At.UTC().Format("2006-01-02 15:04:05Z")
	}
	text := "nothing changed: "
	switch last.By {
	case ByWatcher:
		text += "the file watcher already loaded this content " + when
		if len(last.Files) > 0 {
			text += ", when it saw a change of " + named(last.Files)
		}
	case ByRequest:
		text += "an earlier `sallyport reload` or SIGHUP already loaded this content " + when
	default:
		text += "the files hold what the gateway loaded when it started, " + when
	}
	text += ": " + last.Summary
	var gone, hidden []string
	for _, m := range watch.MountedAlone(c.Files()) {
		switch {
		case m.Gone:
			gone = append(gone, m.Path)
		case slices.Contains(c.source.files, m.File) && !slices.Contains(last.Files, m.Path):
			hidden = append(hidden, m.Path)
		}
	}
	if len(gone) > 0 {
		text += fmt.Sprintf("; the single-file mount of %s still shows a file that was replaced or removed: mount the folder instead", named(gone))
	}
	if len(hidden) > 0 {
		text += fmt.Sprintf("; if you have edited %s since: a single-file mount does not show a file that an editor puts in its place, so mount the folder instead", named(hidden))
	}
	return text
}

// named joins the names of files, and counts those that would be too many.
func named(files []string) string {
	if more := len(files) - maxNamed; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(files[:maxNamed], ", "), more)
	}
	return strings.Join(files, ", ")
}
