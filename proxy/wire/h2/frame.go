package h2

import "encoding/binary"

// frameType is a type of frame (RFC 9113, section 6).
type frameType uint8

const (
	frameData frameType = iota
	frameHeaders
	framePriority
	frameReset
	frameSettings
	framePush
	framePing
	frameGoAway
	frameWindow
	frameContinuation
)

// Flags of frames.
const (
	flagEndStream  = 0x1
	flagAck        = 0x1
	flagEndHeaders = 0x4
	flagPadded     = 0x8
	flagPriority   = 0x20
)

const frameHead = 9 // bytes before the payload

// frame is a frame as read from the connection.
type frame struct {
	kind    frameType
	flags   uint8
	stream  uint32
	size    int    // of the payload with padding, as flow control counts it
	payload []byte // without padding and priority; valid until the next read
}

func (f *frame) has(flag uint8) bool { return f.flags&flag != 0 }

// parseFrameHead reads the nine bytes before a payload.
func parseFrameHead(b []byte) frame {
	_ = b[8]
	return frame{
		kind:   frameType(b[3]),
		flags:  b[4],
		stream: binary.BigEndian.Uint32(b[5:]) & maxStream,
		size:   int(b[0])<<16 | int(b[1])<<8 | int(b[2]),
	}
}

// validate checks what holds in any state of the connection, and strips padding and priority from
// the payload. It ignores frames of unknown types.
func (f *frame) validate() error {
	switch f.kind {
	case frameData:
		if f.stream == 0 {
			return broken(protocolError, "DATA on stream 0")
		}
		return f.unpad()
	case frameHeaders:
		if f.stream == 0 {
			return broken(protocolError, "HEADERS on stream 0")
		}
		if err := f.unpad(); err != nil {
			return err
		}
		return f.dropPriority()
	case framePriority:
		return f.settlePriority()
	case frameReset:
		if f.stream == 0 {
			return broken(protocolError, "RST_STREAM on stream 0")
		}
		return f.want(4)
	case frameSettings:
		return f.settleSettings()
	case framePush:
		return broken(protocolError, "PUSH_PROMISE")
	case framePing:
		if f.stream != 0 {
			return broken(protocolError, "PING on a stream")
		}
		return f.want(8)
	case frameGoAway:
		if f.stream != 0 {
			return broken(protocolError, "GOAWAY on a stream")
		}
		if f.size < 8 {
			return broken(frameSizeError, "GOAWAY of an odd size")
		}
	case frameWindow:
		return f.settleWindow()
	case frameContinuation:
		if f.stream == 0 {
			return broken(protocolError, "CONTINUATION on stream 0")
		}
	}
	return nil
}

func (f *frame) want(size int) error {
	if f.size != size {
		return broken(frameSizeError, "frame of an odd size")
	}
	return nil
}

// unpad strips the padding.
func (f *frame) unpad() error {
	if !f.has(flagPadded) {
		return nil
	}
	if f.size < 1 {
		return broken(frameSizeError, "padding without its length")
	}
	pad := int(f.payload[0])
	if pad >= f.size {
		return broken(protocolError, "more padding than payload")
	}
	f.payload = f.payload[1 : f.size-pad]
	return nil
}

// dropPriority strips the priority of HEADERS, which is obsolete (RFC 9113, section 5.3.2). A
// stream must not depend on itself.
func (f *frame) dropPriority() error {
	if !f.has(flagPriority) {
		return nil
	}
	if len(f.payload) < 5 {
		return broken(frameSizeError, "priority without its fields")
	}
	on := binary.BigEndian.Uint32(f.payload) & maxStream
	f.payload = f.payload[5:]
	if on == f.stream {
		// RFC 9113 has no rule for it any more. It is a fault of the sender's framing, which a proxy in
		// front does not copy from its callers.
		return broken(protocolError, "stream depends on itself")
	}
	return nil
}

func (f *frame) settlePriority() error {
	switch {
	case f.stream == 0:
		return broken(protocolError, "PRIORITY on stream 0")
	case f.size != 5:
		return spoilt(f.stream, frameSizeError, "PRIORITY of an odd size")
	case binary.BigEndian.Uint32(f.payload)&maxStream == f.stream:
		return spoilt(f.stream, protocolError, "stream depends on itself")
	}
	return nil
}

func (f *frame) settleSettings() error {
	switch {
	case f.stream != 0:
		return broken(protocolError, "SETTINGS on a stream")
	case f.has(flagAck) && f.size != 0:
		return broken(frameSizeError, "acknowledgement with settings")
	case f.size%6 != 0:
		return broken(frameSizeError, "SETTINGS of an odd size")
	}
	return nil
}

