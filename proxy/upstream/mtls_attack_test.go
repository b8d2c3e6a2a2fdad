package upstream

import (
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"sallyport/proxy/setting"
)

// TestRotationMixesNoCertificates rotates the gateway's certificate again and again, back to earlier ones
// and through broken files, while requests of the configuration before go on. Neither a kept connection
// nor a resumed session may carry a request under the other certificate.
func TestRotationMixesNoCertificates(t *testing.T) {
	for _, scheme := range []string{"https", "h2"} {
		t.Run(scheme, func(t *testing.T) {
			a := newAuthority(t)
			srv := verifies(t, a, a.issue(t, x509.ExtKeyUsageServerAuth, "tf.internal"))
			pools := NewPools(still)
			type pair struct{ cert, key []byte }
			var pairs []pair
			var c Config
			for i := range 3 {
				own := a.files(t, a.issue(t, x509.ExtKeyUsageClientAuth, fmt.Sprintf("name-%d.internal", i)))
				pairs = append(pairs, pair{contentOf(t, own.Cert), contentOf(t, own.Key)})
				c = Config{
					Rest: setting.List[setting.URL]{endpointURL(t, scheme+srv.URL[len("https"):])}, CA: setting.Path(filepath.Join(a.dir, "ca.pem")),
					ServerID: "tf.internal", ClientCertificate: own,
				}
			}
			write := func(p pair) {
				for file, text := range map[setting.Path][]byte{c.ClientCertificate.Cert: p.cert, c.ClientCertificate.Key: p.key} {
					if err := os.WriteFile(string(file), text, 0o600); err != nil {
						t.Fatal(err)
					}
				}
			}
			var before *Upstream
			for i := range 30 {
				n := i % len(pairs)
				write(pairs[n])
				u, err := pools.Open("test", c, false)
				if err != nil {
					t.Fatal(err)
				}
				write(pair{pairs[n].cert, pairs[(n+1)%len(pairs)].key})
				if _, err := pools.Open("test", c, false); err == nil {
					t.Fatal("a certificate with the key of another is taken")
				}
				var work sync.WaitGroup
				for range 4 {
					expect := func(u *Upstream, want int) {
						if _, body, err := outcome(u, get()); err != nil || body != fmt.Sprintf("name-%d.internal", want) {
							t.Errorf("rotation %d: got %q, %v; want name-%d", i, body, err, want)
						}
					}
					work.Go(func() { expect(u, n) })
					if before != nil {
						work.Go(func() { expect(before, (n+len(pairs)-1)%len(pairs)) })
					}
				}
				work.Wait()
				if before != nil {
					before.Close()
				}
				before = u
			}
			before.Close()
		})
	}
}

func contentOf(t *testing.T, file setting.Path) []byte {
	t.Helper()
	text, err := os.ReadFile(string(file))
	if err != nil {
		t.Fatal(err)
	}
	return text
}
