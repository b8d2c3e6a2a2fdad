package setting

import "testing"

// The YAML parser reports the line on which the mapping or list around a fault began, or one before.
func TestSyntaxFaultsNameTheLine(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"a key further left than its mapping": {
			"a: 1\nb: 2\nroutes:\n  - host: a\n    callers: anonymous\n   upstream: b\nx: 1\n",
			"f.yaml:6: not YAML: did not find expected '-' indicator; indent this line like the others of its list or mapping",
		},
		"a key further right than its mapping": {
			"a: 1\nroutes:\n  - host: a\n     callers: x\n",
			"f.yaml:4: not YAML: mapping values are not allowed in this context; check indentation, quotes and colons on this line and the one before",
		},
		"a key between two mappings": {
			"a:\n  b: 1\n foo: 2\nd: 2\n",
			"f.yaml:3: not YAML: did not find expected key; indent this line like the others of its list or mapping",
		},
		"a key behind many sound lines": {
			"a:\n  b: 1\n  c: 2\n  d: 3\n  e:\n    f: 1\n # a comment\n\n g: 2\nh: 1\n",
			"f.yaml:9: not YAML: did not find expected key; indent this line like the others of its list or mapping",
		},
		"an item between two mappings": {
			"a:\n  b: 1\n - foo\nd: 2\n",
			"f.yaml:3: not YAML: did not find expected key; indent this line like the others of its list or mapping",
		},
		"a key among items": {
			"a:\n  - b\n  c: 1\nd: 2\n",
			"f.yaml:3: not YAML: did not find expected '-' indicator; indent this line like the others of its list or mapping",
		},
		"a word between two mappings": {
			"a:\n  b: 1\n foo\nd: 2\n",
			"f.yaml:3: not YAML: did not find expected key; indent this line like the others of its list or mapping",
		},
		"a bracket that nothing opened": {
			"a: 1\n}\nb: 2\n",
			"f.yaml:2: not YAML: did not find expected key; indent this line like the others of its list or mapping",
		},
		"a tab":                       {"a: 1\nroutes:\n\t- host: a\n", "f.yaml:3: a tab in the indentation; indent with spaces"},
		"a tab behind a value":        {"a: 1\nroutes:\n  - host: a\n\tpath: /\n", "f.yaml:4: a tab in the indentation; indent with spaces"},
		"a tab behind spaces":         {"a:\n  - b: 1\n    c: 2\n  \td: 1\n", "f.yaml:4: a tab in the indentation; indent with spaces"},
		"a tab behind a comment":      {"a: 1\nb:\n  - x: b\n\n# c\n\tpath: /\n", "f.yaml:6: a tab in the indentation; indent with spaces"},
		"a tab on the first line":     {"\ta: 1\n", "f.yaml:1: a tab in the indentation; indent with spaces"},
		"a tab in a text":             {"a: |\n  x\n\ty\nb: 1\n", "f.yaml:3: a tab in the indentation; indent with spaces"},
		"a tab elsewhere is no fault": {"a: 'x\ty'\nb: @x\n", "f.yaml:2: not YAML: found character that cannot start any token; put the value in quotes"},
		"a star":                      {"a: 1\nrules:\n  - allow: *\n", `f.yaml:3: a star begins an alias in YAML; quote the star: "*"`},
		"a star in brackets":          {"rules: [{allow: *}]\n", `f.yaml:1: a star begins an alias in YAML; quote the star: "*"`},
		"a star before a host":        {"a: 1\nhost: *.example.com\n", `f.yaml:2: a star begins an alias in YAML; quote the star: "*.example.com"`},
		"a star before a word":        {"a: 1\nhost: *foo\n", `f.yaml:2: a star begins an alias in YAML; quote the star: "*foo"`},
		"a bracket that is not closed": {
			"a: 1\nd: [a, b\nc: 2\ne: 3\n",
			"f.yaml:2: not YAML: did not find expected ',' or ']'; close each bracket that opens here, and separate its items by commas",
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, faults := Decode("f.yaml", []byte(c.text), &struct{}{})
			if len(faults) != 1 || faults[0].Error() != c.want {
				t.Errorf("got  %v\nwant %s", faults, c.want)
			}
		})
	}
}

func TestWrongTruthValuesAreCorrected(t *testing.T) {
	for text, want := range map[string]string{
		"on: yes":    `"yes": want true or false, found text; write true`,
		"on: On":     `"On": want true or false, found text; write true`,
		"on: 1":      `"1": want true or false, found a number; write true`,
		"on: no":     `"no": want true or false, found text; write false`,
		"on: off":    `"off": want true or false, found text; write false`,
		"on: True":   `"True": want true or false, found true or false; write true`,
		"on: 'true'": `"true": want true or false, found text; write true without quotes`,
		"on: maybe":  `"maybe": want true or false, found text; write true or false`,
	} {
		var v sample
		_, faults := Decode("f.yaml", []byte(text), &v)
		if len(faults) != 1 || faults[0].Error() != "f.yaml:1: on: "+want {
			t.Errorf("%s\ngot  %v\nwant %s", text, faults, want)
		}
	}
}
