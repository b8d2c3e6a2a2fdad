package local

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// The state file. All numbers are big-endian:
//
//	"sallyport-nonces"
//	uint32 version
//	uint64 length of the whole file
//	int64  floor
//	uint32 number of keys, then each: uint32 length, id
//	uint32 number of buckets, then each:
//	       int64 from, to, last, end; uint32 number of claims, then each:
//	       uint32 number of the key, 16 bytes
//	SHA-256 of everything before
//
// It contains no secret: claims are parts of signatures that were sent over the network.
const (
	stateMagic   = "sallyport-nonces"
	stateVersion = 1
	lengthAt     = len(stateMagic) + 4
	recordSize   = 4 + 16
	bucketSize   = 4*8 + 4
)

// state is the content of a state file.
type state struct {
	floor   int64
	keys    []string
	buckets []savedBucket
}

// savedBucket is a bucket in a state file.
type savedBucket struct {
	from, to, last, end int64
	records             []byte
}

// ours reports whether the file, if not empty, starts as a state file.
func ours(b []byte) bool {
	n := min(len(b), len(stateMagic))
	return string(b[:n]) == stateMagic[:n]
}

// appendState encodes a state.
func appendState(b []byte, s *state) []byte {
	begin := len(b)
	b = append(b, stateMagic...)
	b = binary.BigEndian.AppendUint32(b, stateVersion)
	b = binary.BigEndian.AppendUint64(b, 0)
	b = appendInt64(b, s.floor)
	b = binary.BigEndian.AppendUint32(b, uint32(len(s.keys)))
	for _, id := range s.keys {
		b = binary.BigEndian.AppendUint32(b, uint32(len(id)))
		b = append(b, id...)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(s.buckets)))
	for i := range s.buckets {
		k := &s.buckets[i]
		b = appendInt64(b, k.from, k.to, k.last, k.end)
		b = binary.BigEndian.AppendUint32(b, uint32(len(k.records)/recordSize))
		b = append(b, k.records...)
	}
	return seal(b, begin)
}

// seal sets the length of the data from begin on, and appends its checksum.
func seal(b []byte, begin int) []byte {
	binary.BigEndian.PutUint64(b[begin+lengthAt:], uint64(len(b)-begin+sha256.Size))
	sum := sha256.Sum256(b[begin:])
	return append(b, sum[:]...)
}

func appendInt64(b []byte, all ...int64) []byte {
	for _, v := range all {
		b = binary.BigEndian.AppendUint64(b, uint64(v))
	}
	return b
}

// parseState decodes a state. The result shares memory with b.
func parseState(b []byte) (*state, error) {
	in := reader{rest: b}
	if string(in.bytes(len(stateMagic))) != stateMagic {
		return nil, errors.New("it does not start with the magic bytes")
	}
	if v := in.uint32(); !in.short && v != stateVersion {
		return nil, fmt.Errorf("it has the unknown version %d", v)
	}
	if n := in.uint64(); in.short || n != uint64(len(b)) || len(b) < sha256.Size {
		return nil, errors.New("its length is wrong")
	}
	body := b[:len(b)-sha256.Size]
	if sum := sha256.Sum256(body); !bytes.Equal(sum[:], b[len(body):]) {
		return nil, errors.New("its checksum is wrong")
	}
	in.rest = in.rest[:max(len(in.rest)-sha256.Size, 0)]
	s := &state{floor: in.int64()}
	// Each entry consumes bytes, so these loops end with the file.
	for n := in.uint32(); n > 0 && !in.short; n-- {
		s.keys = append(s.keys, string(in.bytes(int(in.uint32()))))
	}
	for n := in.uint32(); n > 0 && !in.short; n-- {
		k, err := in.bucket(len(s.keys))
		if err != nil {
			return nil, err
		}
		s.buckets = append(s.buckets, k)
	}
	if in.short || len(in.rest) > 0 || !sane(s.floor) && s.floor != noFloor {
		return nil, errors.New("its content is inconsistent")
	}
	return s, nil
}

// bucket decodes a bucket whose claims belong to one of so many keys.
func (in *reader) bucket(keys int) (savedBucket, error) {
	k := savedBucket{from: in.int64(), to: in.int64(), last: in.int64(), end: in.int64()}
	n := uint64(in.uint32()) * recordSize
	if n > uint64(len(in.rest)) {
		in.short = true
		return k, nil
	}
	k.records = in.bytes(int(n))
	if !sane(k.from) || !sane(k.end) || k.last < k.from || k.last >= k.to || k.end < k.last || !sane(k.to) {
		return k, errors.New("its times are inconsistent")
	}
	for at := 0; at < len(k.records); at += recordSize {
		if binary.BigEndian.Uint32(k.records[at:]) >= uint32(keys) {
			return k, errors.New("a claim refers to an unknown key")
		}
	}
	return k, nil
}

// sane reports whether sums with t cannot overflow.
func sane(t int64) bool { return t > math.MinInt64/4 && t < math.MaxInt64/4 }

// reader decodes rest. Past the end, all values are zero and short is set.
type reader struct {
	rest  []byte
	short bool
}

func (in *reader) bytes(n int) []byte {
	if n < 0 || n > len(in.rest) {
		in.rest, in.short = nil, true
		return nil
	}
	b := in.rest[:n]
	in.rest = in.rest[n:]
	return b
}

func (in *reader) uint64() uint64 {
	if b := in.bytes(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (in *reader) int64() int64 { return int64(in.uint64()) }

func (in *reader) uint32() uint32 {
	if b := in.bytes(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}
