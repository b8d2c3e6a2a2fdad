package model

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

func pbBytes(number protowire.Number, parts ...[]byte) []byte {
	return pbText(number, bytes.Join(parts, nil))
}

// tfShapeOf is a TensorShapeProto.
func tfShapeOf(dims ...int64) []byte {
	var b []byte
	for _, d := range dims {
		b = append(b, pbBytes(2, pbNum(1, uint64(d)))...)
	}
	return b
}

// tfInputOf is an entry of PredictRequest.inputs.
func tfInputOf(parts ...[]byte) []byte {
	return pbBytes(2, pbText(1, "x"), pbBytes(2, parts...))
}

// v2InputOf is an InferInputTensor.
func v2InputOf(datatype string, shape []byte, more ...[]byte) []byte {
	return pbBytes(5, pbText(1, "x"), pbText(2, datatype), shape, bytes.Join(more, nil))
}

func pbPacked(number protowire.Number, values ...int64) []byte {
	var b []byte
	for _, v := range values {
		b = protowire.AppendVarint(b, uint64(v))
	}
	return pbText(number, b)
}

func repeated(s string, n int) []byte { return bytes.Repeat([]byte(s), n) }

// countMessage counts a message in pieces of size bytes.
func countMessage(c counts, m Most, message []byte, size int) error {
	s := protoCounter{most: m, message: c}
	s.begin(uint64(len(message)))
	for p := message; len(p) > 0; p = p[min(size, len(p)):] {
		if err := s.write(p[:min(size, len(p))]); err != nil {
			return err
		}
	}
	if err := s.write(nil); err != nil {
		return err
	}
	return s.end()
}

// leastOf is the least limit that a message is within, found by trying.
func leastOf(t testing.TB, within func(int64) error) int64 {
	t.Helper()
	var much *TooMuch
	low, high := int64(1), int64(1)
	for errors.As(within(high), &much) {
		low, high = high+1, high*2
		if high <= 0 {
			return math.MaxInt64
		}
	}
	for low < high {
		mid := low + (high-low)/2
		if within(mid) == nil {
			high = mid
		} else {
			low = mid + 1
		}
	}
	return low
}

