package edge

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/proxy/setting"
)

func localEdge(t *testing.T, dir string, now func() time.Time, hosts ...string) *Edge {
	t.Helper()
	return newEdge(t, Config{Local: &LocalConfig{Dir: setting.Place(dir)}}, Options{Hosts: hosts, Now: now})
}

func localPool(t *testing.T, e *Edge) *x509.CertPool {
	t.Helper()
	root, err := os.ReadFile(e.RootPath())
	pool := x509.NewCertPool()
	if err != nil || !pool.AppendCertsFromPEM(root) {
		t.Fatalf("reading the root: %v", err)
	}
	return pool
}

func TestLocalAuthorityFilesAndModes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "deep", "ca")
	e := localEdge(t, dir, nil, "localhost", "*.models.test")
	for name, want := range map[string]os.FileMode{"": 0o755 | os.ModeDir, authorityFile: 0o600, RootFile: 0o644} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode() != want {
			t.Errorf("%q: mode %v, error %v, want mode %v", name, info.Mode(), err, want)
		}
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 2 {
		t.Errorf("the folder has %d files, want 2 (%v)", len(files), err)
	}
	if want := filepath.Join(dir, RootFile); e.RootPath() != want {
		t.Errorf("RootPath = %s, want %s", e.RootPath(), want)
	}
	if got := localEdge(t, dir, nil).RootPath(); got != "" {
		t.Errorf("RootPath = %s where no host needs it, want none", got)
	}
	root := e.view.Load().local.authority.root
	if !root.MaxPathLenZero || root.KeyUsage != x509.KeyUsageCertSign {
		t.Error("the root could sign other authorities, or more than certificates")
	}
}

// Clients of other users read the root, as after a start by sudo. The operator may still close the
// folder: its mode stays.
func TestLocalFolderIsReadableUnlessItWasClosed(t *testing.T) {
	closed := filepath.Join(t.TempDir(), "ca")
	if err := os.Mkdir(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	open := filepath.Join(t.TempDir(), "ca")
	for dir, want := range map[string]os.FileMode{closed: 0o700, open: 0o755} {
		localEdge(t, dir, nil, "localhost")
		info, err := os.Stat(dir)
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("the folder has mode %v, want %v (%v)", info.Mode(), want, err)
		}
		key, err := os.Stat(filepath.Join(dir, authorityFile))
		if err != nil || key.Mode().Perm() != 0o600 {
			t.Errorf("the key has mode %v, want 0600 (%v)", key.Mode(), err)
		}
	}
}

// The root stays valid over restarts.
func TestLocalRootSurvivesRestart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	first := localEdge(t, dir, nil, "localhost")
	pool := localPool(t, first)
	second := localEdge(t, dir, nil, "localhost", "new.test")
	addr := listen(t, second, Limits{})
	for _, host := range []string{"localhost", "new.test"} {
		state, err := connect(addr, &tls.Config{ServerName: host, RootCAs: pool})
		if err != nil {
			t.Fatalf("%s: %v", host, err)
		}
		leaf := state.PeerCertificates[0]
		if life := leaf.NotAfter.Sub(leaf.NotBefore); life > leafLife+backdated || len(leaf.DNSNames) != 1 || leaf.IsCA {
			t.Errorf("%s: certificate for %v, life %s, CA %t", host, leaf.DNSNames, life, leaf.IsCA)
		}
	}
	if err := os.Remove(second.RootPath()); err != nil {
		t.Fatal(err)
	}
	localPool(t, localEdge(t, dir, nil, "localhost")) // root.pem is written again
}

// Several processes that start at once share one authority.
func TestLocalAuthorityIsSharedByConcurrentStarts(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	roots := make([]string, 8)
	var wg sync.WaitGroup
	for i := range roots {
		wg.Go(func() {
			a, err := openAuthority(dir, time.Now())
			if err != nil {
				t.Error(err)
				return
			}
			roots[i] = string(a.root.Raw)
		})
	}
	wg.Wait()
	for i := range roots {
		if roots[i] != roots[0] {
			t.Fatalf("process %d has another root than process 0", i)
		}
	}
}

func TestLocalCertificatesAreRenewed(t *testing.T) {
	now := time.Now()
	e := localEdge(t, filepath.Join(t.TempDir(), "ca"), func() time.Time { return now }, "localhost")
	before := e.Certificates()[0]
	if before.Source != "local" || before.Hosts[0] != "localhost" || !strings.HasPrefix(before.Issuer, "sallyport local CA") {
		t.Errorf("status %+v", before)
	}
	now = now.Add(leafLife - leafRest - time.Minute)
	e.view.Load().local.look()
	if got := e.Certificates()[0].NotAfter; !got.Equal(before.NotAfter) {
		t.Errorf("renewed %s too early", leafRest)
	}
	now = now.Add(2 * time.Minute)
	e.view.Load().local.look()
	if got := e.Certificates()[0].NotAfter; !got.After(before.NotAfter) {
		t.Errorf("not renewed: expires at %s", got)
	}
}

func TestLocalRefusesBadAuthority(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(t *testing.T, dir string)
		want   string
	}{
		{"key readable by others", func(t *testing.T, dir string) {
			if err := os.Chmod(filepath.Join(dir, authorityFile), 0o644); err != nil {
				t.Fatal(err)
			}
		}, "chmod 600"},
		{"garbage", func(t *testing.T, dir string) { writeTest(t, filepath.Join(dir, authorityFile), []byte("garbage")) }, "remove the folder"},
		{"no authority", func(t *testing.T, dir string) {
			c := newTestCA(t).write(t, t.TempDir(), "leaf", forHosts("a.test"))
			cert, err := os.ReadFile(string(c.Cert))
			if err != nil {
				t.Fatal(err)
			}
			key, err := os.ReadFile(string(c.Key))
			if err != nil {
				t.Fatal(err)
			}
			writeTest(t, filepath.Join(dir, authorityFile), append(cert, key...))
		}, "is not a certificate authority"},
		{"expired", func(t *testing.T, dir string) {
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
			if _, err := makeAuthority(dir, time.Now().Add(-rootLife)); err != nil {
				t.Fatal(err)
			}
		}, "to create a new one"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "ca")
			localEdge(t, dir, nil, "localhost")
			tt.change(t, dir)
			c := Config{Local: &LocalConfig{Dir: setting.Place(dir)}}
			_, err := New(c, Options{Hosts: []string{"localhost"}})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("New: got %v, want %q", err, tt.want)
			}
			var f setting.Faults
			c.CheckFiles("tls", []string{"localhost"}, true, &f)
			if !strings.Contains(f.Error(), tt.want) {
				t.Errorf("CheckFiles: got %q, want %q", f.Error(), tt.want)
			}
		})
	}
}

// CheckFiles creates no authority.
func TestLocalCheckFilesWritesNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	var f setting.Faults
	(&Config{Local: &LocalConfig{Dir: setting.Place(dir)}}).CheckFiles("tls", []string{"localhost"}, true, &f)
	if len(f) != 0 {
		t.Errorf("got %v, want no faults", f)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the check left something in %s (%v)", dir, err)
	}
}
