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
		then       error // the error of an inspector after the digests
		asked      bool  // that inspector was asked at the end
		right      bool
	}{
		{"as signed", "what was signed", nil, true, true},
		{"changed", "what was Signed", nil, false, false},
		{"cut", "what was sign", nil, false, false},
		{"longer", "what was signed.", nil, false, false},
		{"as signed, and refused once it is whole", "what was signed", refused, true, false},
	} {
		asked := false
		v := NewVerified(WithoutTrailers(strings.NewReader(c.sent)), digestsOf(t, "what was signed").NewChecker(), AtEnd(func() error {
			asked = true
			return c.then
		}))
		_, err := io.ReadAll(v)
		if (err == nil) != c.right || v.Right() != c.right || asked != c.asked {
			t.Errorf("%s: got %v, right %v, the second inspector asked: %v", c.name, err, v.Right(), asked)
		}
	}
}

// finder refuses content if one piece contains a word.
type finder struct{ word string }

func (f finder) Write(p []byte) (int, error) {
	if strings.Contains(string(p), f.word) {
		return 0, errors.New("found " + f.word)
	}
	return len(p), nil
}

func (finder) Check() error { return nil }

func TestInspectorEndsContentInItsMiddle(t *testing.T) {
	v := NewVerified(&pieces{[]string{"one", "two", "three"}, io.EOF}, finder{"two"}, AtEnd(func() error {
		t.Error("the end was inspected though the content was refused before it")
		return nil
	}))
	got, err := io.ReadAll(v)
	if string(got) != "one" || err == nil || v.Right() {
		t.Errorf("got %q, %v, right %v; want the piece before the refused one, and the refusal", got, err, v.Right())
	}
}

// pieces returns one piece per read.
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

// arriving is content of which some has arrived.
type arriving struct {
	strings.Reader
	whole bool
}

func (a *arriving) Arrived() (n int, whole bool) { return a.Len(), a.whole }
func (*arriving) Trailers() message.Fields       { return nil }

// A sender of pieces learns that more can be read at once, so that it can send them in one write.
func TestHeldAndVerifiedContentSayWhatHasArrived(t *testing.T) {
	src := &arriving{Reader: *strings.NewReader("first and second"), whole: true}
	var v Verified
	v.Renew(src)
	var held Buffer
	defer held.Release()
	var read int
	want := func(n int, whole bool) {
		t.Helper()
		if gotN, got := held.Arrived(); gotN != n || got != whole {
			t.Errorf("after %d bytes: %d have arrived, the end too: %v; want %d, %v", read, gotN, got, n, whole)
		}
	}
	if err := held.Lead(limit.NewBytes(BlockBytes), io.LimitReader(&v, 6), BlockBytes, func() bool { return held.Size() == 6 }); err != nil {
		t.Fatal(err)
	}
	held.Follow(&v)
	want(16, true)
	src.whole = false
	want(16, false)
	for _, size := range []int{4, 2, 10} {
		n, err := held.Read(make([]byte, size))
		if read += n; err != nil || n != size {
			t.Fatal(n, err)
		}
		want(16-read, false)
	}
	held.Follow(nil)
	want(0, true)
}

func TestRenewedContentKnowsNothingOfTheLast(t *testing.T) {
	v := NewVerified(&pieces{[]string{"one"}, io.EOF}, finder{"other"})
	if _, err := io.ReadAll(v); err != nil || !v.Right() {
		t.Fatal(err)
	}
	v.Renew(&pieces{[]string{"other"}, io.EOF})
	if v.Right() {
		t.Error("new content is right before it was read")
	}
	if got, err := io.ReadAll(v); string(got) != "other" || err != nil {
		t.Errorf("got %q, %v: the last inspector has refused", got, err)
	}
	v.Renew(nil)
	if v.Right() || v.Body != nil || v.inspectors[:1][0] != nil {
		t.Error("content that is over is kept")
	}
}
