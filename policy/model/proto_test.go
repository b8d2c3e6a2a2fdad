package model

import (
	"bytes"
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

func TestProtoMessagesNameTheirModel(t *testing.T) {
	tensor := pbText(2, strings.Repeat("x", 3000))
	for name, c := range map[string]struct {
		shape   shape
		message []byte
		want    []Named
	}{
		"name":            {specAt1, slices.Concat(pbText(1, pbText(1, "m")), tensor), []Named{{"m", "latest", ""}}},
		"name at the end": {specAt1, slices.Concat(tensor, pbText(1, pbText(1, "m"))), []Named{{"m", "latest", ""}}},
		"version":         {specAt1, pbText(1, slices.Concat(pbText(2, pbNum(1, 7)), pbText(1, "m"))), []Named{{"m", "7", ""}}},
		"empty version":   {specAt1, pbText(1, slices.Concat(pbText(1, "m"), pbText(2, ""))), []Named{{"m", "0", ""}}},
		"large version":   {specAt1, pbText(1, slices.Concat(pbText(1, "m"), pbText(2, pbNum(1, math.MaxInt64)))), []Named{{"m", "9223372036854775807", ""}}},
		"label":           {specAt1, pbText(1, slices.Concat(pbText(1, "m"), pbText(4, "stable"))), []Named{{"m", "label:stable", ""}}},
		"signature":       {specAt1, pbText(1, slices.Concat(pbText(1, "m"), pbText(3, "serving_default"))), []Named{{"m", "latest", "serving_default"}}},
		"longest name":    {specAt1, pbText(1, pbText(1, strings.Repeat("m", 512))), []Named{{strings.Repeat("m", 512), "latest", ""}}},
		"unknown fields": {specAt1, slices.Concat(pbNum(9, 1<<60), append(pbTag(10, protowire.Fixed32Type), 1, 2, 3, 4), append(pbTag(11, protowire.Fixed64Type), 1, 2, 3, 4, 5, 6, 7, 8),
			pbText(1, slices.Concat(pbNum(77, 1), pbText(1, "m"), pbText(99, ""))), pbText(536870911, "largest number")), []Named{{"m", "latest", ""}}},
		"length in more bytes than it needs": {specAt1, append(append(pbTag(1, protowire.BytesType), 0x83, 0x80, 0x00), pbText(1, "m")...), []Named{{"m", "latest", ""}}},
		"tasks": {tasksAt1, slices.Concat(pbText(1, slices.Concat(pbText(1, pbText(1, "m")), pbText(2, "tensorflow/serving/classify"))), tensor,
			pbText(1, pbText(1, slices.Concat(pbText(1, "m"), pbText(2, pbNum(1, 3)), pbText(3, "regress"))))), []Named{{"m", "latest", ""}, {"m", "3", "regress"}}},
		"V2":                      {nameVersion(1, 2), slices.Concat(pbText(1, "m"), pbText(2, "v1.2"), tensor[:0], pbText(7, "raw")), []Named{{"m", "v1.2", ""}}},
		"V2 without version":      {nameVersion(1, 2), pbText(1, "m"), []Named{{"m", "latest", ""}}},
		"V2 with an empty one":    {nameVersion(1, 2), slices.Concat(pbText(1, "m"), pbText(2, "")), []Named{{"m", "latest", ""}}},
		"Triton, leading zeros":   {nameVersion(1, 2).numbered(), slices.Concat(pbText(1, "m"), pbText(2, "007")), []Named{{"m", "7", ""}}},
		"Triton, largest version": {nameVersion(1, 2).numbered(), slices.Concat(pbText(1, "m"), pbText(2, "9223372036854775807")), []Named{{"m", "9223372036854775807", ""}}},
		"name at 2":               {nameVersion(2, 0), slices.Concat(pbText(1, "repo"), pbText(2, "m")), []Named{{"m", "", ""}}},
		"name at 5":               {nameVersion(5, 0), slices.Concat(pbText(5, "m"), pbText(9, "http://models")), []Named{{"m", "", ""}}},
		"nothing":                 {nothing, pbText(1, "repo"), []Named{{}}},
		"nothing, empty":          {nothing, nil, []Named{{}}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := scanPieces(t, c.shape, false, ScanOptions{}, framed(0, c.message))
			if err != nil || !slices.Equal(got, c.want) {
				t.Errorf("%v, %v; want %v", got, err, c.want)
			}
		})
	}
}

