package model

import "strings"

// jsonPlan says which members of a JSON object make a batch.
type jsonPlan struct {
	keys []jsonKey
	all  bool // every other member is rows, too
	v2   bool // binary content may follow the object; see newJSONCounter
}

// jsonKey is the name of a member. Names are compared without regard to letter case, as Go's decoder does.
// An input of the Open Inference Protocol must spell its members as servers do: binary content that is
// taken for that of an input without any belongs to the next one.
type jsonKey struct {
	within string // the member whose object has it; "": the object itself
	name   string
	role   jsonRole
}

// jsonRole is what a member means to a count.
type jsonRole uint8

const (
	roleNone   jsonRole = iota
	roleRows            // an array has a batch of its length, an object the longest of its arrays
	roleTexts           // the same, but numbers in the array are the tokens of one text
	roleTimes           // a number: the batch is computed that many times
	roleObject          // members of it have roles
	roleInputs          // the inputs of the Open Inference Protocol
)

// find returns the role of a member of the object that a member at the top holds; "" for the top.
func (p *jsonPlan) find(within, name string) jsonRole {
	for i := range p.keys {
		switch k := &p.keys[i]; {
		case strings.EqualFold(k.within, within) && strings.EqualFold(k.name, name):
			return k.role
		case within == "" && k.within != "" && strings.EqualFold(k.within, name):
			return roleObject
		}
	}
	if p.all {
		return roleRows
	}
	return roleNone
}

// longestCounted is the length of the longest name in a plan.
const longestCounted = len("dataframe_records")

// inputMember is a member of an input of the Open Inference Protocol.
type inputMember uint8

const (
	otherMember inputMember = iota
	memberShape
	memberData
	memberDatatype
	memberParameters
)

const (
	errInputForm    uncounted = "inputs is not an array of objects"
	errInputsTwice  uncounted = "the body has inputs twice, with binary content that may belong to either"
	errInputKey     uncounted = "a member of an input differs from one that servers know only in letter case"
	errInputTwice   uncounted = "an input has its shape, data, datatype, parameters or binary_data_size twice"
	errInputShape   uncounted = "the shape of an input is not an array of whole numbers"
	errInputBinary  uncounted = "binary_data_size of an input is not a whole number"
	errInputBoth    uncounted = "an input has data and binary_data_size"
	errCountNumber  uncounted = "n or best_of is not a whole number"
	errBinaryLength uncounted = "Inference-Header-Content-Length is not the length of a JSON object"
	errBinaryMore   uncounted = "the binary content behind the JSON object is not that of its inputs"
	errCountType    uncounted = "the Content-Type of the body is not application/json"
)

// jsonCounter counts what [Most] limits while an [objectScanner] reads a JSON object. A member that
// occurs twice counts twice, and the larger counts: servers differ in which they take.
type jsonCounter struct {
	most *Most
	plan jsonPlan
	at   int64 // offset of the byte that is read

	next   jsonRole // of the value of the key that was read
	name   string   // of that key, with roleObject
	within string   // the member whose object is being read; "": none
	role   jsonRole // of the value that is being read
	base   int      // depth of the object that has it
	object bool     // it is an object
	listed bool     // its elements are counted at depth base+1, or base+2 in an object
	rows   uint64
	tokens bool  // a number was among them
	start  int64 // offset of the value whose bytes count; -1: none

	batch uint64
	times uint64

	number struct {
		wanted, whole, minus bool
		value                uint64
	}

	member  inputMember
	seen    uint8 // bit n: the input has member n
	opaque  int   // depth of an object within data, which is one element; 0: none
	hollow  int   // depth of an array within data of which nothing has come; 0: none
	shape   shaped
	width   uint64
	binary  int64 // binary_data_size; -1: none
	awaited awaited
}

func newJSONCount(p jsonPlan, m *Most) *jsonCounter {
	return &jsonCounter{most: m, plan: p, start: -1, times: 1}
}

