package model

import (
	"encoding/binary"
	"strconv"
	"strings"
	"sync"

	"sallyport/proxy/message"
)

// Served is what an answer says of the model that gave it. A member that the answer does not say is "".
// The server says it and nobody checks it, so it is for records, never for decisions.
type Served struct{ Model, Version string }

const (
	// servedBytes limits how much of an answer is read for what it says. The long values of a gRPC message
	// are passed over, whatever their length, and do not count.
	servedBytes = 64 << 10
	// servedName limits the bytes of a name or version. A longer one is left out.
	servedName = 256
	// servedPiece is how much of a message is read before it is looked whether the rest can be passed over.
	servedPiece = 64
)

// servedIn says where the servers' answers to inference over REST name the model.
type servedIn uint8

const (
	servedNowhere servedIn = iota
	servedAsV2             // in model_name and model_version of a JSON object, under the paths of the Open Inference Protocol
	servedAsModel          // in model of a JSON object, or of the objects message and response in it
)

// ServedScanner reads an answer for what it says of its model: the beginning of one over REST, the message of
// a gRPC call, and each message of a gRPC stream, of which the last one counts. It never delays or refuses
// an answer: one that it cannot read says nothing. It allocates nothing but the strings that it returns,
// and not these if they are those of the call. It serves one answer and is not safe for concurrent use.
type ServedScanner struct {
	call Call
	left int  // bytes that may still be read, of the message if it is gRPC
	over bool // nothing more is read

	grpc, streams bool
	head          [5]byte // of the message
	have          int     // bytes of head
	rest          uint64  // bytes of the message still to come
	read          bool    // what the message names is known, or cannot be
	proto         protoScanner
	said          Served

	json answerScanner
}

var servedScanners = sync.Pool{New: func() any {
	s := new(ServedScanner)
	s.proto.decide = func(Named) error { return nil }
	return s
}}

// ServedScanner returns a scanner of the answer with this head; nil if such answers say nothing. End must be
// called on it.
func (r *Reading) ServedScanner(h *message.Response) *ServedScanner {
	if h.Status < 200 || h.Status > 299 || h.Fields.Has("content-encoding") {
		return nil
	}
	if r.method != nil {
		if r.method.answer == nothing || !message.IsGRPC(h.Fields.Get("content-type")) {
			return nil
		}
		s := servedScanners.Get().(*ServedScanner)
		s.begin(r, true, servedBytes)
		s.streams, s.proto.shape, s.proto.previous = r.method.streams, r.method.answer, Named{Model: r.Call.Model, Version: r.Call.Version}
		return s
	}
	in, binary := r.servedIn(), h.Fields.Get("inference-header-content-length")
	if in == servedNowhere || !isJSONStream(h.Fields.Get("content-type"), binary != "") {
		return nil
	}
	limit := servedBytes
	if binary != "" { // tensors follow the JSON
		length, err := strconv.ParseUint(binary, 10, 32)
		if err != nil {
			return nil
		}
		limit = int(min(length, servedBytes))
	}
	s := servedScanners.Get().(*ServedScanner)
	s.begin(r, false, limit)
	s.json = answerScanner{in: in}
	return s
}

// servedIn returns where an answer to the request names the model.
func (r *Reading) servedIn() servedIn {
	d := r.Call.Dialect
	if d == nil || d.served == servedNowhere || r.Call.Class() != Inference || d.served == servedAsV2 && !strings.HasPrefix(r.Path, v2ModelsPrefix) {
		return servedNowhere
	}
	return d.served
}

// isJSONStream reports whether content of a type begins with a JSON object, or holds some as events.
func isJSONStream(contentType string, binary bool) bool {
	switch MediaType(contentType) {
	case "application/json", "application/x-ndjson", "text/event-stream":
		return true
	case "application/octet-stream":
		return binary
	}
	return false
}

func (s *ServedScanner) begin(r *Reading, grpc bool, limit int) {
	s.call, s.grpc, s.left = r.Call, grpc, limit
	s.over, s.have, s.said, s.proto.named = false, 0, Served{}, Named{}
}

// Write takes the next piece of the answer.
func (s *ServedScanner) Write(p []byte) {
	for len(p) > 0 && !s.over {
		if s.grpc {
			p = p[s.frame(p):]
			continue
		}
		n := min(len(p), s.left)
		s.left -= n
		s.over = s.json.write(p[:n]) || s.left == 0
		p = p[n:]
	}
}

// frame takes bytes of a gRPC message, and returns how many.
func (s *ServedScanner) frame(p []byte) (n int) {
	switch {
	case s.have < len(s.head):
		n = copy(s.head[s.have:], p)
		if s.have += n; s.have < len(s.head) {
			return n
		}
		s.rest, s.left = uint64(binary.BigEndian.Uint32(s.head[1:])), servedBytes
		s.read = s.head[0] != 0 // compressed
		s.proto.begin(s.rest)
	case s.read:
		n = int(min(s.rest, uint64(len(p))))
		s.rest -= uint64(n)
	default:
		n = s.piece(p)
	}
	if !s.read && s.rest == 0 {
		_ = s.proto.end() // what a message with a fault has said counts
		s.take()
	}
	if s.rest == 0 {
		s.have = 0
	}
	s.over = s.read && !s.streams
	return n
}

// piece takes bytes of a message that is still read.
func (s *ServedScanner) piece(p []byte) (n int) {
	m := &s.proto
	if m.state == skipping {
		n = int(min(m.until-m.at, uint64(len(p))))
	} else {
		n = int(min(uint64(len(p)), s.rest, servedPiece))
		s.left -= n
	}
	s.rest -= uint64(n)
	err := m.write(p[:n])
	known := m.named.Model != "" && m.named.Version != "" && m.shape != tasksAt1 // of tasks the last one counts
	if err != nil || known || s.left <= 0 {
		s.take()
	}
	return n
}

// take notes what the message names, and that no more of it is read.
func (s *ServedScanner) take() {
	s.read = true
	n := s.proto.named
	if n.Version == Latest { // it names none
		n.Version = ""
	}
	if n.Model != "" || n.Version != "" {
		s.said = Served{n.Model, n.Version}
	}
}

// End ends the scan, and returns what the answer has said. s must not be used afterwards.
func (s *ServedScanner) End() Served {
	switch {
	case !s.grpc:
		s.said = s.json.said(s.call)
	case s.have == len(s.head) && !s.read: // the answer was cut
		s.take()
	}
	said, d := s.said, s.call.Dialect
	name, err := d.CanonicalModel(said.Model)
	if err == nil && d.canonical == nil {
		err = checkName(name)
	}
	if said.Model = name; err != nil || len(name) > servedName {
		said.Model = ""
	}
	if len(said.Version) > servedName || checkVersion([]byte(said.Version)) != nil {
		said.Version = ""
	}
	s.call, s.said = Call{}, Served{}
	servedScanners.Put(s)
	return said
}