// Each message reads as the model public, or as none, to some decoder, and as the model secret to
// another. protocols.md, 1.9, row 7.
func TestProtoMessagesThatDecodersReadDifferentlyAreRefused(t *testing.T) {
	public, secret := pbText(1, "public"), pbText(1, "secret")
	version := pbText(2, pbNum(1, 1))
	key := func(b ...byte) []byte { return append(b, 6, 's', 'e', 'c', 'r', 'e', 't') }
	for name, c := range map[string]struct {
		shape   shape
		message []byte
		want    error
	}{
		"two names":                     {specAt1, pbText(1, slices.Concat(public, secret)), errProtoTwice},
		"the same name twice":           {specAt1, pbText(1, slices.Concat(public, public)), errProtoTwice},
		"an empty name first":           {specAt1, pbText(1, slices.Concat(pbText(1, ""), secret)), errNameless},
		"two specs":                     {specAt1, slices.Concat(pbText(1, public), pbText(1, secret)), errProtoTwice},
		"specs that merge":              {specAt1, slices.Concat(pbText(1, public), pbText(1, version)), errProtoTwice},
		"an empty spec first":           {specAt1, slices.Concat(pbText(1, ""), pbText(1, secret)), errProtoTwice},
		"a spec behind the tensor":      {specAt1, slices.Concat(pbText(1, public), pbText(2, strings.Repeat("x", 100_000)), pbText(1, secret)), errProtoTwice},
		"two versions":                  {specAt1, pbText(1, slices.Concat(public, version, version)), errProtoTwice},
		"two numbers in a version":      {specAt1, pbText(1, slices.Concat(public, pbText(2, slices.Concat(pbNum(1, 1), pbNum(1, 2))))), errProtoTwice},
		"version, then label":           {specAt1, pbText(1, slices.Concat(public, version, pbText(4, "beta"))), errProtoBoth},
		"label, then version":           {specAt1, pbText(1, slices.Concat(public, pbText(4, "beta"), version)), errProtoBoth},
		"label, then an empty version":  {specAt1, pbText(1, slices.Concat(public, pbText(4, "beta"), pbText(2, ""))), errProtoBoth},
		"two labels":                    {specAt1, pbText(1, slices.Concat(public, pbText(4, "beta"), pbText(4, "beta"))), errProtoTwice},
		"two signatures":                {specAt1, pbText(1, slices.Concat(public, pbText(3, "a"), pbText(3, "b"))), errProtoTwice},
		"two V2 names":                  {nameVersion(1, 2), slices.Concat(public, secret), errProtoTwice},
		"two V2 versions":               {nameVersion(1, 2), slices.Concat(public, pbText(2, "1"), pbText(2, "2")), errProtoTwice},
		"two specs in a task":           {tasksAt1, pbText(1, slices.Concat(pbText(1, public), pbText(1, secret))), errProtoTwice},
		"tasks of two models":           {tasksAt1, slices.Concat(pbText(1, pbText(1, public)), pbText(1, pbText(1, secret))), errProtoMixed},
		"a name that is a number":       {specAt1, pbText(1, pbNum(1, 5)), errProtoWire},
		"a name that is fixed":          {specAt1, pbText(1, append(pbTag(1, protowire.Fixed32Type), "abcd"...)), errProtoWire},
		"a spec that is a number":       {specAt1, slices.Concat(pbNum(1, 5), pbText(1, secret)), errProtoWire},
		"a spec that is a group":        {specAt1, slices.Concat(pbTag(1, protowire.StartGroupType), secret, pbTag(1, protowire.EndGroupType)), errProtoWire},
		"a task that is a number":       {tasksAt1, pbNum(1, 5), errProtoWire},
		"a version that is text":        {specAt1, pbText(1, slices.Concat(public, pbText(2, pbText(1, "1")))), errProtoWire},
		"a version that is no message":  {specAt1, pbText(1, slices.Concat(public, pbNum(2, 1))), errProtoWire},
		"a version that is fixed":       {specAt1, pbText(1, slices.Concat(public, pbText(2, append(pbTag(1, protowire.Fixed64Type), 1, 0, 0, 0, 0, 0, 0, 0)))), errProtoWire},
		"an unknown group":              {specAt1, slices.Concat(pbText(1, public), pbTag(20, protowire.StartGroupType), pbText(1, secret), pbTag(20, protowire.EndGroupType)), errProtoGroup},
		"the end of a group":            {specAt1, slices.Concat(pbText(1, public), pbTag(20, protowire.EndGroupType)), errProtoGroup},
		"a group in a spec":             {specAt1, pbText(1, slices.Concat(public, pbTag(20, protowire.StartGroupType), pbTag(20, protowire.EndGroupType))), errProtoGroup},
		"wire type 6":                   {specAt1, slices.Concat(pbText(1, public), []byte{20<<3&0x7f | 6}), errProtoGroup},
		"field 0":                       {specAt1, slices.Concat(pbText(1, public), []byte{0, 0}), errProtoTag},
		"field 0 with a length":         {specAt1, slices.Concat([]byte{2, 0}, pbText(1, public)), errProtoTag},
		"a long tag":                    {nameVersion(1, 2), slices.Concat(public, key(0x8a, 0x00)), errProtoTag},
		"a tag of 5 bytes":              {nameVersion(1, 2), slices.Concat(public, key(0x8a, 0x80, 0x80, 0x80, 0x00)), errProtoTag},
		"a tag that C++ cuts to 1":      {nameVersion(1, 2), slices.Concat(public, key(0x8a, 0x80, 0x80, 0x80, 0x10)), errProtoTag},
		"a tag that Java cuts to 1":     {nameVersion(1, 2), slices.Concat(public, key(0x8a, 0x80, 0x80, 0x80, 0x80, 0x01)), errProtoVarint},
		"a tag of 10 bytes":             {nameVersion(1, 2), slices.Concat(public, key(0x8a, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00)), errProtoVarint},
		"a length that Java cuts":       {nameVersion(1, 2), slices.Concat(public, []byte{0x3a, 0x82, 0x80, 0x80, 0x80, 0x80, 0x01, 'x', 'x'}), errProtoVarint},
		"a length that C++ cuts":        {nameVersion(1, 2), slices.Concat(public, []byte{0x3a, 0x82, 0x80, 0x80, 0x80, 0x10, 'x', 'x'}), errProtoLength},
		"a number of 11 bytes":          {specAt1, slices.Concat(pbText(1, public), []byte{0x48}, bytes.Repeat([]byte{0x80}, 10), []byte{0}), errProtoVarint},
		"a number of 65 bits":           {specAt1, slices.Concat(pbText(1, public), []byte{0x48}, bytes.Repeat([]byte{0xff}, 9), []byte{2}), errProtoVarint},
		"a negative version":            {specAt1, pbText(1, slices.Concat(public, pbText(2, pbNum(1, math.MaxUint64)))), errVersionSign},
		"a version of 64 bits":          {specAt1, pbText(1, slices.Concat(public, pbText(2, pbNum(1, 1<<63)))), errVersionSign},
		"no spec":                       {specAt1, pbText(2, "x"), errNameless},
		"an empty message":              {specAt1, nil, errNameless},
		"an empty spec":                 {specAt1, pbText(1, ""), errNameless},
		"an empty name":                 {specAt1, pbText(1, pbText(1, "")), errNameless},
		"no tasks":                      {tasksAt1, pbText(2, "x"), errNameless},
		"a task without a spec":         {tasksAt1, slices.Concat(pbText(1, pbText(1, public)), pbText(1, pbText(2, "classify"))), errNameless},
		"no V2 name":                    {nameVersion(1, 2), pbText(2, "1"), errNameless},
		"an empty label":                {specAt1, pbText(1, slices.Concat(public, pbText(4, ""))), errNameless},
		"a field beyond the message":    {specAt1, slices.Concat(pbText(1, public), []byte{0x12, 5, 'x'}), errProtoLength},
		"a name beyond the spec":        {specAt1, []byte{0x0a, 3, 0x0a, 6, 's', 'e', 'c', 'r', 'e', 't'}, errProtoLength},
		"a fixed field beyond the spec": {specAt1, []byte{0x0a, 2, 0x4d, 1, 2, 3, 4}, errProtoLength},
		"a spec that ends in a tag":     {specAt1, []byte{0x0a, 1, 0x8a, 0x01, 0x00}, errProtoCut},
		"a spec that ends in a length":  {specAt1, []byte{0x0a, 2, 0x0a, 0x86, 0x00}, errProtoCut},
		"a spec that ends in a number":  {specAt1, []byte{0x0a, 2, 0x48, 0x80, 0x00}, errProtoCut},
		"a message that ends in a tag":  {specAt1, slices.Concat(pbText(1, public), []byte{0x92}), errProtoCut},
		"a message without its number":  {specAt1, slices.Concat(pbText(1, public), []byte{0x48}), errProtoCut},
		"half a version":                {specAt1, pbText(1, slices.Concat(public, []byte{0x12, 1, 0x08})), errProtoCut},
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := scanPieces(t, c.shape, false, ScanOptions{}, framed(0, c.message)); !errors.Is(err, c.want) || !errors.Is(err, ErrBody) {
				t.Errorf("%v, %v; want %v", got, err, c.want)
			}
		})
	}
}

