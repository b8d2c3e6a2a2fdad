package model

import (
	"strings"

	"sallyport/proxy/message"
)

// tensorFlow is the dialect of TensorFlow Serving's REST API. The server hands a request
// to its handler once the whole body has arrived.
func tensorFlow() *Dialect {
	return &Dialect{name: "tensorflow", read: readTensorFlow, checkVerb: checkMethod, refusal: errorText, namesModels: true, actsOnWhole: true}
}

func readTensorFlow(h *message.Head) Call {
	c := readMethod(h)
	c.Model, c.Version = tensorFlowModel(h.Path)
	c.Model = message.Unescape(c.Model) // the server decodes a name after it has matched the path
	return c
}

// tensorFlowModel reads the model and version from a path of the REST API:
// /v1/models/NAME[/versions/N|/labels/L][:VERB|/metadata]. Letter case counts in names
// only, as in the patterns of tensorflow_serving/model_servers/http_rest_api_handler.cc.
// Both are "" for any other path. The version is "" for a label, and where the server
// chooses the version.
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
