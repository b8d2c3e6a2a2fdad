package model

import (
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
)

// sliceLead is a Lead in a slice.
type sliceLead []byte

func (l *sliceLead) Size() int64     { return int64(len(*l)) }
func (l *sliceLead) At(i int64) byte { return (*l)[i] }
func (l *sliceLead) Splice(at int64, n int, with []byte) error {
	*l = slices.Concat((*l)[:at], with, (*l)[at+int64(n):])
	return nil
}

// pinned are shapes into which versions can be written.
var pinned = []struct {
	message, version string
	shape            shape
}{
	{"Predict", "7", specAt1},
	{"Predict", "9223372036854775807", specAt1},
	{"Predict", "label:stable", specAt1},
	{"Infer", "1.0", nameVersion(1, 2)},
	{"Infer", "7", nameVersion(1, 2).numbered()},
}

// unaryReading is the reading of a unary call with messages of a shape.
func unaryReading(s shape) *Reading {
	d, _ := ByName("triton")
	return &Reading{Call: Call{Dialect: d, Verb: "predict"}, method: &method{verb: "predict", shape: s}}
}

// scanned returns what a scanner reads from a body.
func scannedIn(s shape, body []byte) (named Named, err error) {
	scan := newFrameScanner(s, false, ScanOptions{Decide: func(n Named) error { named = n; return nil }})
	if _, err = scan.Write(body); err == nil {
		err = scan.Check()
	}
	return named, err
}

// withVersionSet is a message as the real decoder reads it, with the version set by the real encoder's
// rules.
func withVersionSet(t *testing.T, message string, data []byte, version string) proto.Message {
	t.Helper()
	m := dynamicpb.NewMessage(pbMessages.Messages().ByName(protoreflect.Name(message)))
	if err := proto.Unmarshal(data, m); err != nil {
		t.Fatal(err)
	}
	field := func(m protoreflect.Message, name string) protoreflect.FieldDescriptor {
		return m.Descriptor().Fields().ByName(protoreflect.Name(name))
	}
	if message == "Infer" {
		m.Set(field(m, "version"), protoreflect.ValueOfString(version))
		return m
	}
	spec := m.Mutable(field(m, "spec")).Message()
	if label, ok := strings.CutPrefix(version, Label); ok {
		spec.Set(field(spec, "label"), protoreflect.ValueOfString(label))
		return m
	}
	n, err := readNumber(version)
	if err != nil {
		t.Fatal(err)
	}
	number := spec.Mutable(field(spec, "version")).Message()
	value := int64(0)
	for _, c := range n {
		value = 10*value + int64(c-'0')
	}
	number.Set(field(number, "value"), protoreflect.ValueOfInt64(value))
	return m
}

// checkPinned writes a version into a message that names none, and compares what the real decoder reads.
func checkPinned(t *testing.T, message, version string, s shape, data []byte) {
	t.Helper()
	body := framed(0, data)
	named, err := scannedIn(s, body)
	if err != nil || named.Version != Latest {
		return
	}
	lead := sliceLead(slices.Clone(body))
	if err := unaryReading(s).WriteVersion(&lead, version); err != nil {
		if !errors.Is(err, errLeadForm) {
			t.Errorf("%s %x: %v", message, data, err)
		}
		return
	}
	if n := binary.BigEndian.Uint32(lead[1:5]); int(n) != len(lead)-5 {
		t.Fatalf("%x: the frame says %d bytes of %d", data, n, len(lead)-5)
	}
	again, err := scannedIn(s, lead)
	if want := (Named{named.Model, version, named.Signature}); err != nil || again != want {
		t.Fatalf("%x: the call is read again as %v, %v; want %v", lead, again, err, want)
	}
	got := dynamicpb.NewMessage(pbMessages.Messages().ByName(protoreflect.Name(message)))
	if err := proto.Unmarshal(lead[5:], got); err != nil {
		t.Fatalf("%x: %v", lead, err)
	}
	if want := withVersionSet(t, message, data, version); !proto.Equal(got, want) {
		t.Fatalf("%x: %v; want %v", lead, got, want)
	}
}

