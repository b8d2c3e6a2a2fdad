package exchange

import (
	"bytes"
	"errors"
	"io"
	"strings"

	"sallyport/policy/model"
	"sallyport/proxy/message"
	"sallyport/proxy/upstream"
)

// maxListing limits the bytes of a list of models, which is held to leave out what the caller may not
// use.
const maxListing = 4 << 20

var (
	errLongListing    = errors.New("the list of models has more than 4MiB")
	errEncodedListing = errors.New("the list of models has a content coding, although none was asked for")
)

// keepFromListing reports whether a field of a request for a list of models stays with the gateway:
// the answer must come whole and as it is.
func keepFromListing(name string) bool {
	switch name {
	case "accept-encoding", "grpc-accept-encoding", "range", "if-range":
		return true
	}
	return false
}

// filterListing leaves out of a list of models those that the caller may not use.
func (x *exchange) filterListing(answer *upstream.Response) error {
	h := &answer.Head
	if !x.reading.Lists() || x.route.Fixed != nil || h.Status < 200 || h.Status > 299 || !message.MayHaveBody(x.head.Method, h.Status) {
		return nil
	}
	if h.Fields.Has("content-encoding") || h.Fields.Has("grpc-encoding") && !strings.EqualFold(h.Fields.Get("grpc-encoding"), "identity") {
		return &refusal{reason: reasonGarbage, cause: errEncodedListing}
	}
	if !x.server.Held.Take(maxListing) {
		return because(reasonOverloaded, "a list of models needs 4MiB, which integrity.memory has not left")
	}
	defer x.server.Held.Give(maxListing)
	content, err := io.ReadAll(io.LimitReader(answer.Body, maxListing+1))
	switch {
	case err != nil:
		return err
	case len(content) > maxListing:
		return &refusal{reason: reasonGarbage, cause: errLongListing}
	}
	content, err = x.reading.FilterList(content, func(name string) bool {
		return x.route.Policy.MayUse(&x.caller, x.route.Dialect, name, x.about)
	})
	if errors.Is(err, model.ErrListing) {
		return &refusal{reason: reasonGarbage, cause: err}
	}
	for _, name := range []string{"etag", "content-digest", "repr-digest", "digest", "content-md5", "last-modified"} {
		h.Fields.Del(name) // they are of the whole list
	}
	if h.ContentLength >= 0 {
		h.ContentLength = int64(len(content))
	}
	answer.Body = &listing{bytes.NewReader(content), answer.Body}
	return nil
}

// listing is the filtered content of an answer, with the trailers of the answer.
type listing struct {
	*bytes.Reader
	of message.Body
}

// Trailers returns those of the server's answer, which was read to its end.
func (l *listing) Trailers() message.Fields { return l.of.Trailers() }
