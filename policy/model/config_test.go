package model

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestConfigFaults(t *testing.T) {
	for _, c := range []struct {
		config Config
		want   string
	}{
		{Config{}, ""},
		{Config{Serves: "flask", Model: "churn"}, ""},
		{Config{Serves: "mlflow", Model: "wine"}, ""},
		{Config{Serves: "sagemaker", Model: "wine"}, ""},
		{Config{Serves: "flask", Calls: []CallConfig{{"post", "/predict/{model}", "predict"}, {"GET", "/", "health"}}}, ""},
		{Config{Serves: "torch"}, "serves"},
		{Config{Serves: "openai", Model: "gpt"}, "model"},
		{Config{Model: "gpt"}, "model"},
		{Config{Serves: "flask", Model: "a/b"}, "model"},
		{Config{Serves: "mlflow", Calls: []CallConfig{{"post", "/p", "predict"}}}, "calls"},
		{Config{Serves: "flask", Calls: []CallConfig{{"pst", "p", "post"}}}, "calls[0].method calls[0].verb calls[0].path"},
		{Config{Serves: "flask", Calls: []CallConfig{{"head", "/p", "predict"}, {"post", "/a//b", "predict"}, {"post", "/{model}/{model}", "predict"}, {"post", "/x{model}", "predict"}}},
			"calls[0].method calls[1].path calls[2].path calls[3].path"},
	} {
		d, faults := New(&c.config)
		var keys []string
		for _, f := range faults {
			keys = append(keys, f.Key)
			if f.Problem == "" || f.Cure == "" {
				t.Errorf("%+v: fault without words: %+v", c.config, f)
			}
		}
		if got := strings.Join(keys, " "); got != c.want || (d == nil) != (c.want != "") {
			t.Errorf("%+v: faults at %q; want %q", c.config, got, c.want)
		}
	}
}

func TestConfiguredDialects(t *testing.T) {
	table := []CallConfig{
		{"post", "/predict/{model}", "predict"},
		{"post", "/predict/{model}/{version}", "predict"},
		{"delete", "/models/{model}", "unload"},
		{"get", "/health", "health"},
		{"get", "/models/", "list"},
	}
	for _, c := range []struct {
		config             Config
		method, path, want string
	}{
		{Config{Serves: "flask", Model: "churn"}, "POST", "/anything", "post churn"},
		{Config{Serves: "flask", Calls: table}, "POST", "/predict/a", "predict a"},
		{Config{Serves: "flask", Calls: table}, "POST", "/predict/a/3", "predict a 3"},
		{Config{Serves: "flask", Calls: table}, "POST", "/predict/%61", "predict a"},
		{Config{Serves: "flask", Calls: table}, "DELETE", "/models/a", "unload a"},
		{Config{Serves: "flask", Calls: table}, "GET", "/health", "health server"},
		{Config{Serves: "flask", Calls: table}, "HEAD", "/health", "health server"},
		{Config{Serves: "flask", Calls: table}, "GET", "/models/", "list server"},
		{Config{Serves: "flask", Calls: table}, "GET", "/models", "404"},
		{Config{Serves: "flask", Calls: table}, "POST", "/predict/", "400"},
		{Config{Serves: "flask", Calls: table}, "POST", "/predict/a%2Fb", "400"},
		{Config{Serves: "flask", Calls: table}, "POST", "/predict/a:b", "400"},
		{Config{Serves: "flask", Calls: table}, "POST", "/predict/a/007", "400"},
		{Config{Serves: "flask", Calls: table}, "POST", "/predict/a/3/4", "404"},
		{Config{Serves: "flask", Calls: table}, "POST", "/Predict/a", "404"},
		{Config{Serves: "flask", Calls: table}, "GET", "/predict/a", "405 POST"},
		{Config{Serves: "flask", Calls: table}, "POST", "/health", "405 GET, HEAD"},
		{Config{Serves: "flask", Model: "churn", Calls: table[3:4]}, "GET", "/health", "health server"},
		{Config{Serves: "flask", Model: "churn", Calls: []CallConfig{{"post", "/predict", "predict"}}}, "POST", "/predict", "predict churn"},
		{Config{Serves: "mlflow", Model: "wine"}, "POST", "/invocations", "predict wine"},
		{Config{Serves: "mlflow"}, "POST", "/invocations", "predict"},
		{Config{Serves: "mlflow", Model: "wine"}, "GET", "/ping", "health server"},
		{Config{Serves: "mlflow", Model: "wine"}, "GET", "/version", "version server"},
		{Config{Serves: "mlflow", Model: "wine"}, "GET", "/invocations", "405 POST"},
		{Config{Serves: "mlflow", Model: "wine"}, "POST", "/Invocations", "404"},
		{Config{Serves: "sagemaker", Model: "wine"}, "POST", "/invocations", "predict wine"},
		{Config{Serves: "sagemaker", Model: "wine"}, "GET", "/ping", "health server"},
		{Config{Serves: "sagemaker", Model: "wine"}, "POST", "/models", "404"},
	} {
		d, faults := New(&c.config)
		if len(faults) > 0 {
			t.Fatal(faults)
		}
		got, err := d.Read(&Request{Method: c.method, Path: c.path, Query: "x=1", HasQuery: true})
		call := got.Call
		text := strings.TrimSpace(fmt.Sprintf("%s %s %s", call.Verb, call.Model, call.Version))
		if call.Server {
			text += " server"
		}
		if e := new(Unread); errors.As(err, &e) {
			text = strings.TrimSpace(map[Reason]string{UnknownCall: "404", WrongMethod: "405", BadName: "400"}[e.Reason] + " " + e.Allow)
		} else if got.Target() != c.path+"?x=1" {
			t.Errorf("%s is sent as %s", c.path, got.Target())
		}
		if text != c.want {
			t.Errorf("%+v: %s %s: %q; want %q", c.config, c.method, c.path, text, c.want)
		}
	}
}