func (f *frame) settleWindow() error {
	if err := f.want(4); err != nil {
		return err
	}
	if f.increment() == 0 {
		return spoilt(f.stream, protocolError, "window update of nothing")
	}
	return nil
}

// increment returns the increment of WINDOW_UPDATE.
func (f *frame) increment() uint32 { return binary.BigEndian.Uint32(f.payload) & maxStream }

// code returns the error code of RST_STREAM.
func (f *frame) code() code { return code(binary.BigEndian.Uint32(f.payload)) }

// goAway returns the fields of GOAWAY.
func (f *frame) goAway() (last uint32, c code) {
	return binary.BigEndian.Uint32(f.payload) & maxStream, code(binary.BigEndian.Uint32(f.payload[4:]))
}

// settingID names a setting (RFC 9113, section 6.5.2).
type settingID uint16

const (
	settingTableSize settingID = iota + 1
	settingPush
	settingStreams
	settingWindow
	settingFrameSize
	settingHeadSize
	settingConnect    settingID = 8 // RFC 8441
	settingNoPriority settingID = 9 // RFC 9218
)

type setting struct {
	id    settingID
	value uint32
}

// settings calls each for every setting of SETTINGS, in order. It refuses values that no peer may
// set.
func (f *frame) settings(each func(setting) error) error {
	for p := f.payload; len(p) >= 6; p = p[6:] {
		s := setting{settingID(binary.BigEndian.Uint16(p)), binary.BigEndian.Uint32(p[2:])}
		switch {
		case (s.id == settingPush || s.id == settingConnect) && s.value > 1:
			return broken(protocolError, "setting is neither 0 nor 1")
		case s.id == settingWindow && s.value > maxWindow:
			return broken(flowControlError, "initial window is too large")
		case s.id == settingFrameSize && (s.value < maxFrame || s.value > 1<<24-1):
			return broken(protocolError, "frame size out of bounds")
		}
		if err := each(s); err != nil {
			return err
		}
	}
	return nil
}

// appendFrameHead writes the nine bytes before a payload.
func appendFrameHead(b []byte, size int, kind frameType, flags uint8, stream uint32) []byte {
	return append(b, byte(size>>16), byte(size>>8), byte(size), byte(kind), flags,
		byte(stream>>24), byte(stream>>16), byte(stream>>8), byte(stream))
}

// putFrameSize corrects the size of the frame that begins at b.
func putFrameSize(b []byte, size int) { b[0], b[1], b[2] = byte(size>>16), byte(size>>8), byte(size) }

func appendSettings(b []byte, all ...setting) []byte {
	b = appendFrameHead(b, 6*len(all), frameSettings, 0, 0)
	for _, s := range all {
		b = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint16(b, uint16(s.id)), s.value)
	}
	return b
}

func appendSettingsAck(b []byte) []byte { return appendFrameHead(b, 0, frameSettings, flagAck, 0) }

func appendPing(b []byte, flags uint8, data []byte) []byte {
	return append(appendFrameHead(b, 8, framePing, flags, 0), data[:8]...)
}

func appendGoAway(b []byte, last uint32, c code) []byte {
	b = appendFrameHead(b, 8, frameGoAway, 0, 0)
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, last), uint32(c))
}

func appendReset(b []byte, stream uint32, c code) []byte {
	return binary.BigEndian.AppendUint32(appendFrameHead(b, 4, frameReset, 0, stream), uint32(c))
}

func appendWindow(b []byte, stream, n uint32) []byte {
	return binary.BigEndian.AppendUint32(appendFrameHead(b, 4, frameWindow, 0, stream), n)
}

// sealBlock frames the header block in b, which follows space for a frame head at at: one HEADERS
// and, for a long block, CONTINUATION frames.
func sealBlock(b []byte, at int, stream uint32, end bool) []byte {
	var flags uint8
	if end {
		flags = flagEndStream
	}
	size := len(b) - at - frameHead
	if size <= maxFrame {
		appendFrameHead(b[:at], size, frameHeaders, flags|flagEndHeaders, stream)
		return b
	}
	block := append([]byte(nil), b[at+frameHead:]...)
	b = append(appendFrameHead(b[:at], maxFrame, frameHeaders, flags, stream), block[:maxFrame]...)
	for block = block[maxFrame:]; len(block) > 0; {
		part := block[:min(len(block), maxFrame)]
		block = block[len(part):]
		flags = 0
		if len(block) == 0 {
			flags = flagEndHeaders
		}
		b = append(appendFrameHead(b, len(part), frameContinuation, flags, stream), part...)
	}
	return b
}
