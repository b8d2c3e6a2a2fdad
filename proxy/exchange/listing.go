package exchange

import (
	"bytes"
	"errors"
	"io"
	"strings"

	"sallyport/proxy/message"
	"sallyport/proxy/seal"
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
	case "if-none-match", "if-modified-since", "if-match", "if-unmodified-since":
		return true // the list that the caller has may be shorter or longer now, though the whole one is the same
	}
	return false
}

// filterListing leaves out of a list of models those that the caller may not use.
func (x *exchange) filterListing(answer *upstream.Response) error {
	h := &answer.Head
	if !x.reading.Lists() || x.route.Fixed != nil || h.Status < 200 || h.Status > 299 {
		return nil
	}
	for _, name := range []string{"etag", "content-digest", "repr-digest", "digest", "content-md5", "last-modified"} {
		h.Fields.Del(name) // they are of the whole list
	}
	if !message.MayHaveBody(x.head.Method, h.Status) {
		h.ContentLength = -1 // so would be its length
		return nil
	}
	if h.Fields.Has("content-encoding") || h.Fields.Has("grpc-encoding") && !strings.EqualFold(h.Fields.Get("grpc-encoding"), "identity") {
		return &refusal{reason: reasonGarbage, cause: errEncodedListing}
	}
	var held seal.Buffer // it takes memory only for what has come: the server may be slow
	defer held.Release()
	switch err := held.Fill(x.server.Held, answer.Body, maxListing); {
	case errors.Is(err, seal.ErrTooLong):
		return &refusal{reason: reasonGarbage, cause: errLongListing}
	case errors.Is(err, seal.ErrMemory):
		return because(reasonOverloaded, "integrity.memory has no room left for a list of models")
	case err != nil:
		return err
	}
	content := make([]byte, held.Size())
	if _, err := io.ReadFull(&held, content); err != nil {
		return err
	}
	content, err := x.reading.FilterList(content, func(name string) bool {
		return x.route.Policy.MayUse(&x.caller, x.route.Dialect, name, x.about)
	})
	if err != nil {
		return &refusal{reason: reasonGarbage, cause: err}
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
