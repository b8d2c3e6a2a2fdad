package story

import (
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// Guarded is a gateway before a model server, and the tokens of two callers of the OpenID provider.
type Guarded struct {
	Gateway *Gateway
	Predict string // a token with the scope models.predict
	Read    string // a token with the scope models.read
}

// Guard starts the OpenID provider and the gateway, whose gateway.yaml names that provider. The pairs in
// replace are those of [StartGateway].
func Guard(t testing.TB, replace ...string) *Guarded {
	t.Helper()
	provider := StartProvider(t)
	return &Guarded{
		Gateway: StartGateway(t, append(slices.Clip(replace),
			"https://localhost:9000", provider.URL,
			"../openid-provider/provider.crt", provider.CA)...),
		Predict: provider.Token(t, "models.predict", ""),
		Read:    provider.Token(t, "models.read", ""),
	}
}

// Client runs client.py of the story with the token for predictions, and compares what it prints.
func (g *Guarded) Client(t testing.TB, python, want string) {
	t.Helper()
	_, port, _ := net.SplitHostPort(g.Gateway.Address)
	cmd := exec.Command(python, "client.py", "localhost:"+port, g.Gateway.CA)
	cmd.Env = append(os.Environ(), "TOKEN="+g.Predict)
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil || string(out) != want {
		t.Errorf("client.py: %v\n%s\nwant\n%s\n%s", err, out, want, errs.String())
	}
}

// Rows is one call in both forms, with each of the two tokens. The call is allowed with the scopes that
// allowed lists: "predict", "read".
func (g *Guarded) Rows(name string, rest, call Question, allowed ...string) []Row {
	rest.Name, call.Name = name, name
	var rows []Row
	for _, token := range []struct{ scope, text string }{{"predict", g.Predict}, {"read", g.Read}} {
		rows = append(rows, Row{
			Name: name + " with scope " + token.scope, Token: token.text, Denied: !slices.Contains(allowed, token.scope),
			REST: rest, GRPC: call,
		})
	}
	return rows
}

// ContentJSON is the field of a request whose body is JSON.
const ContentJSON = "Content-Type: application/json"

// Post is a question over REST with a JSON body.
func Post(name, note, path, body string, fields ...string) Question {
	return Question{Name: "rest-" + name, Note: note, Request: Plain("POST "+path, body, append([]string{ContentJSON}, fields...)...)}
}

// Get is a question over REST without a body.
func Get(name, note, path string) Question {
	return Question{Name: "rest-" + name, Note: note, Request: Plain("GET "+path, "")}
}

// Varying is the question, the body of whose answer is not kept.
func Varying(q Question) Question {
	q.Varies = true
	return q
}

// Exchanges asks a server itself, without the gateway, and keeps or compares the answers; see [Keep].
// Served tells the models that the server worked on for an answer.
func Exchanges(t *testing.T, record bool, folder, server, address string, questions []Question, served func(Question, Reply) []string) {
	for _, q := range questions {
		t.Run(q.Name, func(t *testing.T) {
			r := q.Ask(t, address)
			Keep(t, record, folder, server, q, r, served(q, r))
		})
	}
}
