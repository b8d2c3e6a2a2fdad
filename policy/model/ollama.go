package model

import (
	"slices"
	"strings"

	"sallyport/proxy/message"
)

// ollama is the dialect of Ollama, with its own API and OpenAI's. A request names the
// model in the member "model" of its JSON body, or in "name", the older spelling.
func ollama() *Dialect {
	return &Dialect{
		name: "ollama", read: readOllama, slashedIDs: true, checkVerb: checkMethod, refusal: errorText, namesModels: true, localhost: true,
		scanner: scanOllama, canonical: canonicalOllama, head: thinkingHead, idle: thinkingIdle,
	}
}

func readOllama(h *message.Head) Call {
	c := readOpenAI(h)
	if c.Model != "" {
		c.Model, _ = canonicalOllama(c.Model)
	}
	return c
}

// scanOllama scans the bodies of requests that use or describe one model. Requests that
// create, copy, load or delete models ask for more than the one name in them, so rules
// about models do not allow them. Ollama reads the bodies of its own API as JSON whatever their
// Content-Type: its documents call it by curl, which sends that of a form.
func scanOllama(h *message.Head) Scanner {
	if strings.Contains(h.Path, "/v1/") {
		return jsonScanner(h, canonicalOllama, "model", "name")
	}
	if !slices.ContainsFunc(ollamaUses(), func(end string) bool { return strings.HasSuffix(h.Path, end) }) {
		return nil
	}
	return &objectScanner{keys: []string{"model", "name"}, canon: canonicalOllama}
}

// ollamaUses are the endpoints of Ollama's server/routes.go that use or describe a model.
func ollamaUses() []string {
	return []string{"/api/generate", "/api/chat", "/api/embed", "/api/embeddings", "/api/show"}
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
