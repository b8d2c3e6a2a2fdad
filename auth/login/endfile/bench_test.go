package endfile

import (
	"encoding/binary"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// manyEnds is how many people have signed out in the file of the benchmarks. That is far more than a
// [Set] has: the file grows until a day's lines no longer count.
const manyEnds = 1_000_000

// BenchmarkStart reads a file with a million ends, in two million lines, as a gateway does when it
// starts: it checks the file, opens it, and gives its ends to a login.
func BenchmarkStart(b *testing.B) {
	path := filepath.Join(b.TempDir(), "ends")
	text := appendHeader(nil, start)
	for i := range uint64(manyEnds) {
		l := Line{Kind: Session, Login: corp, At: start + int64(i/1000), Until: start + int64(i/1000)}
		binary.BigEndian.PutUint64(l.ID[:], i*0x9e3779b97f4a7c15)
		binary.BigEndian.PutUint64(l.Of[:], i*0xc2b2ae3d27d4eb4f)
		text = appendLine(text, &l)
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		b.Fatal(err)
	}
	size := int64(len(text))
	text = nil
	b.SetBytes(size)
	b.ReportAllocs()
	for b.Loop() {
		if err := Check(path); err != nil {
			b.Fatal(err)
		}
		f, err := Open(path, Options{Now: func() time.Time { return time.Unix(start+1000, 0) }, Log: slog.New(slog.DiscardHandler), Keep: 30 * 24 * time.Hour})
		if err != nil {
			b.Fatal(err)
		}
		s := &setSink{}
		f.Attach(corp, s)
		if s.set.Len() != MaxEnds {
			b.Fatalf("%d ends", s.set.Len())
		}
		f.Close()
	}
}

// setSink puts the ends in a set, as a login does.
type setSink struct{ set Set }

func (s *setSink) Apply(before int64, lines []Line) {
	s.set.Raise(before)
	for i := range lines {
		s.set.Add(&lines[i])
	}
}
