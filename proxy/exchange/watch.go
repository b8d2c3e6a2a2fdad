package exchange

import (
	"sallyport/policy/model"
	"sallyport/proxy/message"
	"sallyport/proxy/seal"
)

// watcher shows the messages of a gRPC call to the candidate rules, where nothing else reads them. It
// refuses and holds nothing, so a call that cannot be read goes on, and nothing is recorded of it.
type watcher struct {
	scanner model.Scanner
	ended   bool // by an error
}

// Write takes the next piece of the content. It never fails.
func (w *watcher) Write(p []byte) (int, error) {
	if !w.ended {
		_, err := w.scanner.Write(p)
		w.ended = err != nil
	}
	return len(p), nil
}

// Check never fails.
func (w *watcher) Check() error { return nil }

// watch begins to read a gRPC call for the candidate rules.
func (x *exchange) watch() {
	if !x.route.Candidate.AboutModels() || !x.reading.GRPC() || !x.reading.NeedsBody() || x.asker != "" || x.head.ContentLength == 0 ||
		x.head.Fields.Count("grpc-encoding") > 1 || !message.IsProtobufCall(x.head.Fields.Get("content-type")) {
		return
	}
	x.scanned.watcher = &watcher{scanner: x.reading.Scanner(model.ScanOptions{
		Decide:   x.noteWatched,
		Encoding: x.encoding(),
		Inflate:  x.route.Limits.Inflated,
		Memory:   &x.scanning,
	})}
	x.content.Body = seal.NewVerified(x.content.Body, x.scanned.watcher)
}

// noteWatched notes what a message names, for the record alone: no decision may depend on it.
func (x *exchange) noteWatched(n model.Named) error {
	s := &x.scanned
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watched = named{by: x.reading.Call.Dialect, what: n}
	return nil
}
