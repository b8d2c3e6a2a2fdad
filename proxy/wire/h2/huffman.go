package h2

import "golang.org/x/net/http2/hpack"

// huffmanStep is the effect of four bits in a state, an inner node of the code tree (RFC 7541,
// appendix B). Every code is long enough that four bits complete at most one.
type huffmanStep struct {
	next  uint8
	sym   byte
	emits bool
	bad   bool // only EOS, which must not occur, begins like this
}

type huffmanTable struct {
	steps [256][16]huffmanStep
	ends  [256]bool // a string may end here: the remaining bits are padding
}

// huffman is built from the encoder's codes.
var huffman = func() (t [1]huffmanTable) {
	tree := make([][2]int, 1, 257) // children of inner nodes; 0: none; negative: the symbol -1-child
	for c := range 256 {
		eight := []byte{byte(c), byte(c), byte(c), byte(c), byte(c), byte(c), byte(c), byte(c)}
		code := hpack.AppendHuffmanString(nil, string(eight)) // as many bytes as one code has bits
		node := 0
		for i := range len(code) {
			bit := code[i/8] >> (7 - i%8) & 1
			switch {
			case i == len(code)-1:
				tree[node][bit] = -1 - c
			case tree[node][bit] == 0:
				tree[node][bit] = len(tree)
				tree = append(tree, [2]int{})
				fallthrough
			default:
				node = tree[node][bit]
			}
		}
	}
	for state := range tree {
		for nibble := range 16 {
			step := &t[0].steps[state][nibble]
			node := state
			for i := 3; i >= 0 && !step.bad; i-- {
				child := tree[node][nibble>>i&1]
				switch {
				case child == 0:
					step.bad = true
				case child < 0:
					step.emits, step.sym, node = true, byte(-1-child), 0
				default:
					node = child
				}
			}
			step.next = uint8(node)
		}
	}
	for node, depth := 0, 0; depth < 8; depth++ { // padding is a prefix of EOS
		t[0].ends[node] = true
		node = tree[node][1]
	}
	return t
}()

// appendHuffman decodes p; false if p is not valid Huffman code.
func appendHuffman(dst, p []byte) ([]byte, bool) {
	t := &huffman[0]
	state := uint8(0)
	for _, c := range p {
		one := &t.steps[state][c>>4]
		if one.emits {
			dst = append(dst, one.sym)
		}
		two := &t.steps[one.next][c&15]
		if two.emits {
			dst = append(dst, two.sym)
		}
		if one.bad || two.bad {
			return dst, false
		}
		state = two.next
	}
	return dst, t.ends[state]
}