func TestBatchInMessagesIsCounted(t *testing.T) {
	strs := repeated("\x01\x00\x00\x00x", 1000)
	for name, c := range map[string]struct {
		message       counts
		body          []byte
		batch, tensor int64
	}{
		"shape":                       {tfTensors, tfInputOf(pbNum(1, 1), pbBytes(2, tfShapeOf(3, 2)), pbText(4, repeated("x", 24))), 3, 24},
		"largest input":               {tfTensors, append(tfInputOf(pbBytes(2, tfShapeOf(3))), tfInputOf(pbBytes(2, tfShapeOf(7)))...), 7, 7},
		"no shape":                    {tfTensors, tfInputOf(pbNum(1, 1), pbText(5, "abcd")), 1, 4},
		"shape behind content":        {tfTensors, tfInputOf(pbText(5, repeated("abcd", 100)), pbNum(1, 1), pbBytes(2, tfShapeOf(1, 10))), 10, 400},
		"shape without content":       {tfTensors, tfInputOf(pbNum(1, 1), pbBytes(2, tfShapeOf(2, 1<<40)), pbText(5, "abcd")), 2, 8 << 40}, // the server repeats the one element
		"shape that overflows":        {tfTensors, tfInputOf(pbNum(1, 1), pbBytes(2, tfShapeOf(2, 1<<40, 1<<40))), 2, math.MaxInt64},
		"type of more than 32 bits":   {tfTensors, tfInputOf(pbNum(1, 1<<32+2), pbBytes(2, tfShapeOf(2, 100)), pbText(6, "12345678")), 2, 1600},
		"strings by shape":            {tfTensors, tfInputOf(pbNum(1, 7), pbBytes(2, tfShapeOf(1, 100)), pbText(8, "x")), 1, 2400},
		"content beyond the shape":    {tfTensors, tfInputOf(pbNum(1, 1), pbBytes(2, tfShapeOf(1)), pbText(5, repeated("abcd", 1000))), 1000, 4000},
		"raw beyond the shape":        {tfTensors, tfInputOf(pbText(4, repeated("x", 4000)), pbBytes(2, tfShapeOf(1)), pbNum(1, 1)), 1000, 4000},
		"shape in two parts":          {tfTensors, tfInputOf(pbNum(1, 1), pbBytes(2, tfShapeOf(5)), pbText(5, "abcd"), pbBytes(2, tfShapeOf(6))), 5, 120},
		"tensor in two parts":         {tfTensors, pbBytes(2, pbBytes(2, pbBytes(2, tfShapeOf(5))), pbBytes(2, pbBytes(2, tfShapeOf(6)))), 5, 30},
		"contents in two parts":       {tfTensors, tfInputOf(pbText(5, "abcdefgh"), pbText(5, "abcd")), 3, 12},
		"contents one by one":         {tfTensors, tfInputOf(protowire.AppendFixed32(pbTag(5, protowire.Fixed32Type), 7), protowire.AppendFixed32(pbTag(5, protowire.Fixed32Type), 7)), 2, 8},
		"doubles":                     {tfTensors, tfInputOf(pbText(6, repeated("12345678", 5))), 5, 40},
		"doubles one by one":          {tfTensors, tfInputOf(protowire.AppendFixed64(pbTag(6, protowire.Fixed64Type), 7)), 1, 8},
		"integers":                    {tfTensors, tfInputOf(pbPacked(7, 1, 300, -1)), 3, 13},
		"integers one by one":         {tfTensors, tfInputOf(pbNum(10, 1), pbNum(10, 300)), 2, 2},
		"complex":                     {tfTensors, tfInputOf(pbText(9, repeated("12345678", 3))), 3, 24},
		"complex of 128 bits":         {tfTensors, tfInputOf(pbText(12, repeated("1234567812345678", 3))), 3, 48},
		"size of a dimension twice":   {tfTensors, tfInputOf(pbBytes(2, pbBytes(2, pbNum(1, 1), pbNum(1, 9)))), 9, 9},
		"size of another wire type":   {tfTensors, tfInputOf(pbBytes(2, pbBytes(2, protowire.AppendFixed64(pbTag(1, protowire.Fixed64Type), 99)))), 1, 1},
		"negative dimension":          {tfTensors, tfInputOf(pbBytes(2, tfShapeOf(-1, 2)), pbText(5, repeated("abcd", 6))), 3, 24},
		"unknown rank":                {tfTensors, tfInputOf(pbBytes(2, pbNum(3, 1)), pbText(5, repeated("abcd", 6))), 6, 24},
		"empty dimension":             {tfTensors, tfInputOf(pbBytes(2, tfShapeOf(1, 0)), pbText(5, repeated("abcd", 6))), 6, 24},
		"dimension without a size":    {tfTensors, tfInputOf(pbBytes(2, pbText(2, ""))), 1, 1},
		"output filter":               {tfTensors, pbBytes(3, tfInputOf(pbBytes(2, tfShapeOf(9)))), 1, 1},
		"examples":                    {tfExamples, pbBytes(2, pbBytes(1, pbText(1, "abc"), pbText(1, ""), pbText(1, "x"))), 3, 12},
		"examples with context":       {tfExamples, pbBytes(2, pbBytes(2, pbText(1, "abc"), pbText(2, "context"), pbText(1, "x"))), 2, 19},
		"examples in two lists":       {tfExamples, append(pbBytes(2, pbBytes(1, pbText(1, "a")), pbBytes(1, pbText(1, "b"))), pbBytes(2, pbBytes(1, pbText(1, "c")))...), 3, 15},
		"V2 shape":                    {v2Inputs, v2InputOf("FP32", pbPacked(3, 3, 2), pbBytes(5, pbText(6, repeated("abcd", 6)))), 3, 24},
		"V2 shape not packed":         {v2Inputs, v2InputOf("FP32", append(pbNum(3, 3), pbNum(3, 2)...)), 3, 1},
		"V2 shape in two parts":       {v2Inputs, v2InputOf("FP32", append(pbPacked(3, 3), pbPacked(3, 9)...)), 3, 1},
		"V2 shape behind":             {v2Inputs, v2InputOf("BYTES", nil, pbBytes(5, pbText(8, "a"), pbText(8, "bc")), pbPacked(3, 1)), 2, 3},
		"V2 negative dimension":       {v2Inputs, v2InputOf("INT64", pbPacked(3, -1, 2), pbBytes(5, pbPacked(3, 1, 2, 3, 4, 5, 6))), 3, 6},
		"V2 strings beyond the shape": {v2Inputs, v2InputOf("BYTES", pbPacked(3, 1), pbBytes(5, bytes.Join([][]byte{pbText(8, "a"), pbText(8, "b"), pbText(8, "c")}, nil))), 3, 3},
		"V2 contents in two parts":    {v2Inputs, v2InputOf("BOOL", pbPacked(3, 1), pbBytes(5, pbPacked(1, 1)), pbBytes(5, pbPacked(1, 1, 0))), 3, 3},
		"V2 doubles":                  {v2Inputs, v2InputOf("FP64", nil, pbBytes(5, pbText(7, repeated("12345678", 4)))), 4, 32},
		"raw":                         {v2Inputs, append(v2InputOf("FP32", pbPacked(3, 1, 4)), pbText(7, repeated("x", 16))...), 1, 16},
		"V2 raw beyond the shape":     {v2Inputs, append(v2InputOf("FP32", pbPacked(3, 1, 4)), pbText(7, repeated("x", 160))...), 10, 160},
		"raw strings beyond":          {v2Inputs, append(v2InputOf("BYTES", pbPacked(3, 1)), pbText(7, strs)...), 1000, 5000},
		"raw of the second input": {v2Inputs, bytes.Join([][]byte{v2InputOf("BYTES", pbPacked(3, 1), pbBytes(5, pbText(8, "a"))), v2InputOf("FP32", pbPacked(3, 1)),
			v2InputOf("BYTES", pbPacked(3, 1, 10)), pbText(7, "abcd"), pbText(7, strs)}, nil), 100, 5000},
		"raw of a type not known": {v2Inputs, append(v2InputOf("UNHEARD-OF", pbPacked(3, 1)), pbText(7, "abc")...), 3, 3},
	} {
		for _, size := range []int{1, 2, 7, 1 << 20} {
			batch := leastOf(t, func(n int64) error { return countMessage(c.message, Most{Batch: n}, c.body, size) })
			tensor := leastOf(t, func(n int64) error { return countMessage(c.message, Most{Tensor: n}, c.body, size) })
			if err := countMessage(c.message, Most{}, c.body, size); batch != c.batch || tensor != c.tensor || err != nil {
				t.Errorf("%s in pieces of %d: batch %d, input of %d bytes, %v; want %d, %d", name, size, batch, tensor, err, c.batch, c.tensor)
			}
		}
	}
}

