package setting

// Durability says what must have happened to an audit record before the last byte of its answer
// is sent.
type Durability string

// These are the values of Durability. The zero value of a route means that of the whole file, and
// the zero value of the file means NotDurable.
const (
	NotDurable Durability = "off"    // nothing: it is written later
	Written    Durability = "answer" // the file has it
	Synced     Durability = "synced" // the file's disk has it
)

// Waits reports whether an answer waits for its record.
func (d Durability) Waits() bool { return d == Written || d == Synced }

// Check records the faults of the value at path. stdout says that records go to standard output.
func (d Durability) Check(path string, stdout bool, f *Faults) {
	switch {
	case d == Synced && stdout:
		f.Add(path, string(d), "standard output has no disk to wait for", "write answer, or name a file under audit.file")
	case d != "" && d != NotDurable && !d.Waits():
		f.Add(path, string(d), "not a known durability", "write off, answer or synced")
	}
}
