package model

// checkName checks the name of a model that has been decoded once. Servers differ in how they
// read the characters refused here: some decode again, and some take them for the end of the
// name (see the differentials of paths). A name of dots only is a directory to some servers.
func checkName[T string | []byte](name T) error {
	switch {
	case len(name) == 0:
		return errNameless
	case len(name) > maxModelName:
		return errNameLong
	case string(name) == "." || string(name) == "..":
		return errNameForm
	}
	for i := range len(name) {
		switch c := name[i]; {
		case c < ' ' || c >= 0x7f, c == '/', c == ':', c == '%', c == '?', c == '#', c == '\\':
			return errNameForm
		}
	}
	return nil
}

// checkVersion checks a version that is not only a number to its server. The form leaves no
// room for what a lenient reader of numbers takes for another number: signs, spaces and
// leading zeros.
func checkVersion(version []byte) error {
	digits := true
	for i, c := range version {
		digit, letter := c >= '0' && c <= '9', c|0x20 >= 'a' && c|0x20 <= 'z'
		digits = digits && digit
		if !digit && !letter && (i == 0 || c != '.' && c != '-' && c != '_') {
			return errVersionForm
		}
	}
	if digits && len(version) > 1 && version[0] == '0' || string(version) == Latest {
		return errVersionForm
	}
	return nil
}
