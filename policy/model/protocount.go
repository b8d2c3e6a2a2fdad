package model

import "math"

// counts says which message a [protoCounter] reads; 0: none whose content counts.
type counts uint8

const (
	tfTensors  counts = iota + 1 // PredictRequest, SessionRunRequest: entries of a map, or named tensors
	tfExamples                   // ClassificationRequest, RegressionRequest, MultiInferenceRequest
	v2Inputs                     // ModelInferRequest

	// These stand within those.
	tfNamed
	tfTensor
	tfShape
	tfDim
	tfInput
	tfExampleList
	v2Input
	v2Contents
)

// use is what a field means to a count.
type use uint8

const (
	useNothing  use = iota
	useMessage      // enters the message of the field
	useType         // number: the type of the elements
	useTypeName     // text: the same
	useDim          // number: one dimension
	useDims         // numbers, packed or not
	useNumbers      // elements of variable length, packed or not
	useWide4        // elements of 4 bytes, packed or not
	useWide8        // of 8
	usePairs4       // complex elements of two times 4 bytes
	usePairs8       // of two times 8
	useEach         // each occurrence is an element
	useRaw          // all elements in memory form
	useAwaited      // all elements of an input before, in memory form
	useExample      // each occurrence is an entry of the batch
)

// The numbers of TensorFlow are those of tensorflow/core/framework/tensor.proto and of
// tensorflow_serving/apis/input.proto; those of V2 of the Open Inference Protocol.
func (c counts) field(number uint64) (use, counts) {
	switch {
	case c == tfTensors && number == 2:
		return useMessage, tfNamed
	case c == tfNamed && number == 2:
		return useMessage, tfTensor
	case c == tfTensor:
		switch number {
		case 1:
			return useType, 0
		case 2:
			return useMessage, tfShape
		case 4:
			return useRaw, 0
		case 5:
			return useWide4, 0
		case 6:
			return useWide8, 0
		case 7, 10, 11, 13, 16, 17:
			return useNumbers, 0
		case 8, 14, 15:
			return useEach, 0
		case 9:
			return usePairs4, 0
		case 12:
			return usePairs8, 0
		case 18:
			return useRaw, 0 // bytes of 8-bit floats
		}
	case c == tfShape && number == 2:
		return useMessage, tfDim
	case c == tfDim && number == 1:
		return useDim, 0
	case c == tfExamples && number == 2:
		return useMessage, tfInput
	case c == tfInput && number <= 2:
		return useMessage, tfExampleList
	case c == tfExampleList && number == 1:
		return useExample, 0
	case c == v2Inputs && number == 5:
		return useMessage, v2Input
	case c == v2Inputs && number == 7:
		return useAwaited, 0
	case c == v2Input:
		switch number {
		case 2:
			return useTypeName, 0
		case 3:
			return useDims, 0
		case 5:
			return useMessage, v2Contents
		}
	case c == v2Contents:
		switch number {
		case 1, 2, 3, 4, 5:
			return useNumbers, 0
		case 6:
			return useWide4, 0
		case 7:
			return useWide8, 0
		case 8:
			return useEach, 0
		}
	}
	return useNothing, 0
}

const (
	errCountVarint uncounted = "a number in the protobuf message is too long"
	errCountTag    uncounted = "a field of the protobuf message has a number that is 0, too large or encoded in more bytes than it needs"
	errCountLength uncounted = "a field is longer than the protobuf message that holds it"
	errCountCut    uncounted = "the protobuf message ends within a field"
	errCountGroup  uncounted = "the protobuf message has a group, or a wire type that does not exist"
)

// protoCounter counts what [Most] limits in protobuf messages, which come in pieces of any size. Messages
// and lists that occur several times are merged, as decoders do: a tensor has all dimensions and all
// content of its occurrences. The grammar is checked as far as the counter enters the message, with the
// strictness of [protoScanner].
type protoCounter struct {
	most    Most
	message counts

	at    uint64
	depth int
	open  [6]openCount // the message itself, and those within it that are being read

	state   countState
	value   uint64 // varint so far
	shift   uint
	use     use
	within  counts // the message that the field holds, with useMessage
	until   uint64 // end of a value that has a length
	packed  bool   // a varint is one of a list
	name    [8]byte
	named   int    // bytes of name; more than it holds: another type
	size    int64  // of a dimension; the last one counts
	content uint64 // bytes of the input's content

	shape    shaped
	raw      uint64 // bytes of elements in memory form
	dtype    uint64
	examples uint64
	awaited  awaited
}