func TestMessageThatCannotBeCountedIsRefused(t *testing.T) {
	many := bytes.Repeat(v2InputOf("FP32", pbPacked(3, 1)), 257)
	for name, c := range map[string]struct {
		message counts
		body    []byte
		err     error
	}{
		"group":                {tfTensors, tfInputOf(pbTag(9, protowire.StartGroupType)), errCountGroup},
		"long tag":             {tfTensors, tfInputOf([]byte{0x92, 0x00, 0x00}), errCountTag},
		"field 0":              {tfTensors, pbBytes(2, []byte{0x02, 0x00}), errCountTag},
		"longer than its hull": {tfTensors, pbBytes(2, []byte{0x12, 0x05}), errCountLength},
		"negative length":      {tfTensors, pbBytes(2, []byte{0x12, 0xff, 0xff, 0xff, 0xff, 0x0f}), errCountLength},
		"long length":          {tfTensors, pbBytes(2, []byte{0x12, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01}), errCountVarint},
		"long number":          {tfTensors, tfInputOf(append([]byte{0x08}, bytes.Repeat([]byte{0xff}, 10)...)), errCountVarint},
		"half a float":         {tfTensors, tfInputOf(pbText(5, "abcde")), errCountCut},
		"half an integer":      {tfTensors, tfInputOf(pbText(7, "\x01\xff")), errCountCut},
		"half a dimension":     {v2Inputs, v2InputOf("FP32", pbText(3, "\x01\xff")), errCountCut},
		"cut":                  {tfTensors, tfInputOf(pbNum(1, 1))[:4], errCountLength},
		"cut within a tag":     {tfTensors, []byte{0x80}, errCountCut},
		"raw before its input": {v2Inputs, append(pbText(7, "abcd"), v2InputOf("FP32", pbPacked(3, 1))...), errRawFirst},
		"raw of none":          {v2Inputs, bytes.Join([][]byte{v2InputOf("FP32", pbPacked(3, 1)), pbText(7, "abcd"), pbText(7, "abcd")}, nil), errRawFirst},
		"many inputs":          {v2Inputs, many, errManyInputs},
	} {
		for _, size := range []int{1, 7, 1 << 20} {
			if err := countMessage(c.message, Most{Batch: 1 << 20}, c.body, size); !errors.Is(err, c.err) || !errors.Is(err, ErrUncounted) {
				t.Errorf("%s in pieces of %d: %v; want %v", name, size, err, c.err)
			}
		}
	}
}

