package setting

// Durability is when a record must be in the audit log, seen from the last byte of its answer.
type Durability string

// These are the values of Durability. The zero value means that of the section above, or
// NotDurable.
const (
	NotDurable Durability = "off"    // afterwards
	Written    Durability = "answer" // before, in its file
	Synced     Durability = "synced" // before, on the file's disk
)

// Waits reports whether an answer waits for its record.
func (d Durability) Waits() bool { return d == Written || d == Synced }

// Check records the faults of the value at path. stdout says that records go to standard output.
func (d Durability) Check(path string, stdout bool, f *Faults) {
	switch {
	case d == Synced && stdout:
		f.Add(path, string(d), "standard output has no disk to wait for", "write answer, or name a file under audit.file")
	case d != "" && d != NotDurable && !d.Waits():
		f.Add(path, string(d), "not a durability that is known", "write off, answer or synced")
	}
}