type countState uint8

const (
	countTag countState = iota // or between fields, if shift is 0
	countVarint
	countLength
	countSkipped
)

type openCount struct {
	is  counts
	end uint64
}

// begin begins a message. Its fields may not go beyond size bytes.
func (c *protoCounter) begin(size uint64) {
	c.at, c.depth, c.state, c.shift, c.value, c.packed = 0, 0, countTag, 0, 0, false
	c.open[0] = openCount{c.message, size}
	c.examples, c.content = 0, 0
	c.awaited.reset()
}

// end ends the message.
func (c *protoCounter) end() error {
	if c.depth > 0 || c.state != countTag || c.shift > 0 {
		return errCountCut
	}
	return nil
}

// write takes the next piece of the message.
func (c *protoCounter) write(p []byte) error {
	for {
		for c.depth > 0 && c.at == c.open[c.depth].end && c.state == countTag && c.shift == 0 {
			if err := c.leave(); err != nil {
				return err
			}
		}
		if len(p) == 0 {
			return nil
		}
		n, err := c.take(p)
		if err != nil {
			return err
		}
		p = p[n:]
	}
}

// take takes some bytes, and returns how many.
func (c *protoCounter) take(p []byte) (n int, err error) {
	if c.state == countSkipped {
		n = int(min(c.until-c.at, uint64(len(p))))
		c.at += uint64(n)
		err = c.passed(p[:n])
		if c.at == c.until {
			c.state = countTag
		}
		return n, err
	}
	if c.at == c.open[c.depth].end || c.packed && c.at == c.until {
		return 0, errCountCut
	}
	c.at++
	return 1, c.takeByte(p[0])
}

// passed looks at bytes of a value whose length is known.
func (c *protoCounter) passed(p []byte) error {
	switch c.use {
	case useTypeName:
		for _, b := range p {
			if c.named < len(c.name) {
				c.name[c.named] = b
			}
			c.named++
		}
	case useAwaited:
		return c.awaited.write(p, &c.most)
	case useNumbers:
		for _, b := range p {
			if b < 0x80 {
				c.shape.elements++
			}
		}
		if len(p) > 0 && c.at == c.until && p[len(p)-1] >= 0x80 {
			return errCountCut
		}
	}
	return nil
}

// takeByte takes a byte of a varint.
func (c *protoCounter) takeByte(b byte) error {
	c.value |= uint64(b&0x7f) << c.shift
	if b >= 0x80 {
		c.shift += 7
		if c.shift == 70 || c.shift == 35 && c.state != countVarint {
			return errCountVarint
		}
		return nil
	}
	value, shift := c.value, c.shift
	c.value, c.shift = 0, 0
	switch {
	case c.state == countTag:
		if value < 1<<3 || value > math.MaxUint32 || shift > 0 && b == 0 {
			return errCountTag
		}
		return c.startValue(value>>3, value&7)
	case c.state == countLength:
		return c.startLong(value)
	case shift == 63 && b > 1:
		return errCountVarint
	}
	if !c.packed || c.at == c.until {
		c.state, c.packed = countTag, false
	}
	switch c.use {
	case useType:
		c.dtype = uint64(uint32(value)) // decoders drop the upper bits of an enum
	case useDim:
		c.size = int64(value)
	case useDims:
		c.shape.dim(int64(value))
		return c.most.batch(c.shape.lead)
	case useNumbers:
		c.shape.elements++
		return c.grow(1)
	}
	return nil
}

// startValue begins the value of a field. One with another wire type than its own is unknown to
// decoders, and so to the count; but those of a list may come one by one.
func (c *protoCounter) startValue(number, wire uint64) error {
	const varint, fixed64, length, fixed32 = 0, 1, 2, 5
	c.use, c.within = c.open[c.depth].is.field(number)
	switch wire {
	case varint:
		if c.use != useType && c.use != useDim && c.use != useDims && c.use != useNumbers {
			c.use = useNothing
		}
		c.state = countVarint
		return nil
	case length:
		if c.use == useType || c.use == useDim {
			c.use = useNothing
		}
		c.state = countLength
		return nil
	case fixed64, fixed32:
		size, own := uint64(8), c.use == useWide8 || c.use == usePairs8
		if wire == fixed32 {
			size, own = 4, c.use == useWide4 || c.use == usePairs4
		}
		if !own {
			c.use = useNothing
			return c.skip(size)
		}
		c.use = useNothing
		c.shape.elements++
		if err := c.grow(size); err != nil {
			return err
		}
		return c.skip(size)
	}
	return errCountGroup
}

