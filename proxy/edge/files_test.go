package edge

import (
	"context"
	"crypto/x509"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/proxy/setting"
)

// fileEdge returns an edge with these files, and its source.
func fileEdge(t *testing.T, j *journal, hosts []string, configs ...FileConfig) (*Edge, *fileSource) {
	t.Helper()
	e := newEdge(t, Config{Files: configs}, Options{Hosts: hosts, Log: j.log()})
	return e, e.view.Load().sources[0].(*fileSource)
}

// serving returns the serial number of the certificate for a name.
func serving(e *Edge, name string) string {
	c := e.view.Load().sources[0].certificate(name, nil)
	if c == nil {
		return ""
	}
	return c.Leaf.SerialNumber.String()
}

func TestReplacedFilesAreServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, dir := newTestCA(t), t.TempDir()
		var j journal
		c := ca.write(t, dir, "a", forHosts("a.example.com"))
		e, _ := fileEdge(t, &j, []string{"a.example.com"}, c)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- e.Run(ctx) }()
		before := serving(e, "a.example.com")

		time.Sleep(3 * lookEvery)
		synctest.Wait()
		if got := serving(e, "a.example.com"); got != before || j.String() != "" {
			t.Errorf("without a change: certificate %s, was %s, log %q", got, before, j.String())
		}
		ca.write(t, dir, "a", forHosts("a.example.com"))
		time.Sleep(lookEvery)
		synctest.Wait()
		if got := serving(e, "a.example.com"); got == before {
			t.Error("the new certificate is not served")
		}
		if got := strings.Count(j.String(), "the certificate was replaced"); got != 1 {
			t.Errorf("the change was logged %d times, want once: %s", got, j.String())
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// Kubernetes replaces mounted secrets by changing a symbolic link.
func TestFilesReplacedThroughASymbolicLinkAreServed(t *testing.T) {
	ca, dir := newTestCA(t), t.TempDir()
	for _, version := range []string{"v1", "v2"} {
		if err := os.Mkdir(filepath.Join(dir, version), 0o700); err != nil {
			t.Fatal(err)
		}
		ca.write(t, filepath.Join(dir, version), "tls", forHosts("a.example.com"))
	}
	link := func(from, to string) {
		t.Helper()
		tmp := filepath.Join(dir, "tmp")
		if err := os.Symlink(from, tmp); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(tmp, filepath.Join(dir, to)); err != nil {
			t.Fatal(err)
		}
	}
	link("v1", "..data")
	link("..data/tls.pem", "tls.pem")
	link("..data/tls.key", "tls.key")
	var j journal
	e, s := fileEdge(t, &j, []string{"a.example.com"}, FileConfig{Cert: setting.Path(filepath.Join(dir, "tls.pem")), Key: setting.Path(filepath.Join(dir, "tls.key"))})
	before := serving(e, "a.example.com")
	link("v2", "..data")
	s.look()
	if got := serving(e, "a.example.com"); got == before {
		t.Error("the certificate behind the changed link is not served")
	}
}

func TestBrokenFilesAreNotServed(t *testing.T) {
	ca := newTestCA(t)
	good := forHosts("a.example.com", "b.example.com")
	for _, tt := range []struct {
		name   string
		change func(t *testing.T, dir string, c FileConfig)
		want   string // part of LastError
	}{
		{"certificate truncated", func(t *testing.T, _ string, c FileConfig) {
			b, err := os.ReadFile(string(c.Cert))
			if err != nil {
				t.Fatal(err)
			}
			writeTest(t, string(c.Cert), b[:len(b)/2])
		}, "PEM"},
		{"certificate missing", func(t *testing.T, _ string, c FileConfig) { os.Remove(string(c.Cert)) }, "a.pem: no such file"},
		{"key missing", func(t *testing.T, _ string, c FileConfig) { os.Remove(string(c.Key)) }, "a.key: no such file"},
		{"key of another certificate", func(t *testing.T, dir string, c FileConfig) {
			other := ca.write(t, dir, "other", forHosts("a.example.com"))
			if err := os.Rename(string(other.Key), string(c.Key)); err != nil {
				t.Fatal(err)
			}
		}, "private key does not match"},
		{"a host missing", func(t *testing.T, dir string, _ FileConfig) {
			ca.write(t, dir, "a", forHosts("a.example.com"))
		}, "no longer names host b.example.com"},
		{"expired", func(t *testing.T, dir string, _ FileConfig) {
			ca.write(t, dir, "a", &x509.Certificate{DNSNames: good.DNSNames, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(-time.Minute)})
		}, "expired at"},
		{"not yet valid", func(t *testing.T, dir string, _ FileConfig) {
			ca.write(t, dir, "a", &x509.Certificate{DNSNames: good.DNSNames, NotBefore: time.Now().Add(time.Hour)})
		}, "valid only from"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			var j journal
			c := ca.write(t, dir, "a", forHosts(good.DNSNames...))
			e, s := fileEdge(t, &j, good.DNSNames, c)
			before := serving(e, "a.example.com")
			tt.change(t, dir, c)

			s.look()
			if j.String() != "" {
				t.Errorf("logged at the first poll, which may see half a change: %s", j.String())
			}
			for range 5 {
				s.look()
			}
			if got := serving(e, "a.example.com"); got != before {
				t.Errorf("serving %s, want the old %s", got, before)
			}
			if got := e.Certificates()[0].LastError; !strings.Contains(got, tt.want) {
				t.Errorf("status %q, want %q", got, tt.want)
			}
			if got := strings.Count(j.String(), "the old one stays in use"); got != 1 {
				t.Errorf("logged %d times, want once: %s", got, j.String())
			}

			ca.write(t, dir, "a", forHosts(good.DNSNames...))
			s.look()
			if got := serving(e, "a.example.com"); got == before {
				t.Error("the repaired certificate is not served")
			}
			if got := e.Certificates()[0].LastError; got != "" {
				t.Errorf("status %q after the repair, want none", got)
			}
		})
	}
}

