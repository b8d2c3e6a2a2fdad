// Package setting says what a value in gateway.yaml may be and whether a file
// keeps to it: typed values that are valid once decoded, and the strict decoder
// that reports every fault with its line and its cure.
//
// It knows no section of the file; those are structs beside the code that they
// configure, with `yaml:"name"` tags and a method
//
//	Check(path string, f *setting.Faults)
//
// that adds a fault for each value that decodes and still cannot be meant.
package setting

// List is a list of which one item may be written as a plain value:
// `host: a.example` for `host: [a.example]`.
type List[T any] []T

// oneOrMany marks lists for the decoder.
func (List[T]) oneOrMany() {}

// Shape is the form in which a value is written.
type Shape uint8

const (
	Scalar   Shape = iota + 1 // a name, number or quoted text
	Sequence                  // a list
	Mapping                   // fields with values
)

// Forms is implemented by pointers to types that may be written in more than one
// form, such as rules: the name of a policy, or a list of rules.
type Forms interface {
	// Form returns the pointer to decode a value of this shape into, or nil if
	// this shape is none of the forms.
	Form(Shape) any
	// Want names the forms in words, as in "the name of a policy or a list of rules".
	Want() string
}
