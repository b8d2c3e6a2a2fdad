package model

import (
	"bytes"
	"math"
	"strconv"
	"unicode"
	"unicode/utf8"
)

// shape says where a protobuf message names a model. The low byte is a shape of this list. Above
// it stand the numbers of the fields that hold the name and the version, if they are strings.
type shape uint32

const (
	nothing   shape = iota // names no model; Decide gets the zero Named
	specAt1                // ModelSpec in field 1
	specAt2                // ModelSpec in field 2, as in answers
	specAt3                // ModelSpec in field 3
	tasksAt1               // repeated tasks in field 1, each with a ModelSpec in field 1
	answerAt2              // a message in field 2, with the name of the model in field 1 and its version in field 2
	nameOnly               // of these three, nameVersion makes shapes
	nameAndWord
	nameAndNumber
)

// nameVersion is a message that has the name of the model in one string, and its version in
// another: any word, see numbered. The version's field is 0 if there is none.
func nameVersion(name, version uint8) shape {
	kind := nameAndWord
	if version == 0 {
		kind = nameOnly
	}
	return shape(name)<<16 | shape(version)<<8 | kind
}

// numbered is the shape for servers that read the version as a number. Triton reads "3x" as 3
// (std::stol), so only digits pass. They lose leading zeros.
func (s shape) numbered() shape {
	if s.kind() == nameAndWord {
		s += nameAndNumber - nameAndWord
	}
	return s
}

func (s shape) kind() shape { return s & 0xff }

func (s shape) names() bool    { return s != nothing }
func (s shape) versions() bool { return s.names() && s.kind() != nameOnly }

// meaning says what a field is about. All are strings, if nothing else is said.
type meaning uint8

const (
	unknown meaning = iota
	modelName
	versionText
	versionLabel
	signatureName
	versionNumber // int64
	modelSpec     // message
	versionChoice // message that holds the number
	answerInside  // message
	task          // message, repeated
)

func (m meaning) message() bool { return m >= modelSpec }

// meaning is what a field is about in a message that has the meaning within; unknown is the
// message itself. The numbers of tensorflow/serving are those of apis/model.proto and
// apis/inference.proto.
func (s shape) meaning(within meaning, number uint64) meaning {
	switch {
	case number > 0xff:
	case within == unknown && s >= specAt1 && s <= specAt3 && number == uint64(s-specAt1)+1, within == task && number == 1:
		return modelSpec
	case within == unknown && s == answerAt2 && number == 2:
		return answerInside
	case within == answerInside && number <= 2:
		return [...]meaning{unknown, modelName, versionText}[number]
	case within == unknown && s == tasksAt1 && number == 1:
		return task
	case within == unknown && s.kind() >= nameOnly && shape(number) == s>>16:
		return modelName
	case within == unknown && s.kind() >= nameAndWord && shape(number) == s>>8&0xff:
		return versionText
	case within == modelSpec && number <= 4:
		return [...]meaning{unknown, modelName, versionChoice, signatureName, versionLabel}[number]
	case within == versionChoice && number == 1:
		return versionNumber
	}
	return unknown
}

const (
	errProtoVarint bodyError = "a number in the protobuf message is too long"
	errProtoTag    bodyError = "a field of the protobuf message has a number that is 0, too large or encoded in more bytes than it needs"
	errProtoLength bodyError = "a field is longer than the protobuf message that holds it"
	errProtoCut    bodyError = "the protobuf message ends within a field"
	errProtoGroup  bodyError = "the protobuf message has a group, or a wire type that does not exist"
	errProtoWire   bodyError = "the field of the model, its version or its signature has another wire type than it should"
	errProtoTwice  bodyError = "the message gives the model, its version or its signature more than once"
	errProtoBoth   bodyError = "the message names both a version and a version label"
	errProtoMixed  bodyError = "the tasks of the message name different models"
	errNameless    bodyError = "the message names no model"
	errNameLong    bodyError = "the name of the model, the version or the signature has more than 512 bytes"
	errNameForm    bodyError = `the name of the model holds a character that is not printable ASCII, or one of /:%?#\, or is . or ..`
	errVersionForm bodyError = "the version of the model is neither a number nor a word of letters, digits and .-_"
	errVersionSign bodyError = "the version of the model is not a number from 0 to 2^63-1"
	errSignature   bodyError = "the name of the signature is not UTF-8, or has control characters"
)