// grow adds to the bytes of the input's content.
func (c *protoCounter) grow(n uint64) error {
	c.content = plus(c.content, n)
	return c.most.tensor(c.content)
}

// skip passes over the next n bytes.
func (c *protoCounter) skip(n uint64) error {
	if n > c.open[c.depth].end-c.at {
		return errCountLength
	}
	if c.state = countSkipped; n == 0 {
		c.state = countTag
	}
	c.until = c.at + n
	return nil
}

// startLong begins a value of n bytes.
func (c *protoCounter) startLong(n uint64) error {
	if n > math.MaxInt32 || n > c.open[c.depth].end-c.at {
		return errCountLength
	}
	elements, cut := uint64(0), false
	switch c.use {
	case useMessage:
		return c.enter(n)
	case useDims:
		if c.state = countTag; n > 0 {
			c.state, c.packed, c.until = countVarint, true, c.at+n
		}
		return nil
	case useTypeName:
		c.named = 0
	case useExample:
		c.examples++
		if err := c.most.batch(c.examples); err != nil {
			return err
		}
	case useAwaited:
		if err := c.awaited.next(); err != nil {
			return err
		}
		in := &c.awaited.input
		if in.width > 0 {
			in.shape.elements = n / in.width
		}
		if err := c.most.batch(in.shape.batch()); err != nil {
			return err
		}
		if err := c.most.tensor(n); err != nil {
			return err
		}
	case useRaw:
		c.raw = plus(c.raw, n)
	case useEach:
		elements = 1
	case useWide4:
		elements, cut = n/4, n%4 != 0
	case useWide8, usePairs4:
		elements, cut = n/8, n%8 != 0
	case usePairs8:
		elements, cut = n/16, n%16 != 0
	}
	if cut {
		return errCountCut
	}
	c.shape.elements = plus(c.shape.elements, elements)
	if c.use >= useNumbers && c.use <= useRaw {
		if err := c.grow(n); err != nil {
			return err
		}
	}
	return c.skip(n)
}

// enter begins a message of n bytes within the message.
func (c *protoCounter) enter(n uint64) error {
	c.depth++
	c.open[c.depth] = openCount{c.within, c.at + n}
	c.state = countTag
	switch c.within {
	case tfNamed, v2Input:
		c.shape, c.raw, c.dtype, c.content, c.named = shaped{}, 0, 0, 0, 0
	case tfDim:
		c.size = 0
	case tfInput:
		return c.grow(n)
	}
	return nil
}

// leave ends a message within the message.
func (c *protoCounter) leave() error {
	is := c.open[c.depth].is
	c.depth--
	switch is {
	case tfDim:
		c.shape.dim(c.size)
		return c.most.batch(c.shape.lead)
	case tfNamed:
		return c.endTensor()
	case v2Input:
		return c.endInput()
	}
	return nil
}

// endTensor ends a tensor of TensorFlow. Its server takes the size from the shape: it repeats the last
// element of a content that is shorter.
func (c *protoCounter) endTensor() error {
	width, numbers := tfWidth(c.dtype)
	if numbers {
		c.shape.elements = plus(c.shape.elements, c.raw/width)
	}
	if err := c.most.tensor(times(c.shape.volume(), width)); err != nil {
		return err
	}
	return c.most.batch(c.shape.batch())
}

// endInput ends an input of V2. One without content has it behind the inputs.
func (c *protoCounter) endInput() error {
	if c.shape.elements == 0 {
		in := awaitedInput{shape: c.shape, width: 1}
		if c.named <= len(c.name) {
			in.width = widthOf(c.name[:c.named])
		}
		if err := c.awaited.add(in); err != nil {
			return err
		}
	}
	return c.most.batch(c.shape.batch())
}

// tfWidth returns the bytes of an element in memory, by the numbers of tensorflow/core/framework/types.proto,
// and whether it is a number. Those of a type not known have at least one.
func tfWidth(dtype uint64) (width uint64, number bool) {
	switch dtype {
	case 7: // string
		return 24, false
	case 20, 21: // resource, variant
		return 8, false
	case 18: // complex128
		return 16, true
	case 2, 8, 9, 23: // double, complex64, int64, uint64
		return 8, true
	case 1, 3, 13, 22: // float, int32, qint32, uint32
		return 4, true
	case 5, 14, 15, 16, 17, 19: // int16, bfloat16, qint16, quint16, uint16, half
		return 2, true
	}
	return 1, true
}