// The victim of the attacks above: a server whose decoder reads secret where the first field that a
// gateway would find, or the last, says public.
func TestProtoDecodersReadSecretWhereAGatewayCouldReadPublic(t *testing.T) {
	public, secret := pbText(1, "public"), pbText(1, "secret")
	num3 := pbNum(1, 3)
	version := pbText(2, num3)
	for name, c := range map[string]struct {
		message string
		shape   shape
		data    []byte
		reads   Named
	}{
		"last of two names":          {"Predict", specAt1, pbText(1, slices.Concat(public, secret)), Named{"secret", Latest, ""}},
		"last of two specs":          {"Predict", specAt1, slices.Concat(pbText(1, public), pbText(1, secret)), Named{"secret", Latest, ""}},
		"merged specs":               {"Predict", specAt1, slices.Concat(pbText(1, secret), pbText(1, version)), Named{"secret", "3", ""}},
		"version beats label":        {"Predict", specAt1, pbText(1, slices.Concat(secret, pbText(4, "stable"), version)), Named{"secret", "3", ""}},
		"label beats version":        {"Predict", specAt1, pbText(1, slices.Concat(secret, version, pbText(4, "stable"))), Named{"secret", "label:stable", ""}},
		"wrong wire type is skipped": {"Predict", specAt1, slices.Concat(pbText(1, secret), pbNum(1, 7)), Named{"secret", Latest, ""}},
		"last of two V2 names":       {"Infer", v2Shape, slices.Concat(public, secret), Named{"secret", Latest, ""}},
		"tag in two bytes":           {"Infer", v2Shape, slices.Concat(public, []byte{0x8a, 0x00}, secret[1:]), Named{"secret", Latest, ""}},
		"merged numbers":             {"Predict", specAt1, pbText(1, slices.Concat(secret, pbText(2, slices.Concat(pbNum(1, 1), num3)))), Named{"secret", "3", ""}},
		"group is skipped":           {"Infer", v2Shape, slices.Concat(pbTag(9, protowire.StartGroupType), public, pbTag(9, protowire.EndGroupType), secret), Named{"secret", Latest, ""}},
	} {
		read, _, err := oracle(c.message, c.shape, c.data)
		if err != nil || !slices.Equal(read, []Named{c.reads}) {
			t.Errorf("%s: the decoder reads %v (%v), want %v", name, read, err, c.reads)
		}
		if got, err := scanPieces(t, c.shape, false, ScanOptions{}, framed(0, c.data)); !errors.Is(err, ErrBody) || len(got) > 0 {
			t.Errorf("%s: the scanner reads %v (%v), want a refusal", name, got, err)
		}
	}
}

