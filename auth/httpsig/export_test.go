package httpsig

// SignBase signs a given base, for vectors with parameters that no Signer makes.
func SignBase(k *Key, base []byte) ([]byte, error) { return k.sign(nil, base) }

// Canonical returns a structured field in canonical form.
func Canonical(text string, kind Kind) (string, bool) {
	b, ok := appendStructured(nil, text, kind)
	return string(b), ok
}
