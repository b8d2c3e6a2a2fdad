package model

import "strings"

// ollama is the dialect of Ollama, with its own API and OpenAI's. A request names the
// model in the member "model" of its JSON body, or in "name", the older spelling.
func ollama() *Dialect {
	return &Dialect{
		name: "ollama", rest: readOllama, slashedIDs: true, lists: true, refusal: errorText, namesModels: true, modelInBody: true, served: servedAsModel, localhost: true,
		verbs:     ollamaVerbs[:],
		canonical: canonicalOllama, head: thinkingHead, idle: thinkingIdle, drops: steering[:], plan: planOpenAI,
	}
}

var ollamaVerbs = [...]string{"generate", "chat", "complete", "embed", "transcribe", "image", "metadata", "list", "status", "health", "version",
	"pull", "push", "create", "copy", "delete", "files", "control"}

// scanOllama scans a body of Ollama's own API. Ollama reads it as JSON whatever its Content-Type: its
// documents call it by curl, which sends that of a form.
func scanOllama(_ *Reading, o *ScanOptions) Scanner {
	return newObjectScanner(o, canonicalOllama, "model", "name")
}

func scanOllamaV1(r *Reading, o *ScanOptions) Scanner {
	return jsonScanner(r, o, canonicalOllama, "model", "name")
}

func scanOllamaForm(r *Reading, o *ScanOptions) Scanner {
	return formScanner(r, o, canonicalOllama)
}

// ollamaEndpoints are those of Ollama's server/routes.go.
var ollamaEndpoints = [...]endpoint{
	{"POST", "/api/generate", "generate", false, scanOllama},
	{"POST", "/api/chat", "chat", false, scanOllama},
	{"POST", "/api/embed", "embed", false, scanOllama},
	{"POST", "/api/embeddings", "embed", false, scanOllama},
	{"POST", "/api/show", "metadata", false, scanOllama},
	{"GET", "/api/tags", "list", true, nil},
	{"GET", "/api/ps", "status", true, nil},
	{"GET", "/api/status", "status", true, nil},
	{"GET", "/api/version", "version", true, nil},
	{"GET", "/", "health", true, nil},
	{"POST", "/api/pull", "pull", false, scanOllama},
	{"POST", "/api/push", "push", false, scanOllama},
	{"POST", "/api/create", "create", true, nil},
	{"POST", "/api/copy", "copy", true, nil},
	{"DELETE", "/api/delete", "delete", false, scanOllama},
	{"POST", "/api/me", "control", true, nil},
	{"POST", "/api/signout", "control", true, nil},
	{"POST", "/api/experimental/web_search", "control", true, nil},
	{"POST", "/api/experimental/web_fetch", "control", true, nil},
	{"POST", "/api/web_search", "control", true, nil},
	{"POST", "/api/web_fetch", "control", true, nil},
	{"GET", "/api/experimental/aliases", "control", true, nil},
	{"POST", "/api/experimental/aliases", "control", true, nil},
	{"DELETE", "/api/experimental/aliases", "control", true, nil},
	{"POST", "/v1/chat/completions", "chat", false, scanOllamaV1},
	{"POST", "/v1/responses", "chat", false, scanOllamaV1},
	{"POST", "/v1/messages", "chat", false, scanOllamaV1},
	{"POST", "/v1/completions", "complete", false, scanOllamaV1},
	{"POST", "/v1/embeddings", "embed", false, scanOllamaV1},
	{"POST", "/v1/images/generations", "image", false, scanOllamaV1},
	{"POST", "/v1/audio/transcriptions", "transcribe", false, scanOllamaForm},
	{"GET", "/v1/models", "list", true, nil},
}

// readOllama reads a request. Ollama reads no query.
func readOllama(r *Request) (Reading, error) {
	if got, found, err := find(ollamaEndpoints[:], r); found {
		return withoutQuery(got), err
	}
	if digest, ok := strings.CutPrefix(r.Path, "/api/blobs/"); ok {
		if r.Method != "POST" && r.Method != "HEAD" {
			return Reading{}, wrongMethod(r, "POST, HEAD")
		}
		if hex, ok := strings.CutPrefix(digest, "sha256:"); !ok || len(hex) != 64 || strings.Trim(hex, "0123456789abcdef") != "" {
			return Reading{}, &Unread{Reason: BadName, Cause: "the path names no blob by its SHA-256"}
		}
		return Reading{Call: Call{Verb: "files", Server: true}, Path: r.Path}, nil
	}
	id, ok := strings.CutPrefix(r.Path, modelsPrefix)
	if !ok {
		return Reading{}, unknownPath("ollama", r)
	}
	got, err := readModelID(&Request{Method: r.Method, Path: r.Path}, id)
	switch {
	case err != nil:
		return got, err
	case got.Call.Verb == "delete":
		return Reading{}, wrongMethod(r, "GET, HEAD")
	}
	if got.Call.Model, err = canonicalOllama(got.Call.Model); err != nil {
		return Reading{}, &Unread{Reason: BadName, Cause: "the path names no model of Ollama: " + err.Error()}
	}
	return got, nil
}

// canonicalOllama makes a name canonical as Ollama's types/model/name.go compares names:
// letter case does not count, and registry.ollama.ai, library and latest are the defaults
// of host, namespace and tag, which are left out. Names with a scheme or a digest are
// refused.
func canonicalOllama(name string) (string, error) {
	if name == "" || len(name) > maxModelName {
		return "", errModelName
	}
	name = strings.ToLower(name)
	for i := range len(name) {
		if c := name[i]; !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || strings.IndexByte("-_./:*", c) >= 0) {
			return "", errModelName
		}
	}
	parts := strings.Split(name, "/")
	last, tag, tagged := strings.Cut(parts[len(parts)-1], ":")
	if len(parts) > 3 || last == "" || tagged && tag == "" || strings.Contains(tag, ":") {
		return "", errModelName
	}
	for _, p := range parts[:len(parts)-1] {
		if p == "" {
			return "", errModelName
		}
	}
	if len(parts) == 3 && parts[0] == "registry.ollama.ai" {
		parts = parts[1:]
	}
	if len(parts) == 2 && parts[0] == "library" {
		parts = parts[1:]
	}
	if parts[len(parts)-1] = last; tagged && tag != "latest" {
		parts[len(parts)-1] = last + ":" + tag
	}
	return strings.Join(parts, "/"), nil
}