func TestVersionIsWrittenIntoMessages(t *testing.T) {
	spec := func(fields ...[]byte) []byte { return pbText(1, string(slices.Concat(fields...))) }
	tensor := pbText(7, strings.Repeat("t", 300))
	for _, c := range []struct {
		shape   shape
		message string
		data    []byte
		good    bool
	}{
		{specAt1, "Predict", spec(pbText(1, "half")), true},
		{specAt1, "Predict", spec(pbText(1, "half"), pbText(3, "serving_default")), true},
		{specAt1, "Predict", slices.Concat(tensor, spec(pbText(1, "half"))), true},
		{specAt1, "Predict", slices.Concat(spec(pbText(1, strings.Repeat("h", 124))), tensor), true}, // its length gets a second byte
		{specAt1, "Predict", []byte{0x0a, 0x86, 0x00, 0x0a, 4, 'h', 'a', 'l', 'f'}, false},
		{v2Shape, "Infer", slices.Concat(pbText(1, "half"), tensor), true},
		{v2Shape, "Infer", slices.Concat(pbText(1, "half"), pbText(2, ""), tensor), true},
		{v2Shape, "Infer", slices.Concat(pbText(2, ""), tensor, pbText(1, "half")), true},
		{v2Shape.numbered(), "Infer", slices.Concat(tensor, pbText(1, "half"), pbText(2, "")), true},
	} {
		for _, p := range pinned {
			if p.shape != c.shape {
				continue
			}
			lead := sliceLead(framed(0, c.data))
			if err := unaryReading(c.shape).WriteVersion(&lead, p.version); (err == nil) != c.good {
				t.Errorf("%x: %v", c.data, err)
			}
			checkPinned(t, c.message, p.version, c.shape, c.data)
		}
	}
}

// What the lead does not hold, or what could not be rewritten, is refused; nothing is changed.
func TestMessagesWithoutPlaceForAVersionAreLeftAlone(t *testing.T) {
	half := pbText(1, string(pbText(1, "half")))
	for name, c := range map[string]struct {
		reading *Reading
		lead    []byte
	}{
		"compressed":             {unaryReading(specAt1), framed(1, half)},
		"no message":             {unaryReading(specAt1), []byte{0, 0, 0}},
		"the spec is behind":     {unaryReading(specAt1), framed(0, slices.Concat(pbText(2, strings.Repeat("t", 100)), half))[:50]},
		"the spec is cut":        {unaryReading(specAt1), framed(0, half)[:8]},
		"several tasks":          {unaryReading(tasksAt1), framed(0, pbText(1, string(half)))},
		"a name alone":           {unaryReading(nameVersion(2, 0)), framed(0, pbText(2, "half"))},
		"a stream":               {&Reading{method: &method{shape: v2Shape, streams: true}}, framed(0, pbText(1, "half"))},
		"a message of no model":  {unaryReading(nothing), framed(0, nil)},
		"the longest of lengths": {unaryReading(v2Shape), slices.Concat([]byte{0, 0xff, 0xff, 0xff, 0xff}, pbText(1, "half"))},
	} {
		lead := sliceLead(slices.Clone(c.lead))
		if err := c.reading.WriteVersion(&lead, "7"); !errors.Is(err, ErrNoPlace) {
			t.Errorf("%s: %v; want ErrNoPlace", name, err)
		}
	}
}

// FuzzWriteVersion compares messages into which a version was written with the real decoder.
func FuzzWriteVersion(f *testing.F) {
	f.Add([]byte(pbText(1, string(pbText(1, "half")))))
	f.Add(slices.Concat(pbText(1, "half"), pbText(2, ""), pbText(7, "tensor")))
	f.Add(slices.Concat(pbText(7, "tensor"), pbText(1, string(slices.Concat(pbText(3, "s"), pbText(1, "half"))))))
	f.Add([]byte{0x0a, 0x86, 0x00, 0x0a, 4, 'h', 'a', 'l', 'f'})
	f.Add([]byte{0x12, 0x80, 0x00, 0x0a, 4, 'h', 'a', 'l', 'f'})
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, p := range pinned {
			checkPinned(t, p.message, p.version, p.shape, data)
		}
	})
}
