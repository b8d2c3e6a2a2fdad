package config

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sallyport/proxy/setting"
)

var update = flag.Bool("update", false, "rewrite what the tests expect")

func TestConfigGood(t *testing.T) {
	files, err := filepath.Glob("testdata/good-*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("%v, %d files", err, len(files))
	}
	for _, name := range files {
		t.Run(filepath.Base(name), func(t *testing.T) {
			if _, err := Load(name); err != nil {
				t.Error(err)
			}
		})
	}
}

// Each bad-*.yaml says in its first lines which faults it has, all of them.
func TestConfigBad(t *testing.T) {
	files, err := filepath.Glob("testdata/bad-*.yaml")
	if err != nil || len(files) < 40 {
		t.Fatalf("%v, %d files; want 40 or more", err, len(files))
	}
	for _, name := range files {
		t.Run(filepath.Base(name), func(t *testing.T) {
			if *update {
				rewriteExpected(t, name)
			}
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			want, _ := splitExpected(text)
			_, err = Load(name)
			got := expectedOf(err)
			if len(want) == 0 {
				t.Fatalf("no expectation; got\n%s", strings.Join(got, "\n"))
			}
			if !slices.Equal(got, want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		})
	}
}

const expectMark = "# expect: "

// splitExpected parts a file from the expectations at its head.
func splitExpected(text []byte) (want []string, rest []byte) {
	for bytes.HasPrefix(text, []byte(expectMark)) {
		line, after, _ := bytes.Cut(text, []byte("\n"))
		want = append(want, strings.TrimPrefix(string(line), expectMark))
		text = after
	}
	return want, text
}

// expectedOf writes faults as a file expects them: without the folder.
func expectedOf(err error) []string {
	faults, _ := err.(setting.Faults)
	var lines []string
	for _, f := range faults {
		f.File = filepath.Base(f.File)
		f.Problem = strings.ReplaceAll(f.Problem, "testdata/", "")
		lines = append(lines, f.Error())
	}
	return lines
}

// rewriteExpected writes the faults of a file into its head, until the lines that
// this adds have found their place in the line numbers.
func rewriteExpected(t *testing.T, name string) {
	t.Helper()
	for range 5 {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		want, rest := splitExpected(text)
		_, err = Load(name)
		got := expectedOf(err)
		if slices.Equal(got, want) {
			return
		}
		var b bytes.Buffer
		for _, line := range got {
			fmt.Fprintln(&b, expectMark+line)
		}
		b.Write(rest)
		if err := os.WriteFile(name, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestMethodsAreAcceptedInEitherCase(t *testing.T) {
	const text = `
tls: {local: {}}
routes:
  - {host: a.example, path: /one, methods: METHODS, upstream: "http://a:1", callers: anonymous, websocket: true,
     rules: [{allow: "*"}, {deny: get}], cors: {origins: "*", methods: METHODS}}
`
	for _, methods := range []string{"[get, post]", "[GET, POST]", "[Get, post]"} {
		c, err := Parse("gateway.yaml", []byte(strings.ReplaceAll(text, "METHODS", methods)))
		if err != nil {
			t.Fatal(err)
		}
		r := &c.Routes[0]
		if want := []string{"GET", "POST"}; !slices.Equal(r.Methods, want) || !slices.Equal(r.CORS.Methods, want) || r.Name != "GET,POST a.example/one" {
			t.Errorf("%s: got %v, %v, %s", methods, r.Methods, r.CORS.Methods, r.Name)
		}
	}
	_, err := Parse("gateway.yaml", []byte(strings.ReplaceAll(text, "METHODS", "[get, GET]")))
	if err == nil || !strings.Contains(err.Error(), "is listed twice") {
		t.Errorf("one method in two cases: %v", err)
	}
}

func TestTableNamesAnInsecureIssuerOnce(t *testing.T) {
	c, err := Parse("gateway.yaml", []byte(`
tls: {local: {}}
issuers: {corp: {url: "http://login.example.com", audience: models, insecure_http: true}}
logins: {people: {issuer: corp, client_id: gateway}}
routes:
  - {host: a.example, upstream: 'http://a:1', callers: [login/people, issuer/corp], rules: [{allow: '*'}]}
`))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := c.Table()[0].Insecure, []string{"insecure_http of issuer corp"}; !slices.Equal(got, want) {
		t.Errorf("got %q; want %q", got, want)
	}
}

// Whoever signs in has the principal of the issuer, so a route that lists the login admits it.
func TestRouteAdmitsPeopleOfItsLogin(t *testing.T) {
	c, err := Parse("gateway.yaml", []byte(`
tls: {local: {}}
issuers: {corp: {url: https://login.example.com, audience: models}, other: {url: https://other.example.com, audience: models}}
logins: {people: {issuer: corp, client_id: gateway}}
routes:
  - {host: a.example, upstream: 'http://a:1', callers: [cert, login/people], rules: [{allow: '*'}]}
client_certificates: {ca: ca.pem}
`))
	if err != nil {
		t.Fatal(err)
	}
	for caller, want := range map[string]string{"issuer/corp:alice": "login/people", "issuer/other:alice": "", "cert:alice": "cert", "key:alice": ""} {
		if got := c.Admits(&c.Routes[0], caller, ""); got != want {
			t.Errorf("%s is admitted by %q; want %q", caller, got, want)
		}
	}
	// A token does not prove a person where the route lists the login alone.
	if session, token := c.Admits(&c.Routes[0], "issuer/corp:alice", "login"), c.Admits(&c.Routes[0], "issuer/corp:alice", "bearer"); session != "login/people" || token != "" {
		t.Errorf("the session is admitted by %q, the token by %q", session, token)
	}
}
