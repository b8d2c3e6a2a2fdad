package model

import (
	"encoding/binary"
	"errors"
	"math"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
)

// Lead is the beginning of the content of a gRPC call, which has not been sent yet.
type Lead interface {
	Size() int64
	At(i int64) byte
	// Splice replaces n bytes at a position by others, which are as many or more.
	Splice(at int64, n int, with []byte) error
}

const (
	errLeadCompressed placeError = "the message is compressed, so no version can be written into it"
	errLeadLate       placeError = "the model stands too far from the start of the message to write a version beside it"
	errLeadForm       placeError = "a length in the message has more bytes than it needs, or is too large to write a version behind it"
)

// placeError is an error that wraps ErrNoPlace.
type placeError string

func (e placeError) Error() string { return string(e) }

func (e placeError) Unwrap() error { return ErrNoPlace }

// TakesVersion reports whether a version can be written into the messages of a gRPC call, or the path of
// another request, that names none.
func (r *Reading) TakesVersion() bool {
	if r.method == nil {
		return r.Call.Dialect.ChoosesVersions()
	}
	kind := r.method.shape.kind()
	return !r.method.streams && (kind == specAt1 || kind == nameAndWord || kind == nameAndNumber)
}

// WriteVersion writes a version into the message of a unary gRPC call that names a model and no version.
// Lead holds the message up to where it names the model, or further. What has been written must be scanned
// again as it is sent: the message may name a version further on. The error is [ErrNoPlace] for a message
// that has no place for a version, or that of Lead.
func (r *Reading) WriteVersion(lead Lead, version string) error {
	if !r.TakesVersion() || r.method == nil {
		return ErrNoPlace
	}
	if lead.Size() < 5 {
		return errLeadLate
	}
	if lead.At(0) != 0 {
		return errLeadCompressed
	}
	w := &pinWriter{lead: lead, shape: r.method.shape, at: 5}
	for i := int64(1); i < 5; i++ {
		w.length = w.length<<8 | int64(lead.At(i))
	}
	w.end = min(lead.Size(), 5+w.length)
	field, err := versionField(w.shape, version)
	if err != nil {
		return err
	}
	before := lead.Size()
	if w.shape == specAt1 {
		err = w.writeSpec(field)
	} else {
		err = w.writeField(field)
	}
	if err != nil {
		return err
	}
	if w.length += lead.Size() - before; w.length > math.MaxUint32 {
		return errLeadForm
	}
	return lead.Splice(1, 4, binary.BigEndian.AppendUint32(nil, uint32(w.length)))
}

// versionField returns the field for a version, of a ModelSpec or of the message itself.
func versionField(s shape, version string) ([]byte, error) {
	label, labelled := strings.CutPrefix(version, Label)
	switch {
	case s != specAt1:
		number := protowire.Number(s >> 8 & 0xff)
		return protowire.AppendString(protowire.AppendTag(nil, number, protowire.BytesType), version), nil
	case labelled:
		return protowire.AppendString(protowire.AppendTag(nil, 4, protowire.BytesType), label), nil
	}
	n, err := strconv.ParseUint(version, 10, 63)
	if err != nil {
		return nil, ErrNoPlace
	}
	value := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), n)
	return protowire.AppendBytes(protowire.AppendTag(nil, 2, protowire.BytesType), value), nil
}

// pinWriter finds the place for a version in a message.
type pinWriter struct {
	lead    Lead
	shape   shape
	length  int64 // of the message
	at, end int64 // what is read of lead
}

// pinField is a field of the message. One with a length has its value from value on.
type pinField struct {
	number       uint64
	start, sized int64 // where its tag and its length begin
	value, size  int64
}

var errLeadEnd = errors.New("the lead ends")

// writeSpec writes the field at the end of the ModelSpec, and the length that it has then.
func (w *pinWriter) writeSpec(field []byte) error {
	for {
		f, err := w.next()
		switch {
		case err != nil:
			return w.late(err)
		case f.number != 1:
			continue
		case f.value+f.size > w.end:
			return errLeadLate
		}
		size := protowire.AppendVarint(nil, uint64(f.size)+uint64(len(field)))
		if int(f.value-f.sized) > len(size) {
			return errLeadForm
		}
		if err := w.lead.Splice(f.value+f.size, 0, field); err != nil {
			return err
		}
		return w.lead.Splice(f.sized, int(f.value-f.sized), size)
	}
}

// writeField writes the field at the start of the message, or in the place of one that is empty.
func (w *pinWriter) writeField(field []byte) error {
	for {
		f, err := w.next()
		switch {
		case err == errLeadEnd:
			return w.lead.Splice(5, 0, field)
		case err != nil:
			return err
		case f.number != uint64(w.shape>>8&0xff):
			continue
		case f.size != 0 || f.value-f.start > int64(len(field)):
			return errLeadForm
		}
		return w.lead.Splice(f.start, int(f.value-f.start), field)
	}
}

// late turns the end of the lead into the error for a model that stands behind it.
func (w *pinWriter) late(err error) error {
	if err == errLeadEnd {
		return errLeadLate
	}
	return err
}

// next reads a field and passes over its value.
func (w *pinWriter) next() (f pinField, err error) {
	f.start = w.at
	tag, err := w.varint()
	if err != nil {
		return f, err
	}
	f.number, f.sized = tag>>3, w.at
	switch tag & 7 {
	case 0:
		_, err = w.varint()
		return f, err
	case 1:
		f.value, f.size = w.at, 8
	case 2:
		n, err := w.varint()
		if err != nil {
			return f, err
		}
		if n > math.MaxInt32 {
			return f, errLeadForm
		}
		f.value, f.size = w.at, int64(n)
	case 5:
		f.value, f.size = w.at, 4
	default:
		return f, errLeadForm
	}
	w.at = f.value + f.size
	return f, nil
}

func (w *pinWriter) varint() (v uint64, err error) {
	for shift := uint(0); shift < 64; shift += 7 {
		if w.at >= w.end {
			return 0, errLeadEnd
		}
		c := w.lead.At(w.at)
		w.at++
		v |= uint64(c&0x7f) << shift
		if c < 0x80 {
			return v, nil
		}
	}
	return 0, errLeadForm
}