// What is declared to be too large is refused before it comes.
func TestLargeTensorIsRefusedByItsLength(t *testing.T) {
	whole := tfInputOf(pbNum(1, 1), pbText(4, make([]byte, 1<<20)))
	s := protoCounter{most: Most{Tensor: 1 << 10}, message: tfTensors}
	s.begin(uint64(len(whole)))
	var much *TooMuch
	if err := s.write(whole[:len(whole)-1<<20]); !errors.As(err, &much) || much.Has != 1<<20 {
		t.Errorf("got %v", err)
	}
}

// Each message of a stream is counted by itself, compressed or not.
func TestMessagesOfAStreamAreCountedOneByOne(t *testing.T) {
	one := append(pbText(1, "m"), v2InputOf("FP32", pbPacked(3, 2))...)
	three := append(pbText(1, "m"), v2InputOf("FP32", pbPacked(3, 3))...)
	stream := func(messages ...[]byte) error {
		r := readingOf(t, "triton", &Request{Method: "POST", Path: v2Service + "ModelStreamInfer", GRPC: true})
		s := r.Scanner(ScanOptions{Decide: func(Named) error { return nil }, Most: Most{Batch: 2}, Inflate: 1 << 20, Encoding: "gzip"})
		defer s.Close()
		for _, m := range messages {
			if _, err := s.Write(m); err != nil {
				return err
			}
		}
		return s.Check()
	}
	var much *TooMuch
	zip := func(m []byte) []byte { return framed(1, gzipped(t, string(m))) }
	if err := stream(framed(0, one), framed(0, one), zip(one), framed(0, one)); err != nil {
		t.Error(err)
	}
	if err := stream(framed(0, one), framed(0, three)); !errors.As(err, &much) || much.Has != 3 {
		t.Errorf("got %v", err)
	}
	if err := stream(framed(0, one), zip(three)); !errors.As(err, &much) || much.Has != 3 {
		t.Errorf("compressed: got %v", err)
	}
}

// pbTensors are the messages of requests with tensors, for the real decoder.
var pbTensors = func() protoreflect.FileDescriptor {
	type f = descriptorpb.FieldDescriptorProto
	field := func(name string, number int32, kind descriptorpb.FieldDescriptorProto_Type, repeated bool, of string) *f {
		label := descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL
		if repeated {
			label = descriptorpb.FieldDescriptorProto_LABEL_REPEATED
		}
		d := &f{Name: &name, Number: &number, Type: &kind, Label: &label}
		if of != "" {
			d.TypeName = proto.String(".c." + of)
		}
		return d
	}
	const (
		msg    = descriptorpb.FieldDescriptorProto_TYPE_MESSAGE
		i64    = descriptorpb.FieldDescriptorProto_TYPE_INT64
		i32    = descriptorpb.FieldDescriptorProto_TYPE_INT32
		raw    = descriptorpb.FieldDescriptorProto_TYPE_BYTES
		float  = descriptorpb.FieldDescriptorProto_TYPE_FLOAT
		double = descriptorpb.FieldDescriptorProto_TYPE_DOUBLE
	)
	message := func(name string, fields ...*f) *descriptorpb.DescriptorProto {
		return &descriptorpb.DescriptorProto{Name: &name, Field: fields}
	}
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: proto.String("c.proto"), Package: proto.String("c"), Syntax: proto.String("proto3"),
		MessageType: []*descriptorpb.DescriptorProto{
			message("Predict", field("inputs", 2, msg, true, "Named")),
			message("Named", field("value", 2, msg, false, "Tensor")),
			message("Tensor", field("shape", 2, msg, false, "Shape"), field("raw", 4, raw, false, ""), field("floats", 5, float, true, ""),
				field("doubles", 6, double, true, ""), field("ints", 7, i32, true, ""), field("strings", 8, raw, true, "")),
			message("Shape", field("dim", 2, msg, true, "Dim")),
			message("Dim", field("size", 1, i64, false, "")),
			message("Classify", field("input", 2, msg, false, "Input")),
			message("Input", field("list", 1, msg, false, "List"), field("other", 2, msg, false, "List")),
			message("List", field("examples", 1, raw, true, "")),
			message("Infer", field("inputs", 5, msg, true, "InferInput"), field("raw", 7, raw, true, "")),
			message("InferInput", field("shape", 3, i64, true, ""), field("contents", 5, msg, false, "Contents")),
			message("Contents", field("ints", 2, i32, true, ""), field("longs", 3, i64, true, ""), field("floats", 6, float, true, ""),
				field("doubles", 7, double, true, ""), field("strings", 8, raw, true, "")),
		},
	}, nil)
	if err != nil {
		panic(err)
	}
	return file
}()

