package message

// Audience returns those of the lines that say who sees the answer: a person, or a program, and by which
// protocol. Engines keep them of a head that is too large, so that a person learns what to do.
func (f Fields) Audience() (kept Fields) {
	for i := range f {
		switch f[i].Name {
		case "accept", "sec-fetch-mode", "sec-fetch-dest", "x-requested-with", "sec-purpose", "purpose", "x-purpose", "x-moz", "content-type":
			kept = append(kept, f[i])
		}
	}
	return kept
}
