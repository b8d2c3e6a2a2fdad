package model

import (
	"strings"

	"sallyport/proxy/message"
)

// Raw reads a request to a server about which nothing is known: its verb is the
// HTTP method in lower case.
func Raw(h *message.Head) Call { return Call{Dialect: "raw", Verb: rawVerb(h.Method)} }

func rawVerb(method string) string {
	switch method { // without allocation for the methods that occur
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

// ValidRawVerb says whether v can be the verb of a raw call: an HTTP method in
// lower case.
func ValidRawVerb(v string) bool {
	return message.ValidName(v) && v == strings.ToLower(v)
}
