package httpsig

// SignBase signs a base as it is, for vectors whose parameters no Signer makes.
func SignBase(k *Key, base []byte) ([]byte, error) { return k.sign(nil, base) }

// Canonical writes a structured field canonically.
func Canonical(text string, kind Kind) (string, bool) {
	b, ok := appendStructured(nil, text, kind)
	return string(b), ok
}
