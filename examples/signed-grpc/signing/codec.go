package signing

import (
	"fmt"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
)

// frame is a message as serialized, which passes grpc-go's codec as it is.
type frame struct {
	data     []byte
	received bool
}

// codec is the codec of a call, and the subtype of its media type; "" for none.
type codec struct {
	marshal   func(any) ([]byte, error)
	unmarshal func([]byte, any) error
	subtype   string
}

// codecOf returns the codec that grpc-go would use with these options.
func codecOf(opts []grpc.CallOption) codec {
	var forced codec
	subtype := ""
	for _, o := range opts {
		switch o := o.(type) {
		case grpc.ForceCodecCallOption:
			forced = codec{o.Codec.Marshal, o.Codec.Unmarshal, strings.ToLower(o.Codec.Name())}
		case grpc.ForceCodecV2CallOption:
			forced = codecV2(o.CodecV2, strings.ToLower(o.CodecV2.Name()))
		case grpc.ContentSubtypeCallOption:
			subtype = o.ContentSubtype
		}
	}
	switch {
	case forced.marshal != nil && subtype != "":
		forced.subtype = subtype
		return forced
	case forced.marshal != nil:
		return forced
	case subtype == "":
		return codecV2(encoding.GetCodecV2(proto.Name), "")
	}
	if c := encoding.GetCodecV2(subtype); c != nil {
		return codecV2(c, subtype)
	}
	if c := encoding.GetCodec(subtype); c != nil {
		return codec{c.Marshal, c.Unmarshal, subtype}
	}
	unknown := fmt.Errorf("no codec registered for content-subtype %s", subtype)
	return codec{
		func(any) ([]byte, error) { return nil, unknown },
		func([]byte, any) error { return unknown },
		subtype,
	}
}

func codecV2(c encoding.CodecV2, subtype string) codec {
	return codec{
		marshal: func(v any) ([]byte, error) {
			buffers, err := c.Marshal(v)
			if err != nil {
				return nil, err
			}
			defer buffers.Free()
			return buffers.Materialize(), nil
		},
		unmarshal: func(data []byte, v any) error { return c.Unmarshal(mem.BufferSlice{mem.SliceBuffer(data)}, v) },
		subtype:   subtype,
	}
}

// contentType returns the media type that grpc-go will send.
func (c codec) contentType() string {
	if c.subtype == "" {
		return "application/grpc"
	}
	return "application/grpc+" + c.subtype
}

// options returns the options of a call of frames. Its messages are sent as they were signed, and so not
// compressed.
func (c codec) options(opts []grpc.CallOption) []grpc.CallOption {
	return append(opts[:len(opts):len(opts)], grpc.ForceCodecV2(frames(c.subtype)), grpc.UseCompressor(encoding.Identity))
}

// decode decodes a verified message.
func (c codec) decode(f *frame, m any) error {
	if err := c.unmarshal(f.data, m); err != nil {
		return status.Errorf(codes.Internal, "unmarshaling an answer: %v", err)
	}
	return nil
}

// frames is the codec of frames, with the subtype that is sent for a name.
type frames string

func (n frames) Name() string { return string(n) }

func (frames) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.(*frame).data)}, nil
}

func (frames) Unmarshal(data mem.BufferSlice, v any) error {
	f := v.(*frame)
	f.data, f.received = data.Materialize(), true
	return nil
}
