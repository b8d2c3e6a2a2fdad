// Package signing signs the calls of grpc-go and verifies their answers. It needs sallyport/auth/httpsig
// and grpc-go alone: copy it beside your code.
//
//	key, err := httpsig.HMACKey("alice-2026-11", secret)
//	calls := &httpsig.Calls{Key: key, Authority: "models.example.com:443"}
//	conn, err := grpc.NewClient("models.example.com:443", append(signing.DialOptions(calls, false), grpc.WithTransportCredentials(tls))...)
package signing

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"sallyport/auth/httpsig"
)

// DialOptions returns the options of a connection whose calls are signed. They must be the last that add
// interceptors: what later ones change is not what was signed. Credentials of calls add metadata later
// still, which cannot be signed. headersOnly permits streams of requests; see [Stream].
func DialOptions(calls *httpsig.Calls, headersOnly bool) []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithChainUnaryInterceptor(Unary(calls)),
		grpc.WithChainStreamInterceptor(Stream(calls, headersOnly)),
		grpc.WithDisableRetry(), // each attempt needs a signature of its own
	}
}

// Unary signs calls with one message each way. A reply is decoded only once it is verified. If a call
// fails, its error is that of grpc-go if the gateway has signed the status or grpc-go itself made it.
// Otherwise it wraps an [*httpsig.Error].
func Unary(calls *httpsig.Calls) grpc.UnaryClientInterceptor {
	return func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		codec := codecOf(opts)
		in, out := &frame{}, &frame{}
		var err error
		if in.data, err = codec.marshal(req); err != nil {
			return status.Errorf(codes.Internal, "marshaling the request: %v", err)
		}
		call, ctx, err := sign(ctx, calls, method, codec, in)
		if err != nil {
			return err
		}
		var header, trailer metadata.MD
		err = invoke(ctx, method, in, out, cc, append(codec.options(opts), grpc.Header(&header), grpc.Trailer(&trailer))...)
		if out.received {
			call.Received(out.data)
		}
		if err := verify(call, err, header, trailer); err != nil {
			return err
		}
		return codec.decode(out, reply)
	}
}

// Stream signs calls with streams. Of a stream of answers each message is decoded as it comes, and the end
// is io.EOF only if all of them are what the gateway signed: do not believe before that nothing is
// missing. Requests that are streams cannot be signed before they are sent. With headersOnly their content
// is left out, which the gateway must allow; otherwise they fail.
func Stream(calls *httpsig.Calls, headersOnly bool) grpc.StreamClientInterceptor {
	return func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
		s := &stream{ctx: ctx, codec: codecOf(opts), one: !desc.ServerStreams}
		s.open = func(first *frame) error {
			call, ctx, err := sign(ctx, calls, method, s.codec, first)
			if err != nil {
				return err
			}
			s.call = call
			s.ClientStream, err = open(ctx, desc, cc, method, s.codec.options(opts)...)
			return err
		}
		switch {
		case !desc.ClientStreams:
			return s, nil // it begins with its one request, which is signed
		case !headersOnly:
			return nil, status.Error(codes.InvalidArgument, "a stream of requests cannot be signed before it is sent")
		}
		if err := s.open(nil); err != nil {
			return nil, err
		}
		return s, nil
	}
}

// stream is a signed call. It begins with its first message if that is its only one.
type stream struct {
	grpc.ClientStream // nil until it has begun
	ctx               context.Context
	codec             codec
	open              func(first *frame) error
	call              *httpsig.Call
	one               bool // it has one answer
}

var errNotBegun = status.Error(codes.Internal, "the call begins with its request, which was not sent")

func (s *stream) begun() bool { return s.ClientStream != nil }

func (s *stream) Context() context.Context {
	if !s.begun() {
		return s.ctx
	}
	return s.ClientStream.Context()
}

func (s *stream) Header() (metadata.MD, error) {
	if !s.begun() {
		return nil, errNotBegun
	}
	return s.ClientStream.Header()
}

func (s *stream) Trailer() metadata.MD {
	if !s.begun() {
		return nil
	}
	return s.ClientStream.Trailer()
}

func (s *stream) CloseSend() error {
	if !s.begun() {
		return errNotBegun
	}
	return s.ClientStream.CloseSend()
}

func (s *stream) SendMsg(m any) error {
	data, err := s.codec.marshal(m)
	if err != nil {
		return status.Errorf(codes.Internal, "marshaling a request: %v", err)
	}
	f := &frame{data: data}
	if !s.begun() {
		if err := s.open(f); err != nil {
			return err
		}
	}
	return s.ClientStream.SendMsg(f)
}

func (s *stream) RecvMsg(m any) error {
	if !s.begun() {
		return errNotBegun
	}
	var f frame
	err := s.ClientStream.RecvMsg(&f)
	if f.received {
		s.call.Received(f.data)
	}
	if err != nil || s.one {
		ended := err
		if errors.Is(err, io.EOF) {
			ended = nil
		}
		header, _ := s.ClientStream.Header() // there is none if the call has failed
		if bad := verify(s.call, ended, header, s.ClientStream.Trailer()); bad != nil {
			return bad
		}
	}
	if err != nil {
		return err
	}
	return s.codec.decode(&f, m)
}

// sign signs a call, and returns a context with the metadata to send. first is nil if the content is not
// signed.
func sign(ctx context.Context, calls *httpsig.Calls, method string, c codec, first *frame) (call *httpsig.Call, _ context.Context, err error) {
	given, _ := metadata.FromOutgoingContext(ctx)
	var added httpsig.Lines
	if first == nil {
		call, added, err = calls.SignHead(method, c.contentType(), lines(given))
	} else {
		call, added, err = calls.Sign(method, c.contentType(), lines(given), first.data)
	}
	if err != nil {
		return nil, nil, status.Errorf(codes.Internal, "signing the call: %v", err)
	}
	var pairs []string
	for _, l := range added {
		pairs = append(pairs, l.Name, l.Value)
	}
	return call, metadata.AppendToOutgoingContext(ctx, pairs...), nil
}

// verify returns the error of a call: why it is not what was signed, or that with which it ended.
func verify(call *httpsig.Call, ended error, header, trailer metadata.MD) error {
	s := status.Convert(ended)
	if err := call.Verify(uint32(s.Code()), lines(header), lines(trailer)); err != nil {
		return fmt.Errorf("%w (the call ended with %s: %s)", err, s.Code(), s.Message())
	}
	return ended
}

// lines returns metadata as field lines, without binary values, which are not signed.
func lines(md metadata.MD) (all httpsig.Lines) {
	for name, values := range md {
		if strings.HasSuffix(name, "-bin") {
			continue
		}
		for _, v := range values {
			all = append(all, httpsig.Line{Name: name, Value: v})
		}
	}
	return all
}