// protoScanner reads which model a protobuf message is about. The message comes in pieces of
// any size. Decoders of different languages differ in corners of the wire format, and all of
// them merge fields that occur twice. So the scanner refuses what decoders could read in two
// ways:
//   - A field of the shape occurs at most once, with its own wire type, and tags are encoded in
//     as few bytes as possible. Java drops the upper bits of long tags, and C++ those of 5 bytes,
//     so a field could have two numbers.
//   - Lengths have at most 5 bytes and fit 31 bits, as in C++; Java drops upper bits.
//   - There are no groups. No message of these servers has one, and a decoder without support
//     for them stops reading there.
//
// The grammar of the message, its spec and its tasks is checked to the end. Other messages
// within are skipped by their length.
type protoScanner struct {
	shape  shape
	decide func(Named) error
	early  func(Named) error // see [ScanOptions.Early]; nil for a short message, and once it was called

	at    uint64 // bytes that have been read
	depth int
	open  [4]openMessage // the message itself, and those within it that are being read

	state protoState
	value uint64 // varint so far
	shift uint
	is    meaning // of the value that is read
	until uint64  // end of a value that has a length

	seen     uint  // bit n: a field of meaning n has occurred, in this message or task
	hasTask  bool  // a task has been decided
	named    Named // so far
	previous Named // of the message or task before; its strings are used again
	size     int   // bytes in text
	text     [maxModelName]byte
}

type openMessage struct {
	is  meaning
	end uint64
}

type protoState uint8

const (
	inTag protoState = iota // or between fields, if shift is 0
	inVarint
	inLength
	inText
	skipping
)

// begin begins a message. Its fields may not go beyond size bytes.
func (s *protoScanner) begin(size uint64) {
	s.at, s.depth, s.state, s.shift, s.value = 0, 0, inTag, 0, 0
	s.open[0] = openMessage{end: size}
	s.hasTask = false
	s.beginUnit()
}

// beginUnit begins what names one model: a message or a task.
func (s *protoScanner) beginUnit() {
	s.seen = 0
	s.previous = s.names()
	s.named = Named{}
}

// names returns the last names that were read, whose strings are used again.
func (s *protoScanner) names() Named {
	if s.named.Model != "" {
		return s.named
	}
	return s.previous
}

// write takes the next piece of the message.
func (s *protoScanner) write(p []byte) error {
	for {
		for s.depth > 0 && s.at == s.open[s.depth].end && s.between() {
			if err := s.leave(); err != nil {
				return err
			}
		}
		if len(p) == 0 {
			return nil
		}
		var n int
		var err error
		switch s.state {
		case skipping:
			n = int(min(s.until-s.at, uint64(len(p))))
			if s.at += uint64(n); s.at == s.until {
				s.state = inTag
			}
		case inText:
			n = int(min(s.until-s.at, uint64(len(p))))
			s.at += uint64(n)
			err = s.takeText(p[:n])
		default:
			n, err = s.takeVarints(p)
		}
		if err != nil {
			return err
		}
		p = p[n:]
	}
}

// end ends the message.
func (s *protoScanner) end() error {
	switch {
	case s.depth > 0 || !s.between():
		return errProtoCut
	case s.shape == tasksAt1 && !s.hasTask:
		return errNameless
	case s.shape == tasksAt1:
		return nil
	}
	return s.decideUnit()
}

// between reports whether the next byte begins a field.
func (s *protoScanner) between() bool { return s.state == inTag && s.shift == 0 }

