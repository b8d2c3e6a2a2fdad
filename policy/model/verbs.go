package model

import (
	"slices"
	"strings"
)

// Class is a group of verbs. A rule may name a class in place of its verbs.
type Class string

// These are the classes. Verbs of the dialects raw and flask that are HTTP methods have none.
const (
	// Inference verbs run a model.
	Inference Class = "inference"
	// Metadata verbs read what models there are and how the server does.
	Metadata Class = "metadata"
	// Management verbs change the server or what it serves, or read what other callers asked. Only a
	// rule that names the verb or the class allows one: "*" does not.
	Management Class = "management"
)

// Classes lists the classes.
func Classes() []string { return []string{string(Inference), string(Metadata), string(Management)} }

// classOf returns the class of a verb; "" for an HTTP method. One verb has the same name and class
// in all dialects, over REST and gRPC.
func classOf(verb string) Class {
	switch verb {
	case "predict", "classify", "regress", "multi_inference", "explain", "generate", "chat", "complete", "embed",
		"rerank", "score", "tokenize", "transcribe", "speak", "image", "moderate":
		return Inference
	case "metadata", "status", "list", "config", "stats", "health", "metrics", "version", "docs":
		return Metadata
	case "load", "unload", "reload", "shared_memory", "profile", "trace", "logging", "pull", "push", "create", "copy",
		"delete", "lora", "slots", "pause", "session", "scale", "set_default", "files", "control", "reflection":
		return Management
	}
	return ""
}

// Verbs lists the verbs of all dialects but those that are HTTP methods.
func Verbs() []string {
	var all []string
	for _, d := range dialects {
		all = append(all, d.verbs...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Verbs lists the verbs of the servers' requests, in the order of their classes. It is empty if their
// verbs are the HTTP methods.
func (d *Dialect) Verbs() []string { return slices.Clone(d.verbs) }

// CheckVerb checks a verb or class of a rule, other than "*". If no request to these servers can
// have it, it returns the problem and what to write instead; otherwise both are "".
func (d *Dialect) CheckVerb(verb string) (problem, cure string) {
	switch {
	case d.verbs == nil:
		return checkMethod(verb)
	case slices.Contains(d.verbs, verb), slices.ContainsFunc(d.verbs, func(v string) bool { return string(classOf(v)) == verb }):
		return "", ""
	}
	if problem, _ := checkMethod(verb); problem == "" {
		return "requests to " + d.name + " servers are told apart by what they ask, not by HTTP method", "write a class such as inference or metadata, or verbs: " + strings.Join(d.verbs, ", ")
	}
	return "no request to " + d.name + " servers has this verb", "write a class (inference, metadata, management) or verbs: " + strings.Join(d.verbs, ", ")
}
