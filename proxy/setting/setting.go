// Package setting decodes gateway.yaml: it has types for values that are valid once decoded,
// and a strict decoder that reports every fault with its line and a remedy.
//
// It knows no section of the file. Sections are structs beside the code that they configure, with
// `yaml:"name"` tags and a method
//
//	Check(path string, f *setting.Faults)
//
// that adds a fault for each value that decodes but is not valid.
package setting

// List is a list that may be written as a single item: `host: a.example` for `host: [a.example]`.
type List[T any] []T

// oneOrMany marks lists for the decoder.
func (List[T]) oneOrMany() {}

// Shape is the YAML form of a value.
type Shape uint8

const (
	Scalar   Shape = iota + 1 // a name, number or quoted text
	Sequence                  // a list
	Mapping                   // fields with values
)

// Misplaced is implemented by sections some of whose fields users expect in another section.
type Misplaced interface {
	// CureMisplaced says where a field that the section does not have stands; "" if nowhere.
	CureMisplaced(name string) string
}

// Forms is implemented by pointers to types with several YAML forms, such as rules: the name of
// a policy, or a list of rules.
type Forms interface {
	// Form returns the pointer to decode a value of this shape into; nil if the shape is not
	// allowed.
	Form(Shape) any
	// Want describes the forms, such as "the name of a policy or a list of rules".
	Want() string
}
