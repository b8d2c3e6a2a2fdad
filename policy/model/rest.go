package model

import (
	"errors"
	"net/url"
	"strings"

	"sallyport/proxy/message"
)

// endpoint is one method and path of a REST API that is about no model, or whose body names it.
type endpoint struct {
	method, path string // GET stands for HEAD too
	verb         string
	server       bool
	scanner      func(r *Reading, o *ScanOptions) Scanner // nil: the body names no model
}

// is reports whether a request has the method; HEAD is read as GET.
func is(r *Request, method string) bool {
	return r.Method == method || method == "GET" && r.Method == "HEAD"
}

// find returns the reading of a request by a table of endpoints. found is false if no endpoint has
// the path.
func find(table []endpoint, r *Request) (got Reading, found bool, err error) {
	e, err := lookUp(table, r, r.Path)
	if e == nil {
		return Reading{}, err != nil, err
	}
	return Reading{Call: Call{Verb: e.verb, Server: e.server}, Path: r.Path, Query: r.Query, HasQuery: r.HasQuery, scanner: e.scanner}, true, nil
}

// lookUp returns the endpoint of a table that has a path and the method of the request. It returns nil
// and no error if none has the path.
func lookUp(table []endpoint, r *Request, path string) (*endpoint, error) {
	allow := ""
	for i := range table {
		e := &table[i]
		if e.path != path {
			continue
		}
		if is(r, e.method) {
			return e, nil
		}
		allow = withMethod(allow, e.method)
	}
	if allow == "" {
		return nil, nil
	}
	return nil, wrongMethod(r, allow)
}

// withMethod adds a method to a list for Allow.
func withMethod(allow, method string) string {
	if method == "GET" {
		method = "GET, HEAD"
	}
	if allow == "" {
		return method
	}
	return allow + ", " + method
}

func wrongMethod(r *Request, allow string) error {
	return &Unread{Reason: WrongMethod, Cause: "the path has the methods " + allow, Allow: allow}
}

// readName decodes the name of a model or version in a path.
func readName(escaped string) (string, error) {
	name := message.Unescape(escaped)
	if err := checkName(name); err != nil {
		return "", &Unread{Reason: BadName, Cause: "the path names a model or version that servers could read in different ways: " + err.Error()}
	}
	return name, nil
}

// cutFold is [strings.CutPrefix] for a prefix in lower-case ASCII, without regard to letter case.
func cutFold(s, prefix string) (rest string, found bool) {
	if len(s) < len(prefix) || !strings.EqualFold(s[:len(prefix)], prefix) {
		return s, false
	}
	return s[len(prefix):], true
}

var (
	errQueryTwice = errors.New("the query has the parameter more than once, or in another spelling")
	errQueryCode  = errors.New("the query has an escape that is none")
)

// queryParameter returns the value of a parameter of the query that servers could read in one way
// only. name is in lower case.
func queryParameter(r *Request, name string) (value string, found bool, err error) {
	if !r.HasQuery {
		return "", false, nil
	}
	for part := range strings.FieldsFuncSeq(r.Query, func(c rune) bool { return c == '&' || c == ';' }) {
		key, v, _ := strings.Cut(part, "=")
		plain, err := url.QueryUnescape(key)
		if err != nil {
			return "", false, errQueryCode
		}
		if i := strings.IndexByte(plain, '['); i >= 0 { // PHP and others take "model[]" for it
			plain = plain[:i]
		}
		if !strings.EqualFold(strings.Trim(plain, " \x00"), name) {
			continue
		}
		if found || key != name || strings.Contains(r.Query, ";") {
			return "", false, errQueryTwice
		}
		found = true
		if value, err = url.QueryUnescape(v); err != nil {
			return "", false, errQueryCode
		}
	}
	return value, found, nil
}
