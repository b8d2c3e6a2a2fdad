package interop_test

import (
	"math/rand/v2"
	"strings"
	"testing"
)

// seeds are where the search for differences between the parsers begins.
var seeds = map[string][]string{
	"parameters": {
		`("@method" "@authority" "@path" "@query" "content-digest");created=1;expires=61;nonce="n";keyid="k";tag="t"`,
		`( "x";sf   "y" ) ;  created=?1;a;b=tok/en;c=:AA==:;d=-1.50`,
		`("x-dict";key="a";req "x";bs;tr "@query-param";name="x");alg="hmac-sha256";created=007`,
		`("@method";req);x=:AB==:;y=@1;z=%"f%c3%bc"`,
		`()`, `("a" "a")`, `("a";x);tag="a\"b"`, `("@status" "@query-param";name="")`, `("A")`,
	},
	"x-dict": {
		`a=1,    b=2;x=1;y=2,   c=(a   b   c), d`, `a=?1;x, b=-00.50, c="\"";d=:AA==:`, `a=(), b=(?1 1.5;x "q");y`,
		`a=0000`, `a=1, a=2`, `a, b;x;x`, `a=@1`, `a=:AB==:`, `*=*, b="a, b;c=1"`, `a=-0.0`,
	},
	"x-list": {`1, (a b;x);y, "q", :AA==:, ?0, -1.5`, `a;x=1;x=2`, `()`, `(1 2`, `tok/en:*!, 999999999999.999`, `1,,2`},
	"x-item": {`1`, `"a\\b";x`, `:aGVsbG8=:;y="z"`, `?0;a;b=?0`, `-0.0`, `%"f"`, `@1`, `tok`},
	"digest": {
		`sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:, md5=:AA==:`,
		`sha-512=:z4PhNX7vuL3xVChQ1m2AB9Yg5AULVxXcg/SpIdNs6c5H0NE8XYXysP+DGNKHfuwvY7kxvUdBeoGlODJ6+SfaPg==:`,
		`sha-256=:AA==:`, `sha-256="x"`, `sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:;x`,
	},
	"input": {
		`a=("@method");keyid="k";tag="t"` + "\n" + `a=:AAAA:`,
		`a=();tag="u", b=("x";sf);created=1;tag="t"` + "\n" + `b=:AA==:, a=:AAAA:`,
		`a=();tag="t", b=();tag="t"` + "\n" + `a=::, b=::`, `a=();tag="t"` + "\n" + `b=::`, `a=("x" 1);tag="t"` + "\n" + `a=:AB==:`,
	},
	"accept": {
		`sp=("@method" "content-digest";req);created;nonce="n";tag="t"`, `a=();expires, b=("x";bs);keyid="k";alg="a";x=:AA==:`,
		`a=("@status");created=1`, `a=("x" "x")`, `a=1`, `a=();x=:A:`,
	},
}

// compare runs the comparison of one kind.
func compare(t *testing.T, kind, text string) {
	switch kind {
	case "parameters":
		compareParameters(t, text)
	case "digest":
		compareDigest(t, text)
	case "input":
		input, signature, _ := strings.Cut(text, "\n")
		compareInput(t, input, signature)
	case "accept":
		compareAccept(t, text)
	case "x-dict":
		compareMember(t, text)
		fallthrough
	default:
		compareField(t, text, kind)
	}
}

// pieces are what is put into texts, besides pieces of other texts.
var pieces = append(strings.Fields(`a b x= =1 ;x ;x=1 ;req ;sf ;bs ;tr ;key="a" ;name="x" "@method" "x" ( ) () (a =( ?0 ?1 -1 -0.0 1.5 00 .
	:AA==: :AB==: :A: :AAA: :: " \ \" "" , ;; == @1 %"a" * tok/en /: ~ A sha-256= sha-512= ;created=1 ;nonce="n" ;tag="t" ;alg="" ;keyid="k"
	999999999999999 1000000000000000 123456789012.125`), " ", "  ", "\t", ", ", " ,", "\x00", "\x7f", "\xff", "\n", strings.Repeat(";y=1", 17), strings.Repeat(` "z"`, 33), strings.Repeat("m,", 65))

// mutated changes a text at random.
func mutated(r *rand.Rand, all []string) string {
	text := all[r.IntN(len(all))]
	for range 1 + r.IntN(3) {
		at := r.IntN(len(text) + 1)
		end := min(len(text), at+r.IntN(6))
		switch r.IntN(6) {
		case 0:
			text = text[:at] + text[end:]
		case 1:
			text = text[:end] + text[at:end] + text[end:]
		case 2:
			other := all[r.IntN(len(all))]
			text = text[:at] + other[r.IntN(len(other)+1):]
		case 3:
			if at < end {
				text = text[:at] + string([]byte{text[at] ^ 1<<r.IntN(7)}) + text[at+1:]
			}
		default:
			text = text[:at] + pieces[r.IntN(len(pieces))] + text[at:]
		}
	}
	return text
}

// rounds is how often each bounded search tries: some seconds for all of them.
const rounds = 20_000

// The parsers agree on what is near to the seeds. The search is random and yet the
// same each time; the fuzz targets go on from there.
func TestFields(t *testing.T) {
	for kind, all := range seeds {
		t.Run(kind, func(t *testing.T) {
			r := rand.New(rand.NewPCG(9421, 9651))
			for _, text := range all {
				compare(t, kind, text)
			}
			for range rounds {
				compare(t, kind, mutated(r, all))
				if t.Failed() {
					return
				}
			}
		})
	}
}

func FuzzParameters(f *testing.F) { fuzz(f, "parameters") }
func FuzzDictionary(f *testing.F) { fuzz(f, "x-dict") }
func FuzzList(f *testing.F)       { fuzz(f, "x-list") }
func FuzzItem(f *testing.F)       { fuzz(f, "x-item") }
func FuzzDigest(f *testing.F)     { fuzz(f, "digest") }
func FuzzInput(f *testing.F)      { fuzz(f, "input") }
func FuzzAccept(f *testing.F)     { fuzz(f, "accept") }

func fuzz(f *testing.F, kind string) {
	for _, text := range seeds[kind] {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) { compare(t, kind, text) })
}