func TestProtoNamesThatServersReadDifferentlyAreRefused(t *testing.T) {
	for _, name := range []string{"a/b", "a:b", "a%62", "a?b", "a#b", `a\b`, "a\x00", "a\nb", "\x7f", "ä", "a\xff", "..", ".", strings.Repeat("m", 513), strings.Repeat("m", 70_000)} {
		for i, message := range [][]byte{pbText(1, pbText(1, name)), pbText(1, pbText(1, pbText(1, name))), pbText(1, name), pbText(1, name), pbText(2, name)} {
			if got, err := scanPieces(t, pbShapes[i].shape, false, ScanOptions{}, framed(0, message)); err == nil || !errors.Is(err, ErrBody) || len(got) > 0 {
				t.Errorf("%.20q as %s: %v, %v", name, pbShapes[i].message, got, err)
			}
		}
		if name != strings.Repeat("m", 513) {
			label := pbText(1, slices.Concat(pbText(1, "m"), pbText(4, name)))
			if _, err := scanPieces(t, specAt1, false, ScanOptions{}, framed(0, label)); !errors.Is(err, ErrBody) {
				t.Errorf("label %.20q: %v", name, err)
			}
		}
	}
	for _, signature := range []string{"\xc0\x80", "a\xff", "a\n", "\x00", "\u0085"} {
		message := pbText(1, slices.Concat(pbText(1, "m"), pbText(3, signature)))
		if _, err := scanPieces(t, specAt1, false, ScanOptions{}, framed(0, message)); !errors.Is(err, errSignature) {
			t.Errorf("signature %q: %v", signature, err)
		}
	}
}