// decodedCounts returns the largest batch and input of a message as the real decoder reads it; ok is false
// if it does not.
func decodedCounts(name string, data []byte) (batch, size int64, ok bool) {
	d := dynamicpb.NewMessage(pbTensors.Messages().ByName(protoreflect.Name(name)))
	if proto.Unmarshal(data, d) != nil {
		return 0, 0, false
	}
	m := d.ProtoReflect()
	list := func(m protoreflect.Message, name protoreflect.Name) protoreflect.List { return pbGet(m, name).List() }
	contents := func(m protoreflect.Message, names map[protoreflect.Name]int) (elements int, bytes int64) {
		for name, width := range names {
			l := list(m, name)
			elements += l.Len()
			bytes += int64(l.Len() * width)
		}
		return elements, bytes
	}
	entries := func(elements int, dims []int64) int64 {
		rest := uint64(1)
		for _, d := range dims[min(1, len(dims)):] {
			if d > 0 {
				rest = times(rest, uint64(d))
			} else if d == 0 {
				rest = 0
			}
		}
		t := shaped{rest: rest}
		return int64(t.entries(uint64(elements)))
	}
	switch name {
	case "Classify":
		in := pbSub(m, "input")
		batch = int64(list(pbSub(in, "list"), "examples").Len() + list(pbSub(in, "other"), "examples").Len())
	case "Predict":
		for i := range list(m, "inputs").Len() {
			v := pbSub(list(m, "inputs").Get(i).Message(), "value")
			var dims []int64
			shape := list(pbSub(v, "shape"), "dim")
			for j := range shape.Len() {
				dims = append(dims, pbGet(shape.Get(j).Message(), "size").Int())
			}
			elements, n := contents(v, map[protoreflect.Name]int{"floats": 4, "doubles": 8, "ints": 1, "strings": 0})
			if len(dims) > 0 {
				batch = max(batch, dims[0])
			}
			batch = max(batch, entries(elements, dims))
			size = max(size, n+int64(len(pbGet(v, "raw").Bytes())))
		}
	case "Infer":
		for i := range list(m, "inputs").Len() {
			in := list(m, "inputs").Get(i).Message()
			var dims []int64
			for j := range list(in, "shape").Len() {
				dims = append(dims, list(in, "shape").Get(j).Int())
			}
			elements, n := contents(pbSub(in, "contents"), map[protoreflect.Name]int{"ints": 1, "longs": 1, "floats": 4, "doubles": 8, "strings": 0})
			if len(dims) > 0 {
				batch = max(batch, dims[0])
			}
			batch, size = max(batch, entries(elements, dims)), max(size, n)
		}
		for i := range list(m, "raw").Len() {
			size = max(size, int64(len(list(m, "raw").Get(i).Bytes())))
		}
	}
	return batch, size, true
}

// FuzzCountProto compares the counts with those of a message that the real decoder has read: it counts no
// less, in pieces of any size, and what it accepts the decoder reads.
func FuzzCountProto(f *testing.F) {
	f.Add(tfInputOf(pbNum(1, 1), pbBytes(2, tfShapeOf(3, -2)), pbText(4, repeated("x", 24)), pbText(5, "abcd"), pbPacked(7, 1, 300)))
	f.Add(append(v2InputOf("BYTES", pbPacked(3, 1, 2), pbBytes(5, pbText(8, "a"), pbText(6, "abcd"), pbPacked(3, -1, 2))), pbText(7, "\x01\x00\x00\x00x")...))
	f.Add(pbBytes(2, pbBytes(1, pbText(1, "abc")), pbBytes(2, pbText(1, "x"), pbText(2, "y"))))
	f.Add(binary.BigEndian.AppendUint32(nil, 0x12000000))
	f.Fuzz(func(t *testing.T, data []byte) {
		for name, c := range map[string]counts{"Predict": tfTensors, "Classify": tfExamples, "Infer": v2Inputs} {
			batch, size, ok := decodedCounts(name, data)
			for _, piece := range []int{1, 3, len(data) + 1} {
				if countMessage(c, Most{}, data, piece) != nil {
					continue
				}
				if !ok {
					continue // the counter leaves out what no server needs
				}
				if least := leastOf(t, func(n int64) error { return countMessage(c, Most{Batch: n}, data, piece) }); least < batch {
					t.Errorf("%s %x in pieces of %d: batch %d; the decoder has %d", name, data, piece, least, batch)
				}
				if least := leastOf(t, func(n int64) error { return countMessage(c, Most{Tensor: n}, data, piece) }); least < size {
					t.Errorf("%s %x in pieces of %d: input of %d bytes; the decoder has %d", name, data, piece, least, size)
				}
			}
		}
	})
}
