package model

import (
	"strings"

	"sallyport/proxy/message"
)

// raw is the dialect of unknown servers. Such a server may act on the head of a request
// alone, so actsOnWhole is false.
func raw() *Dialect {
	return &Dialect{name: "raw", rest: readMethod, refusal: problem}
}

// readMethod reads the verb alone, which is the HTTP method in lower case.
func readMethod(r *Request) (Reading, error) {
	return Reading{Call: Call{Verb: methodVerb(r.Method)}, Path: r.Path, Query: r.Query, HasQuery: r.HasQuery}, nil
}

func methodVerb(method string) string {
	switch method { // without allocation for the common methods
	case "GET":
		return "get"
	case "POST":
		return "post"
	case "HEAD":
		return "head"
	case "PUT":
		return "put"
	case "DELETE":
		return "delete"
	case "PATCH":
		return "patch"
	case "OPTIONS":
		return "options"
	}
	return strings.ToLower(method)
}

// checkMethod checks a verb that is an HTTP method in lower case. It accepts only
// registered methods, since a misspelt one in a deny rule would deny nothing.
func checkMethod(verb string) (problem, cure string) {
	switch verb {
	case "get", "head", "post", "put", "patch", "delete", "options", "trace",
		"propfind", "proppatch", "mkcol", "copy", "move", "lock", "unlock", "report", "search", "query":
		return "", ""
	}
	if !message.ValidName(verb) || verb != strings.ToLower(verb) {
		return "not a verb", `want "*" or an HTTP method in lower case such as post`
	}
	return "no request has this verb: verbs are the HTTP methods", `write "*", or methods in lower case such as get and post; for verbs such as predict or chat, name the server's kind by serves: tensorflow or openai`
}
