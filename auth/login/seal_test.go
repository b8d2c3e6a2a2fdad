package login

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"strings"
	"testing"
)

// TestXAESAgreesWithPublishedVectors checks the construction against those of C2SP.
func TestXAESAgreesWithPublishedVectors(t *testing.T) {
	for _, v := range []struct{ key, additional, want string }{
		{"\x01", "", "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"},
		{"\x03", "c2sp.org/XAES-256-GCM", "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d"},
	} {
		nonce := []byte("ABCDEFGHIJKLMNOPQRSTUVWX")
		k := newSealKey(bytes.Repeat([]byte(v.key), keySize))
		if got := hex.EncodeToString(k.derive(nonce).Seal(nil, nonce[12:], []byte("XAES-256-GCM"), []byte(v.additional))); got != v.want {
			t.Errorf("got %s, want %s", got, v.want)
		}
	}
}

func keysOf(t testing.TB, lines ...string) *Keys {
	t.Helper()
	k, err := ParseKeys([]byte(strings.Join(lines, "\n")))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TestKeysRotateWithOverlap checks that a new first key seals, and an older one opens until it is removed.
func TestKeysRotateWithOverlap(t *testing.T) {
	older, newer := NewKey(), NewKey()
	before, overlap, after := keysOf(t, older), keysOf(t, "# of March", newer, "", older), keysOf(t, newer)
	sealed := before.seal(nil, []byte("text"), []byte("host"))
	if text, err := overlap.open(bytes.Clone(sealed), []byte("host")); err != nil || string(text) != "text" {
		t.Errorf("during the overlap: %q, %v", text, err)
	}
	if _, err := after.open(bytes.Clone(sealed), []byte("host")); err != errRetired {
		t.Errorf("after it: %v", err)
	}
	sealed = overlap.seal(nil, []byte("text"), []byte("host"))
	if _, err := after.open(bytes.Clone(sealed), []byte("host")); err != nil {
		t.Errorf("the first key does not seal: %v", err)
	}
	if _, err := after.open(bytes.Clone(sealed), []byte("other")); err != errForged {
		t.Errorf("other additional data: %v", err)
	}
}

func TestBadKeysAreRefusedWithoutBeingRepeated(t *testing.T) {
	key := NewKey()
	for name, text := range map[string]string{
		"none": "# nothing\n\n", "short": key[:20], "long": key[:40] + key, "twice": key + "\n" + key, "another alphabet": "!" + key[1:],
		"zeros": base64.StdEncoding.EncodeToString(make([]byte, 32)), "made up": base64.StdEncoding.EncodeToString([]byte(strings.Repeat("secret", 6)[:32])),
		"many": strings.Join([]string{NewKey(), NewKey(), NewKey(), NewKey(), NewKey(), NewKey(), NewKey(), NewKey(), NewKey()}, "\n"),
	} {
		if _, err := ParseKeys([]byte(text)); err == nil {
			t.Errorf("%s: accepted", name)
		} else if strings.Contains(err.Error(), key[1:16]) {
			t.Errorf("%s: the error repeats the key: %v", name, err)
		}
	}
}
