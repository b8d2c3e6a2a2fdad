package apikey

import (
	"crypto/sha256"
	"encoding/hex"
	"hash/crc32"
	"regexp"
	"strings"
	"testing"
)

func TestKeyHasScannableForm(t *testing.T) {
	form, seen := regexp.MustCompile(`^sp_[0-9A-Za-z]{49}$`), map[string]bool{}
	for range 200 {
		key := New()
		sum := sha256.Sum256([]byte(key))
		if !form.MatchString(key) || seen[key] || HashText(key) != "sha256:"+hex.EncodeToString(sum[:]) {
			t.Fatalf("a bad key, or one made twice, hash %s", HashText(key))
		}
		seen[key] = true
		n, crc := uint32(0), crc32.ChecksumIEEE([]byte(key[:len(key)-sumDigits]))
		for _, digit := range key[len(key)-sumDigits:] {
			n = n*62 + uint32(strings.IndexRune(base62, digit))
		}
		if n != crc {
			t.Fatalf("checksum %d, want the CRC-32 %d", n, crc)
		}
		for at := range key {
			digit := "a"
			if key[at] == 'a' {
				digit = "b"
			}
			if HashText(key[:at]+digit+key[at+1:]) != "" {
				t.Fatalf("the checksum misses a change at %d", at)
			}
		}
	}
}
