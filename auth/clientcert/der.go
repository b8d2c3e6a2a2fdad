package clientcert

// der reads one element of DER from the front of b: its tag, its content and what follows it. It
// takes definite lengths in their shortest form, and tags of one byte.
func der(b []byte) (tag byte, content, rest []byte, ok bool) {
	if len(b) < 2 || b[0]&0x1f == 0x1f {
		return 0, nil, nil, false
	}
	tag, size, at := b[0], int(b[1]), 2
	if size >= 0x80 {
		n := size & 0x7f
		if n == 0 || n > 4 || len(b) < 2+n {
			return 0, nil, nil, false
		}
		size = 0
		for _, c := range b[2 : 2+n] {
			size = size<<8 | int(c)
		}
		if size < 0x80 || n > 1 && size < 1<<(8*(n-1)) {
			return 0, nil, nil, false
		}
		at += n
	}
	if size > len(b)-at {
		return 0, nil, nil, false
	}
	return tag, b[at : at+size], b[at+size:], true
}
