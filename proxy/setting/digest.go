package setting

import (
	"crypto/sha256"
	"encoding"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"os"
	"reflect"
	"slices"
)

// MaxDigested is the maximum size, in bytes, of a file that [Digest] covers.
const MaxDigested = 32 << 20

// Digest identifies a section of the configuration by its content. Two values have the same
// digest only if they are equal and the files and secrets that they name have the same content
// now. State that outlives a configuration is stored under the digest of its section, so that
// another section never uses it.
//
// It covers exported fields. An unreadable file counts as empty; whoever opens it reports the
// error. The digest is a hexadecimal SHA-256; secrets are included, but cannot be derived from
// it.
func Digest(v any) string {
	h := sha256.New()
	digest(h, reflect.ValueOf(v))
	return hex.EncodeToString(h.Sum(nil))
}

// writeText writes a text with its length, so that different sequences never collide.
func writeText(h hash.Hash, text []byte) {
	var n [8]byte
	binary.BigEndian.PutUint64(n[:], uint64(len(text)))
	_, _ = h.Write(n[:])
	_, _ = h.Write(text)
}

func digest(h hash.Hash, v reflect.Value) {
	if !v.IsValid() {
		writeText(h, []byte("nil"))
		return
	}
	writeText(h, []byte(v.Type().String()))
	switch x := v.Interface().(type) {
	case Secret:
		if !x.IsZero() {
			secret, _ := x.Read()
			writeText(h, []byte(x.Where()))
			writeText(h, secret)
		}
		return
	case Path:
		writeText(h, []byte(x))
		if info, err := os.Stat(string(x)); err == nil && info.Mode().IsRegular() && info.Size() <= MaxDigested {
			text, _ := os.ReadFile(string(x))
			writeText(h, text)
		}
		return
	case encoding.TextMarshaler:
		// In addition to the fields: the text may contain more than the exported ones.
		if v.Kind() != reflect.Pointer || !v.IsNil() {
			text, err := x.MarshalText()
			writeText(h, fmt.Appendf(text, "%v", err))
		}
	}
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			digest(h, v.Elem())
		}
	case reflect.Struct:
		if s, ok := v.Interface().(fmt.Stringer); ok {
			writeText(h, []byte(s.String()))
		}
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				digest(h, v.Field(i))
			}
		}
	case reflect.Slice, reflect.Array:
		writeText(h, fmt.Append(nil, v.Len()))
		for i := range v.Len() {
			digest(h, v.Index(i))
		}
	case reflect.Map:
		keys := v.MapKeys()
		slices.SortFunc(keys, func(a, b reflect.Value) int {
			if at, bt := fmt.Sprint(a), fmt.Sprint(b); at < bt {
				return -1
			} else if at > bt {
				return 1
			}
			return 0
		})
		writeText(h, fmt.Append(nil, len(keys)))
		for _, k := range keys {
			digest(h, k)
			digest(h, v.MapIndex(k))
		}
	default:
		writeText(h, fmt.Append(nil, v.Interface()))
	}
}
