package proxy_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"sallyport/auth/identity"
	"sallyport/proxy"
	"sallyport/proxy/message"
)

// matrixCaller is a caller of the matrix of models.
type matrixCaller struct {
	name           string
	scopes, groups []string
	claims         map[string][]string
}

// matrixAsk is what a request of the matrix asks for. version is digits, "label:x" or "latest".
type matrixAsk struct{ verb, model, version string }

// rest returns the request over REST; "" if there is none.
func (a *matrixAsk) rest() (method, path string) {
	path = "/v1/models/" + a.model
	if label, ok := strings.CutPrefix(a.version, "label:"); ok {
		path += "/labels/" + label
	} else if a.version != "latest" {
		path += "/versions/" + a.version
	}
	switch a.verb {
	case "status":
		return "GET", path
	case "metadata":
		return "GET", path + "/metadata"
	case "predict", "classify", "regress":
		return "POST", path + ":" + a.verb
	}
	return "", ""
}

// grpc returns the same over gRPC: the method, and the message with its ModelSpec.
func (a *matrixAsk) grpc() (method string, body []byte) {
	spec := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), a.model)
	if label, ok := strings.CutPrefix(a.version, "label:"); ok {
		spec = protowire.AppendString(protowire.AppendTag(spec, 4, protowire.BytesType), label)
	} else if n, err := strconv.ParseUint(a.version, 10, 63); err == nil {
		number := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), n)
		spec = protowire.AppendBytes(protowire.AppendTag(spec, 2, protowire.BytesType), number)
	}
	body = protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), spec)
	const prediction = "/tensorflow.serving.PredictionService/"
	switch a.verb {
	case "predict":
		return prediction + "Predict", body
	case "classify":
		return prediction + "Classify", body
	case "regress":
		return prediction + "Regress", body
	case "metadata":
		return prediction + "GetModelMetadata", body
	case "status":
		return "/tensorflow.serving.ModelService/GetModelStatus", body
	}
	return "/tensorflow.serving.ModelService/HandleReloadConfigRequest", nil
}

// mustAllow reports whether the policy readers of the reference must allow a request, whatever
// testdata/models.txt says.
func mustAllow(c *matrixCaller, a *matrixAsk) bool {
	switch {
	case a.verb == "reload",
		strings.HasPrefix(a.model, "secret-") && (a.verb == "predict" || a.verb == "classify"):
		return false
	case a.model == "half_plus_two" && slices.Contains([]string{"predict", "metadata", "status"}, a.verb) &&
		(a.version == "3" || a.version == "latest" || strings.HasPrefix(a.version, "label:stable-")):
		return true
	}
	return slices.Contains(c.scopes, "models.predict") && slices.Contains(c.groups, "ml-team") &&
		slices.Contains(c.claims["department"], "research") && slices.Contains(c.claims["regions"], "eu") &&
		(c.name == "issuer/corp:alice" || c.name == "issuer/corp:batch")
}

// TestModelMatrixOfTheReference decides on requests for models of the reference gateway.yaml, over REST
// and over gRPC. Both must have the same decision by the same rule.
func TestModelMatrixOfTheReference(t *testing.T) {
	config, err := proxy.LoadConfig(filepath.Join("..", "gateway.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	x, err := proxy.NewExplainer(config)
	if err != nil {
		t.Fatal(err)
	}
	research := map[string][]string{"department": {"research"}, "regions": {"us", "eu"}}
	callers := []matrixCaller{
		{"issuer/corp:alice", []string{"models.predict"}, []string{"ml-team"}, research},
		{"issuer/corp:alice", []string{"models.predict"}, []string{"ml-team"}, map[string][]string{"department": {"research"}}},
		{"issuer/corp:alice", []string{"models.predict"}, nil, research},
		{"issuer/corp:alice", nil, []string{"ml-team"}, research},
		{"issuer/corp:eve", []string{"models.predict"}, []string{"ml-team"}, research},
		{"key:acme", nil, nil, nil},
		{"apikey:lab", nil, []string{"ml-team"}, nil},
	}
	asks := []matrixAsk{{verb: "reload"}}
	for _, verb := range []string{"predict", "classify", "regress", "metadata", "status"} {
		for _, name := range []string{"half_plus_two", "secret-1", "other"} {
			for _, version := range []string{"3", "4", "0", "latest", "label:stable-1", "label:canary"} {
				asks = append(asks, matrixAsk{verb, name, version})
			}
		}
	}
	var got strings.Builder
	for i := range callers {
		c := &callers[i]
		caller, err := x.Caller(c.name, c.scopes, c.groups, c.claims)
		if err != nil {
			t.Fatal(err)
		}
		who := fmt.Sprintf("%s %v %v regions %v", c.name, c.scopes, c.groups, c.claims["regions"])
		for j := range asks {
			a := &asks[j]
			method, body := a.grpc()
			over := []*proxy.Question{{URL: "https://models.example.com", GRPC: method, Body: append([]byte{}, body...)}}
			if method, path := a.rest(); method != "" {
				q := &proxy.Question{Method: method, URL: "https://models.example.com" + path, Fields: message.Fields{{Name: "content-type", Value: "application/json"}}}
				if method == "POST" {
					q.Body = []byte(`{"instances":[1]}`)
				}
				over = append(over, q)
			}
			said := decidedAlike(t, x, caller, over)
			if want := mustAllow(c, a); want != strings.HasPrefix(said, "allowed") {
				t.Errorf("%s %v: %s; must be allowed: %t", who, *a, said, want)
			}
			fmt.Fprintf(&got, "%-86s | %-8s | %-13s | %-14s | %s\n", who, a.verb, a.model, a.version, said)
		}
	}
	golden := filepath.Join("testdata", "models.txt")
	if *updateMatrix {
		if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("%s differs; go test ./proxy -run ModelMatrix -update writes it anew:\n%s", golden, firstDifference(got.String(), string(want)))
	}
}

// decidedAlike returns the one decision on questions that ask for the same.
func decidedAlike(t *testing.T, x *proxy.Explainer, caller identity.Principal, questions []*proxy.Question) string {
	t.Helper()
	said := ""
	for _, q := range questions {
		q.Caller = caller
		d, err := x.Explain(q)
		if err != nil {
			t.Fatalf("%s%s %s: %v", q.Method, q.GRPC, q.URL, err)
		}
		one := "allowed by " + d.Rule
		if !d.Allowed {
			one = strings.TrimSpace(fmt.Sprintf("%d %s %s", d.Status, d.Reason, d.Rule))
		}
		if said != "" && said != one {
			t.Errorf("%s%s %s: %s, and over gRPC %s", q.Method, q.GRPC, q.URL, one, said)
		}
		said = one
	}
	return said
}

// firstDifference returns the first line in which two texts differ.
func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range g {
		if i >= len(w) || g[i] != w[i] {
			return fmt.Sprintf("line %d: got  %s\nwant %s", i+1, g[i], strings.Join(w[min(i, len(w)):min(i+1, len(w))], ""))
		}
	}
	return "the end is missing"
}
