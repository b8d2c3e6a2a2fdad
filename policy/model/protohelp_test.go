package model

import (
	"encoding/binary"
	"slices"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

// The messages of the servers, with the numbers of their fields, as the real decoder needs
// them. Fields that the scanner skips are left out, or the decoder would refuse their content.
var pbMessages = func() protoreflect.FileDescriptor {
	type f = descriptorpb.FieldDescriptorProto
	str := func(name string, number int32) *f {
		return &f{Name: &name, Number: &number, Type: descriptorpb.FieldDescriptorProto_TYPE_STRING.Enum(),
			Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum()}
	}
	msg := func(name string, number int32, of string) *f {
		field := str(name, number)
		field.Type, field.TypeName = descriptorpb.FieldDescriptorProto_TYPE_MESSAGE.Enum(), proto.String(".t."+of)
		return field
	}
	choice := func(field *f) *f { field.OneofIndex = proto.Int32(0); return field }
	message := func(name string, fields ...*f) *descriptorpb.DescriptorProto {
		m := &descriptorpb.DescriptorProto{Name: &name, Field: fields}
		for _, field := range fields {
			if field.OneofIndex != nil && len(m.OneofDecl) == 0 {
				m.OneofDecl = []*descriptorpb.OneofDescriptorProto{{Name: proto.String("version_choice")}}
			}
		}
		return m
	}
	number := str("value", 1)
	number.Type = descriptorpb.FieldDescriptorProto_TYPE_INT64.Enum()
	tasks := msg("tasks", 1, "Task")
	tasks.Label = descriptorpb.FieldDescriptorProto_LABEL_REPEATED.Enum()
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: proto.String("t.proto"), Package: proto.String("t"), Syntax: proto.String("proto3"),
		MessageType: []*descriptorpb.DescriptorProto{
			message("Number", number),
			message("Spec", str("name", 1), choice(msg("version", 2, "Number")), choice(str("label", 4)), str("signature", 3)),
			message("Predict", msg("spec", 1, "Spec")),
			message("Task", msg("spec", 1, "Spec")),
			message("Multi", tasks),
			message("Infer", str("name", 1), str("version", 2)),
			message("Load", str("name", 2)),
			message("Empty"),
		},
	}, nil)
	if err != nil {
		panic(err)
	}
	return file
}()

// pbShapes are all shapes, with the message that each is about.
var pbShapes = []struct {
	message string
	shape   shape
}{
	{"Predict", specAt1},
	{"Multi", tasksAt1},
	{"Infer", nameVersion(1, 2)},
	{"Infer", nameVersion(1, 2).numbered()},
	{"Load", nameVersion(2, 0)},
	{"Empty", nothing},
}

// pbDecoded reads a message with the real decoder, and returns what it names.
func pbDecoded(message string, data []byte) (m protoreflect.Message, names []protoreflect.Message, err error) {
	d := dynamicpb.NewMessage(pbMessages.Messages().ByName(protoreflect.Name(message)))
	if err := proto.Unmarshal(data, d); err != nil {
		return nil, nil, err
	}
	m = d.ProtoReflect()
	switch message {
	case "Predict":
		names = append(names, pbSub(m, "spec"))
	case "Multi":
		tasks := pbGet(m, "tasks").List()
		for i := range tasks.Len() {
			names = append(names, pbSub(tasks.Get(i).Message(), "spec"))
		}
	case "Infer", "Load":
		names = append(names, m)
	}
	return m, names, nil
}

func pbGet(m protoreflect.Message, name protoreflect.Name) protoreflect.Value {
	return m.Get(m.Descriptor().Fields().ByName(name))
}

func pbSub(m protoreflect.Message, name protoreflect.Name) protoreflect.Message {
	return pbGet(m, name).Message()
}

func pbHas(m protoreflect.Message, name protoreflect.Name) bool {
	field := m.Descriptor().Fields().ByName(name)
	return field != nil && m.Has(field)
}

// Encoders by hand, for what the real one never writes.
func pbTag(number protowire.Number, wire protowire.Type) []byte {
	return protowire.AppendTag(nil, number, wire)
}

func pbText[T string | []byte](number protowire.Number, value T) []byte {
	return protowire.AppendString(pbTag(number, protowire.BytesType), string(value))
}

func pbNum(number protowire.Number, value uint64) []byte {
	return protowire.AppendVarint(pbTag(number, protowire.VarintType), value)
}

// framed is a gRPC message with its prefix.
func framed(flag byte, message []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{flag}, uint32(len(message))), message...)
}

// scanFrames scans a body in pieces of size bytes. It returns what Decide got, and the error.
func scanFrames(s shape, streams bool, o ScanOptions, body []byte, size int) (all []Named, err error) {
	decide := o.Decide
	o.Decide = func(n Named) error {
		all = append(all, n)
		if decide != nil {
			return decide(n)
		}
		return nil
	}
	scanner := newFrameScanner(s, streams, o)
	defer scanner.Close()
	for len(body) > 0 {
		n := min(size, len(body))
		if _, err := scanner.Write(body[:n]); err != nil {
			if again := scanner.Check(); again != err {
				panic("the error of Write is not final")
			}
			return all, err
		}
		body = body[n:]
	}
	return all, scanner.Check()
}

// scanPieces scans a body whole and in small pieces, which must not differ.
func scanPieces(t testing.TB, s shape, streams bool, o ScanOptions, body []byte) ([]Named, error) {
	t.Helper()
	all, err := scanFrames(s, streams, o, body, len(body)+1)
	for _, size := range []int{1, 2, 3, 7, 64} {
		others, other := scanFrames(s, streams, o, body, size)
		if !slices.Equal(all, others) || !sameError(other, err) {
			t.Fatalf("whole: %v, %v\nin pieces of %d: %v, %v\n%x", all, err, size, others, other, body)
		}
	}
	return all, err
}

func sameError(a, b error) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Error() == b.Error()
}
