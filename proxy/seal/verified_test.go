package seal

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"sallyport/auth/httpsig"
	"sallyport/proxy/limit"
	"sallyport/proxy/message"
)

func digestsOf(t *testing.T, content string) httpsig.Digests {
	t.Helper()
	d, err := httpsig.ParseContentDigest(&message.Fields{{Name: "content-digest", Value: httpsig.ContentDigest([]byte(content))}})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestVerifiedContentEndsOnlyIfItIsWhatWasSigned(t *testing.T) {
	refused := errors.New("no grant for the whole call")
	for _, c := range []struct {
		name, sent string
		release    func() error
		right      bool
	}{
		{"as signed", "what was signed", nil, true},
		{"changed", "what was Signed", nil, false},
		{"cut", "what was sign", nil, false},
		{"longer", "what was signed.", nil, false},
		{"as signed, and granted", "what was signed", func() error { return nil }, true},
		{"as signed, and refused once it is whole", "what was signed", func() error { return refused }, false},
	} {
		v := NewVerified(WithoutTrailers(strings.NewReader(c.sent)), digestsOf(t, "what was signed"), c.release)
		_, err := io.ReadAll(v)
		if (err == nil) != c.right || v.Right() != c.right {
			t.Errorf("%s: got %v, right %v", c.name, err, v.Right())
		}
	}
}

// pieces brings one piece at each read.
type pieces struct {
	left []string
	err  error
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.left) == 0 {
		return 0, p.err
	}
	n := copy(b, p.left[0])
	p.left = p.left[1:]
	return n, nil
}

func (*pieces) Trailers() message.Fields { return nil }

func TestWithheldEndKeepsTheLastPieceBackUntilTheEndIsClean(t *testing.T) {
	bad := errors.New("not as signed")
	for _, c := range []struct {
		err  error
		want string
	}{{io.EOF, "abc"}, {bad, "ab"}} {
		got, err := io.ReadAll(&withheldEnd{Body: &pieces{[]string{"a", "b", "c"}, c.err}})
		if string(got) != c.want || err != nil != (c.err == bad) {
			t.Errorf("%v: got %q, %v; want %q", c.err, got, err, c.want)
		}
	}
}

func TestBufferHoldsWithinItsBudget(t *testing.T) {
	budget := limit.NewBytes(2 * BlockBytes)
	content := bytes.Repeat([]byte("0123456789abcdef"), BlockBytes/16)
	var one, two Buffer
	if err := one.Fill(budget, bytes.NewReader(content[:BlockBytes-1]), BlockBytes); err != nil {
		t.Fatal(err)
	}
	if err := two.Fill(budget, bytes.NewReader(bytes.Repeat(content, 2)), 1<<20); !errors.Is(err, ErrMemory) {
		t.Errorf("more than the budget: got %v", err)
	}
	two.Release()
	if err := two.Fill(budget, strings.NewReader("too long"), 3); !errors.Is(err, ErrTooLong) {
		t.Errorf("too long: got %v", err)
	}
	two.Follow(strings.NewReader(""))
	if got, _ := io.ReadAll(&two); string(got) != "too long" {
		t.Errorf("what was read before it was found too long: %q", got)
	}
	if got, err := io.ReadAll(&one); err != nil || !bytes.Equal(got, content[:BlockBytes-1]) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	one.Release()
	two.Release()
	if n := budget.Used(); n != 0 {
		t.Errorf("%d bytes of the budget were not given back", n)
	}
}