// takeVarints takes the varints at the start of p, and returns their size. It stops behind the
// length of a value, and at the end of a message.
func (s *protoScanner) takeVarints(p []byte) (n int, err error) {
	for n < len(p) && s.state <= inLength {
		if s.at == s.open[s.depth].end {
			if s.between() {
				break
			}
			return n, errProtoCut
		}
		s.at++
		if err := s.takeByte(p[n]); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// takeByte takes a byte of a varint.
func (s *protoScanner) takeByte(c byte) error {
	s.value |= uint64(c&0x7f) << s.shift
	if c >= 0x80 {
		s.shift += 7
		if s.shift == 70 || s.shift == 35 && s.state != inVarint {
			return errProtoVarint
		}
		return nil
	}
	value, shift := s.value, s.shift
	s.value, s.shift = 0, 0
	switch {
	case s.state == inTag:
		if value < 1<<3 || value > math.MaxUint32 || shift > 0 && c == 0 {
			return errProtoTag
		}
		return s.startValue(value>>3, value&7)
	case s.state == inLength:
		return s.startLong(value)
	case shift == 63 && c > 1:
		return errProtoVarint
	}
	s.state = inTag
	if s.is == unknown {
		return nil
	}
	if value > math.MaxInt64 {
		return errVersionSign
	}
	s.setNumber(value)
	return nil
}

// startValue begins the value of a field.
func (s *protoScanner) startValue(number, wire uint64) error {
	const varint, fixed64, length, fixed32 = 0, 1, 2, 5
	s.is = s.shape.meaning(s.open[s.depth].is, number)
	if s.early != nil && s.is == unknown && s.depth == 0 && s.shape != specAt1 && s.shape != tasksAt1 && number > uint64(s.shape>>8&0xff) {
		if err := s.sighted(); err != nil {
			return err
		}
	}
	if s.is != unknown {
		if err := s.mark(s.is, wire == varint, wire == length); err != nil {
			return err
		}
	}
	switch wire {
	case varint:
		s.state = inVarint
		return nil
	case length:
		s.state = inLength
		return nil
	case fixed64:
		return s.skip(8)
	case fixed32:
		return s.skip(4)
	}
	return errProtoGroup
}

// mark notes that a field of the shape occurs.
func (s *protoScanner) mark(is meaning, varint, length bool) error {
	const choices = 1<<versionChoice | 1<<versionLabel
	if is == versionNumber && !varint || is != versionNumber && !length {
		return errProtoWire
	}
	bit := uint(1) << is
	switch {
	case is == task:
		return nil
	case s.seen&bit != 0:
		return errProtoTwice
	case bit&choices != 0 && s.seen&choices != 0:
		return errProtoBoth
	}
	s.seen |= bit
	return nil
}

// skip passes over the next n bytes.
func (s *protoScanner) skip(n uint64) error {
	if n > s.open[s.depth].end-s.at {
		return errProtoLength
	}
	if s.state = skipping; n == 0 {
		s.state = inTag
	}
	s.until = s.at + n
	return nil
}

// startLong begins a value of n bytes.
func (s *protoScanner) startLong(n uint64) error {
	switch {
	case n > math.MaxInt32:
		return errProtoLength
	case s.is == unknown:
		return s.skip(n)
	case n > s.open[s.depth].end-s.at:
		return errProtoLength
	case s.is.message():
		s.depth++
		s.open[s.depth] = openMessage{is: s.is, end: s.at + n}
		s.state = inTag
		if s.is == task {
			s.beginUnit()
		}
		return nil
	case n > maxModelName:
		return errNameLong
	}
	s.state, s.size, s.until = inText, 0, s.at+n
	if n == 0 {
		return s.takeText(nil)
	}
	return nil
}

// leave ends a message within the message.
func (s *protoScanner) leave() error {
	is := s.open[s.depth].is
	s.depth--
	switch {
	case is == versionChoice && s.seen&(1<<versionNumber) == 0:
		s.setNumber(0)
	case is == task:
		return s.decideUnit()
	case is == modelSpec && s.shape == specAt1:
		return s.sighted()
	}
	return nil
}

// sighted reports what the message has named so far, if it is all that it names.
func (s *protoScanner) sighted() error {
	early := s.early
	if s.early = nil; early == nil || s.named.Model == "" {
		return nil
	}
	n := s.named
	if s.shape.versions() && n.Version == "" {
		n.Version = Latest
	}
	return early(n)
}

// takeText takes the next piece of a string.
func (s *protoScanner) takeText(p []byte) error {
	whole := s.at == s.until
	if !whole || s.size > 0 {
		s.size += copy(s.text[s.size:], p)
		p = s.text[:s.size]
	}
	if !whole {
		return nil
	}
	s.state = inTag
	return s.setText(p)
}

// setText sets what a string says.
func (s *protoScanner) setText(text []byte) error {
	switch s.is {
	case modelName:
		if err := checkName(text); err != nil {
			return err
		}
		s.named.Model = again(s.previous.Model, text)
	case versionLabel:
		if err := checkName(text); err != nil {
			return err
		}
		var room [len(Label) + maxModelName]byte
		s.named.Version = again(s.previous.Version, append(append(room[:0], Label...), text...))
	case signatureName:
		if !utf8.Valid(text) || bytes.ContainsFunc(text, unicode.IsControl) {
			return errSignature
		}
		s.named.Signature = again(s.previous.Signature, text)
	case versionText:
		if len(text) == 0 {
			return nil
		}
		if s.shape.kind() != nameAndNumber {
			s.named.Version = again(s.previous.Version, text)
			return checkVersion(text)
		}
		var number uint64
		for _, c := range text {
			if c -= '0'; c > 9 || number > (math.MaxInt64-uint64(c))/10 {
				return errVersionSign
			}
			number = 10*number + uint64(c)
		}
		s.setNumber(number)
	}
	return nil
}

func (s *protoScanner) setNumber(version uint64) {
	var room [20]byte
	s.named.Version = again(s.previous.Version, strconv.AppendUint(room[:0], version, 10))
}

// decideUnit has the model decided that a message or a task names.
func (s *protoScanner) decideUnit() error {
	if s.shape.names() && s.named.Model == "" {
		return errNameless
	}
	if s.shape.versions() && s.named.Version == "" {
		s.named.Version = Latest
	}
	if s.hasTask && s.named.Model != s.previous.Model {
		return errProtoMixed
	}
	s.hasTask = s.shape == tasksAt1
	return s.decide(s.named)
}

// again returns text, in the memory of old if they are equal. Messages of a stream are often
// about the same model.
func again(old string, text []byte) string {
	if old == string(text) {
		return old
	}
	return string(text)
}
