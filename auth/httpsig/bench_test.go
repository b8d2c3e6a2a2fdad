package httpsig_test

import (
	"bytes"
	"crypto/sha256"
	"io"
	"testing"

	"sallyport/auth/httpsig"
)

func BenchmarkVerify(b *testing.B) {
	key := secretKey(b, "k1")
	m := sign(b, httpsig.RequestProfile(), key, request(), "")
	v := verifier(b, httpsig.RequestPolicy(), key)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.Verify(m); err != nil {
			b.Fatal(err)
		}
	}
}

// The cost of refusing a forged signature. It must be the same for known and unknown key
// ids.
func BenchmarkVerifyRefused(b *testing.B) {
	key := secretKey(b, "k1")
	m := sign(b, httpsig.RequestProfile(), key, request(), "")
	m.Path = "/other"
	for name, keys := range map[string][]*httpsig.Key{"unknown": nil, "known": {key}} {
		b.Run(name, func(b *testing.B) {
			v := verifier(b, httpsig.RequestPolicy(), keys...)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := v.Verify(m); err == nil {
					b.Fatal("it passes")
				}
			}
		})
	}
}

func BenchmarkSign(b *testing.B) {
	key := secretKey(b, "k1")
	s, m := signer(b, httpsig.RequestProfile()), request()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Sign(key, m, ""); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkContent(b *testing.B) {
	content := make([]byte, 1<<20)
	d, err := httpsig.ParseContentDigest(httpsig.Lines{{Name: "content-digest", Value: httpsig.ContentDigest(content)}})
	if err != nil {
		b.Fatal(err)
	}
	// Plain SHA-256 over the same reads, for comparison.
	b.Run("plain", func(b *testing.B) {
		b.SetBytes(int64(len(content)))
		buf := make([]byte, 32<<10)
		for b.Loop() {
			h := sha256.New()
			from := bytes.NewReader(content)
			for {
				n, err := from.Read(buf)
				h.Write(buf[:n])
				if err == io.EOF {
					break
				}
			}
			h.Sum(nil)
		}
	})
	b.Run("verified", func(b *testing.B) {
		b.SetBytes(int64(len(content)))
		b.ReportAllocs()
		buf := make([]byte, 32<<10)
		for b.Loop() {
			from := d.NewReader(bytes.NewReader(content))
			for {
				_, err := from.Read(buf)
				if err == io.EOF {
					break
				}
				if err != nil {
					b.Fatal(err)
				}
			}
		}
	})
}

// The cost of the digest of a small content, besides hashing it.
func BenchmarkDigest(b *testing.B) {
	content := make([]byte, 1<<10)
	fields := httpsig.Lines{{Name: "content-digest", Value: httpsig.ContentDigest(content)}}
	b.ReportAllocs()
	for b.Loop() {
		d, err := httpsig.ParseContentDigest(fields)
		if err == nil {
			err = d.Match(content)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}
