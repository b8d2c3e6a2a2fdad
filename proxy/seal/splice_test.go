package seal

import (
	"bytes"
	"io"
	"math/rand/v2"
	"slices"
	"testing"

	"sallyport/proxy/limit"
)

func TestSplicedContentIsThatOfASlice(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, size := range []int{0, 1, BlockBytes - 1, BlockBytes, BlockBytes + 1, 2*BlockBytes - 3, 2 * BlockBytes, 3*BlockBytes + 7} {
		content := make([]byte, size)
		for i := range content {
			content[i] = byte(random.Uint32())
		}
		for _, at := range []int{0, 1, 5, BlockBytes - 2, BlockBytes, size - 2, size} {
			for _, n := range []int{0, 2} {
				for _, grown := range []int{0, 1, 3, 500, BlockBytes + 5} {
					if at < 0 || at+n > size {
						continue
					}
					with := bytes.Repeat([]byte{'x'}, n+grown)
					budget := limit.NewBytes(1 << 20)
					var h Buffer
					if err := h.Fill(budget, bytes.NewReader(content), 1<<20); err != nil {
						t.Fatal(err)
					}
					if err := h.Splice(int64(at), n, with); err != nil {
						t.Fatal(err)
					}
					want := slices.Concat(content[:at], with, content[at+n:])
					if size > 0 && at+n < size && h.At(int64(at+len(with))) != want[at+len(with)] {
						t.Errorf("size %d, at %d: another byte behind", size, at)
					}
					if got, err := io.ReadAll(&h); err != nil || !bytes.Equal(got, want) {
						t.Errorf("size %d, at %d, n %d, %d more: other content, %v", size, at, n, grown, err)
					}
					if h.Release(); budget.Used() != 0 {
						t.Errorf("%d bytes are not given back", budget.Used())
					}
				}
			}
		}
	}
}

func TestSpliceBeyondTheBudgetChangesNothing(t *testing.T) {
	var h Buffer
	content := bytes.Repeat([]byte{'a'}, BlockBytes-1)
	if err := h.Fill(limit.NewBytes(BlockBytes), bytes.NewReader(content), BlockBytes); err != nil {
		t.Fatal(err)
	}
	defer h.Release()
	if err := h.Splice(0, 0, []byte("bc")); err != ErrMemory {
		t.Errorf("%v; want ErrMemory", err)
	}
	if got, _ := io.ReadAll(&h); !bytes.Equal(got, content) {
		t.Error("other content")
	}
}