// Restoring the served files also clears the fault.
func TestRestoringFilesClearsTheFault(t *testing.T) {
	ca, dir := newTestCA(t), t.TempDir()
	var j journal
	c := ca.write(t, dir, "a", forHosts("a.example.com"))
	e, s := fileEdge(t, &j, []string{"a.example.com"}, c)
	old, err := os.ReadFile(string(c.Cert))
	if err != nil {
		t.Fatal(err)
	}
	writeTest(t, string(c.Cert), []byte("garbage"))
	s.look()
	s.look()
	writeTest(t, string(c.Cert), old)
	s.look()
	if got := e.Certificates()[0].LastError; got != "" {
		t.Errorf("status %q after the old file came back, want none", got)
	}
	writeTest(t, string(c.Cert), []byte("garbage"))
	s.look()
	s.look()
	if got := strings.Count(j.String(), "the old one stays in use"); got != 2 {
		t.Errorf("logged %d times, want once for each time it broke: %s", got, j.String())
	}
}

func TestExposedFilesAreLoggedAtStart(t *testing.T) {
	ca, dir := newTestCA(t), t.TempDir()
	var j journal
	end := time.Now().Add(-time.Minute)
	c := ca.write(t, dir, "a", &x509.Certificate{DNSNames: []string{"A.Example.com"}, NotBefore: end.Add(-time.Hour), NotAfter: end})
	if err := os.Chmod(string(c.Key), 0o644); err != nil {
		t.Fatal(err)
	}
	e, _ := fileEdge(t, &j, []string{"a.example.com"}, c)
	if want := "can be read by every user"; !strings.Contains(j.String(), want) {
		t.Errorf("the log lacks %q: %s", want, j.String())
	}
	got := e.Certificates()[0]
	if !slices.Equal(got.Hosts, []string{"a.example.com"}) || got.Source != "files" || got.Issuer != "test CA" || !got.NotBefore.Equal(end.Add(-time.Hour).Truncate(time.Second)) || !got.NotAfter.Equal(end.Truncate(time.Second)) {
		t.Errorf("status %+v", got)
	}
}

func TestKeyInMountedFolderIsNotExposed(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "tls.key")
	if err := os.WriteFile(name, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if !exposed(name) {
		t.Error("a world-readable key in an ordinary folder is not exposed")
	}
	if err := os.Symlink("x", filepath.Join(dir, "..data")); err != nil {
		t.Fatal(err)
	}
	if exposed(name) {
		t.Error("a key in a mounted folder is exposed")
	}
}