func TestProtoVersionsThatServersReadDifferentlyAreRefused(t *testing.T) {
	for _, version := range []string{" 3", "3 ", "+3", "-3", "-1", "3x", "3.0", "0x3", "3\x00", "9223372036854775808", "99999999999999999999", "٣", "latest", "label:x"} {
		if got, err := scanPieces(t, nameVersion(1, 2).numbered(), false, ScanOptions{}, framed(0, slices.Concat(pbText(1, "m"), pbText(2, version)))); !errors.Is(err, errVersionSign) {
			t.Errorf("number %q: %v, %v", version, got, err)
		}
	}
	for _, version := range []string{" 3", "+3", "-3", "03", "3\x00", "latest", "label:x", "a/b", "v1:2", ".", ".."} {
		if got, err := scanPieces(t, nameVersion(1, 2), false, ScanOptions{}, framed(0, slices.Concat(pbText(1, "m"), pbText(2, version)))); !errors.Is(err, errVersionForm) {
			t.Errorf("word %q: %v, %v", version, got, err)
		}
	}
}

// A version that a rule pins cannot be dodged by another way to name it. protocols.md, 1.9,
// row 11.
func TestProtoVersionsHaveOneForm(t *testing.T) {
	pinned := errors.New("only 3")
	only3 := ScanOptions{Decide: func(n Named) error {
		if n.Version != "3" {
			return pinned
		}
		return nil
	}}
	spec := func(fields ...[]byte) []byte {
		return framed(0, pbText(1, slices.Concat(append([][]byte{pbText(1, "m")}, fields...)...)))
	}
	for name, body := range map[string][]byte{"latest": spec(), "0": spec(pbText(2, "")), "label": spec(pbText(4, "3")), "4": spec(pbText(2, pbNum(1, 4)))} {
		if _, err := scanPieces(t, specAt1, false, only3, body); err != pinned {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, body := range map[string][]byte{
		"3":         spec(pbText(2, pbNum(1, 3))),
		"long 3":    spec(pbText(2, []byte{0x08, 0x83, 0x80, 0x00})),
		"unknown 3": spec(pbText(2, slices.Concat(pbNum(2, 9), pbNum(1, 3)))),
	} {
		if _, err := scanPieces(t, specAt1, false, only3, body); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzProto compares the scanner with the real decoder.
func FuzzProto(f *testing.F) {
	for i := range pbShapes {
		for _, message := range [][]byte{
			nil, pbText(1, pbText(1, "m")), pbText(1, pbText(1, pbText(1, "m"))), pbText(1, "m"), pbText(2, "m"),
			pbText(1, slices.Concat(pbText(1, "m"), pbText(2, pbNum(1, 3)), pbText(3, "s"))), pbText(1, slices.Concat(pbText(1, "m"), pbText(4, "stable"))), pbText(1, slices.Concat(pbText(1, "m"), pbText(2, ""))),
			slices.Concat(pbText(1, pbText(1, slices.Concat(pbText(1, "m"), pbText(2, pbNum(1, 3))))), pbText(1, pbText(1, pbText(1, "m")))),
			slices.Concat(pbText(1, "m"), pbText(2, "3"), pbText(7, strings.Repeat("x", 200))), slices.Concat(pbText(1, "m"), pbText(2, "v3")),
			slices.Concat(pbNum(9, 1<<63), append(pbTag(10, protowire.Fixed32Type), 1, 2, 3, 4), append(pbTag(11, protowire.Fixed64Type), 1, 2, 3, 4, 5, 6, 7, 8), pbText(1, pbText(1, "m"))),
			{0x8a, 0x80, 0x80, 0x80, 0x10, 1, 'm'}, {0x0a, 0x81, 0x80, 0x80, 0x80, 0x00, 'm'},
			slices.Concat(pbTag(3, protowire.StartGroupType), pbTag(3, protowire.EndGroupType), pbText(1, "m")),
		} {
			f.Add(byte(i), message, uint16(i))
		}
	}
	f.Fuzz(func(t *testing.T, which byte, message []byte, size uint16) {
		c := pbShapes[int(which)%len(pbShapes)]
		body := framed(0, message)
		got, err := scanFrames(c.shape, false, ScanOptions{}, body, int(size)+1)
		if whole, other := scanFrames(c.shape, false, ScanOptions{}, body, len(body)); !slices.Equal(got, whole) || !sameError(other, err) {
			t.Fatalf("in pieces of %d: %v, %v; whole: %v, %v", int(size)+1, got, err, whole, other)
		}
		want, canonical, wantErr := oracle(c.message, c.shape, message)
		switch {
		case err == nil && (wantErr != nil || !slices.Equal(got, want)):
			t.Fatalf("%s: the scanner reads %v, the decoder %v (%v)", c.message, got, want, wantErr)
		case err != nil && !errors.Is(err, ErrBody):
			t.Fatalf("%v is no ErrBody", err)
		case err != nil && wantErr == nil && canonical:
			t.Fatalf("%s: %v; the decoder reads %v", c.message, err, want)
		}
	})
}

// oracle is what the real decoder reads. canonical is true if the message is encoded as the real
// encoder does it, and all of it is valid, so that no server can read it differently.
func oracle(message string, s shape, data []byte) (all []Named, canonical bool, err error) {
	m, units, err := pbDecoded(message, data)
	if err != nil {
		return nil, false, err
	}
	again, err := proto.MarshalOptions{Deterministic: true}.Marshal(m.Interface())
	if err != nil {
		return nil, false, err
	}
	canonical = bytes.Equal(again, data)
	if len(m.GetUnknown()) > 0 { // may hold what the scanner refuses
		canonical = false
	}
	for _, unit := range units {
		named, valid := Named{Model: pbGet(unit, "name").String()}, len(unit.GetUnknown()) == 0
		valid = valid && checkName(named.Model) == nil
		switch {
		case message == "Load":
		case message == "Infer":
			named.Version = pbGet(unit, "version").String()
			number, notNumber := strconv.ParseInt(named.Version, 10, 64)
			switch {
			case named.Version == "":
				named.Version = "latest"
			case s.kind() != nameAndNumber:
				valid = valid && checkVersion([]byte(named.Version)) == nil && len(named.Version) <= maxModelName
			case notNumber != nil || strings.Trim(named.Version, "0123456789") != "" || len(named.Version) > maxModelName:
				valid = false
			default:
				named.Version = strconv.FormatInt(number, 10)
			}
		case pbHas(unit, "version"):
			number := pbGet(pbSub(unit, "version"), "value").Int()
			named.Version = strconv.FormatInt(number, 10)
			valid = valid && number >= 0 && len(pbSub(unit, "version").GetUnknown()) == 0
		case pbHas(unit, "label"):
			label := pbGet(unit, "label").String()
			named.Version = "label:" + label
			valid = valid && checkName(label) == nil
		default:
			named.Version = "latest"
		}
		if message == "Predict" || message == "Multi" {
			named.Signature = pbGet(unit, "signature").String()
			valid = valid && len(named.Signature) <= maxModelName && !strings.ContainsFunc(named.Signature, unicode.IsControl)
		}
		all = append(all, named)
		canonical = canonical && valid && named.Model == all[0].Model
	}
	switch {
	case message == "Empty":
		all = []Named{{}}
	case len(all) == 0:
		canonical = false
	}
	if message == "Multi" {
		tasks := pbGet(m, "tasks").List()
		for i := range tasks.Len() {
			canonical = canonical && len(tasks.Get(i).Message().GetUnknown()) == 0
		}
	}
	return all, canonical, nil
}