// keys reports whether the keys of the object at a depth are wanted.
func (c *jsonCounter) keys(depth int) bool {
	switch {
	case depth == 1, depth == 2 && c.within != "":
		return true
	case c.role != roleInputs:
		return false
	}
	return depth == 3 || depth == 4 && c.member == memberParameters
}

// key takes a key that was wanted.
func (c *jsonCounter) key(depth int, name string) error {
	switch {
	case depth == 1:
		if c.next = c.plan.find("", name); c.next == roleObject {
			c.name = name
		}
	case depth == 2:
		c.next = c.plan.find(c.within, name)
	case depth == 3:
		c.member = otherMember
		for m, n := range [...]string{memberShape: "shape", memberData: "data", memberDatatype: "datatype", memberParameters: "parameters"} {
			if n != "" && strings.EqualFold(n, name) {
				if c.member = inputMember(m); n != name {
					return errInputKey
				}
			}
		}
		if bit := uint8(1) << c.member; c.member != otherMember {
			if c.seen&bit != 0 {
				return errInputTwice
			}
			c.seen |= bit
		}
	case name == "binary_data_size":
		c.number.wanted = true
	case strings.EqualFold("binary_data_size", name):
		return errInputKey
	}
	return nil
}

// value takes the first byte of a value in the container at a depth. It reports whether its text is
// wanted, if it is a string.
func (c *jsonCounter) value(depth int, first byte) (text bool, err error) {
	if c.next != roleNone {
		role := c.next
		c.next = roleNone
		return false, c.begin(role, depth, first)
	}
	switch c.role {
	case roleRows, roleTexts:
		return false, c.row(depth, first)
	case roleInputs:
		return c.input(depth, first)
	}
	return false, nil
}

// begin begins a value that has a role.
func (c *jsonCounter) begin(role jsonRole, depth int, first byte) error {
	switch role {
	case roleObject:
		if first == '{' {
			c.within = c.name
		}
		return nil
	case roleTimes:
		if first == 'n' { // null
			return nil
		}
		if c.role, c.base = role, depth; !c.startNumber(first) {
			return errCountNumber
		}
		return nil
	case roleInputs:
		switch {
		case first != '[':
			return errInputForm
		case len(c.awaited.inputs) > 0:
			return errInputsTwice
		}
	}
	c.role, c.base, c.object, c.listed, c.start = role, depth, first == '{', first == '[', -1
	c.rows, c.tokens = 0, false
	if role == roleInputs || c.object {
		return nil
	}
	c.start = c.at
	return c.single(first)
}

// single counts a value that is no array as one row.
func (c *jsonCounter) single(first byte) error {
	if first == '[' {
		return nil
	}
	return c.counted(1)
}

// row counts a value within rows.
func (c *jsonCounter) row(depth int, first byte) error {
	if c.object && depth == c.base+1 {
		c.rows, c.tokens, c.listed, c.start = 0, false, first == '[', c.at
		return c.single(first)
	}
	level := c.base + 1
	if c.object {
		level++
	}
	if !c.listed || depth != level {
		return nil
	}
	if c.role == roleTexts && (first == '-' || first >= '0' && first <= '9') {
		if c.tokens {
			return nil
		}
		c.tokens = true
	}
	c.rows++
	return c.counted(c.rows)
}

// counted takes the size of a batch.
func (c *jsonCounter) counted(rows uint64) error {
	c.batch = max(c.batch, rows)
	return c.most.batch(times(c.batch, c.times))
}

// input takes a value within inputs.
func (c *jsonCounter) input(depth int, first byte) (text bool, err error) {
	switch {
	case depth == 2:
		if first != '{' {
			return false, errInputForm
		}
		c.member, c.seen, c.opaque, c.hollow, c.shape, c.width, c.binary = otherMember, 0, 0, 0, shaped{}, 1, -1
	case depth == 3 && c.member == memberShape && first != '[':
		return false, errInputShape
	case depth == 3 && c.member == memberData:
		c.start = c.at
		if first != '[' {
			c.shape.elements = 1
			c.opaque = 3
		}
	case depth == 3:
		return c.member == memberDatatype, nil
	case c.member == memberShape:
		if !c.startNumber(first) {
			return false, errInputShape
		}
	case c.member == memberData && c.opaque == 0:
		c.hollow = 0
		switch first {
		case '[':
			c.hollow = depth
			return false, nil
		case '{':
			c.opaque = depth
		}
		c.shape.elements++
	case c.number.wanted && !c.startNumber(first):
		return false, errInputBinary
	}
	return false, nil
}

