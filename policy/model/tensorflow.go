package model

import "strings"

// tensorFlowModel reads which model and version a path of TensorFlow Serving's REST
// API is about: /v1/models/NAME[/versions/N|/labels/L][:VERB|/metadata]
// (tensorflow_serving/model_servers/http_rest_api_handler.cc, whose patterns ignore
// letter case but for names). Both are "" for other paths; the version is for labels
// and where the server chooses.
func tensorFlowModel(path string) (name, version string) {
	const prefix = "/v1/models/"
	if len(path) <= len(prefix) || !strings.EqualFold(path[:len(prefix)], prefix) {
		return "", ""
	}
	rest, verb, called := strings.Cut(path[len(prefix):], ":")
	if strings.ContainsAny(verb, "/:") {
		return "", ""
	}
	if !called {
		if cut := len(rest) - len("/metadata"); cut > 0 && strings.EqualFold(rest[cut:], "/metadata") {
			rest = rest[:cut]
		}
	}
	name, rest, deeper := strings.Cut(rest, "/")
	if !deeper {
		return name, ""
	}
	kind, which, ok := strings.Cut(rest, "/")
	switch {
	case !ok || which == "" || strings.Contains(which, "/"):
		return "", ""
	case strings.EqualFold(kind, "versions"):
		if strings.Trim(which, "0123456789") != "" {
			return "", ""
		}
		return name, which
	case strings.EqualFold(kind, "labels"):
		return name, ""
	}
	return "", ""
}