// text takes a string that was wanted.
func (c *jsonCounter) text(s string) {
	c.width = widthOf([]byte(s))
}

// startNumber begins a number that is wanted. It reports whether the value is one.
func (c *jsonCounter) startNumber(first byte) bool {
	digit := first >= '0' && first <= '9'
	if !digit && first != '-' {
		return false
	}
	c.number.wanted, c.number.whole, c.number.minus, c.number.value = true, true, !digit, 0
	if digit {
		c.number.value = uint64(first - '0')
	}
	return true
}

// digit takes a further byte of a number.
func (c *jsonCounter) digit(b byte) {
	if b < '0' || b > '9' {
		c.number.whole = false
		return
	}
	c.number.value = plus(times(c.number.value, 10), uint64(b-'0'))
}

// ended takes the end of a value in the container at a depth. past is the offset behind its last byte.
func (c *jsonCounter) ended(depth int, past int64) error {
	if c.number.wanted {
		c.number.wanted = false
		if err := c.endNumber(); err != nil {
			return err
		}
	}
	switch {
	case c.within != "" && depth == 1:
		c.within = ""
	case c.role == roleNone:
	case c.role == roleInputs:
		return c.endedInput(depth, past)
	case depth == c.base:
		if err := c.measured(past); err != nil {
			return err
		}
		c.role = roleNone
	case c.object && depth == c.base+1:
		return c.measured(past)
	}
	return nil
}

// measured ends the value whose bytes count.
func (c *jsonCounter) measured(past int64) error {
	start := c.start
	if c.start = -1; start < 0 {
		return nil
	}
	return c.most.tensor(uint64(past - start))
}

// progress looks at the bytes that have come of a value whose bytes count.
func (c *jsonCounter) progress(at int64) error {
	if c.start < 0 {
		return nil
	}
	return c.most.tensor(uint64(at - c.start))
}

func (c *jsonCounter) endNumber() error {
	n := &c.number
	switch {
	case c.role == roleTimes && (!n.whole || n.minus):
		return errCountNumber
	case c.role == roleTimes:
		c.times = max(c.times, n.value)
		return c.counted(1)
	case c.member == memberShape && !n.whole:
		return errInputShape
	case c.member == memberShape && n.minus:
		c.shape.dim(-1)
	case c.member == memberShape:
		c.shape.dim(clipped(n.value))
		return c.most.batch(c.shape.lead)
	case !n.whole || n.minus:
		return errInputBinary
	case c.binary >= 0:
		return errInputTwice
	default:
		c.binary = clipped(n.value)
		return c.most.tensor(n.value)
	}
	return nil
}

// endedInput takes the end of a value within inputs.
func (c *jsonCounter) endedInput(depth int, past int64) error {
	switch {
	case c.member != memberData:
	case depth == c.opaque:
		c.opaque = 0
	case depth == c.hollow: // an entry to servers that take data for a list
		c.hollow = 0
		c.shape.elements++
	}
	switch depth {
	case 1:
		c.role = roleNone
	case 2:
		return c.endInput()
	case 3:
		member := c.member
		c.member = otherMember
		if member == memberData {
			return c.measured(past)
		}
	}
	return nil
}

// endInput ends an input.
func (c *jsonCounter) endInput() error {
	switch {
	case c.binary >= 0 && c.seen&(1<<memberData) != 0:
		return errInputBoth
	case c.binary >= 0:
		in := awaitedInput{shape: c.shape, width: c.width, size: uint64(c.binary)}
		if in.width > 0 {
			c.shape.elements = in.size / in.width
		}
		if err := c.awaited.add(in); err != nil {
			return err
		}
	}
	return c.counted(c.shape.batch())
}
