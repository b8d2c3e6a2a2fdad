package model_test

import (
	"bufio"
	"encoding/hex"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"sallyport/policy/model"
	"sallyport/proxy/message"
)

// recording is an exchange with a real server of a classic family; the README of
// testdata/exchanges/classic has its form.
type recording struct {
	name     string
	grpc     string // the path of a gRPC call; "" for REST
	encoding string // grpc-encoding
	request  []byte // the whole message of HTTP/1.1, or the frames of a gRPC call
	served   []string
}

// recordings reads the exchanges of a folder.
func recordings(t testing.TB, folder string) []recording {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", "exchanges", "classic", folder, "*.txt"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no recordings in %s: %v", folder, err)
	}
	var all []recording
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		r := recording{name: strings.TrimSuffix(filepath.Base(file), ".txt")}
		for line := range strings.Lines(string(b)) {
			key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
			switch key {
			case "send":
				text, err := strconv.Unquote(value)
				if err != nil {
					t.Fatalf("%s: %s: %v", file, value, err)
				}
				r.request = append(r.request, text...)
			case "grpc":
				r.grpc = value
			case "grpc-encoding":
				r.encoding = value
			case "frames":
				if r.request, err = hex.DecodeString(value); err != nil {
					t.Fatalf("%s: %v", file, err)
				}
			case "served":
				r.served = append(r.served, value)
			}
		}
		all = append(all, r)
	}
	return all
}

// read reads a recorded request as the gateway does. It returns the calls that it makes: one, or one for
// each message of a stream and each task of a MultiInference.
func (r recording) read(t testing.TB, d *model.Dialect) (model.Reading, []model.Call, error) {
	t.Helper()
	h := &message.Head{Version: message.HTTP2, Method: "POST", Scheme: "https", Authority: "localhost", Target: r.grpc}
	body := r.request
	if r.grpc == "" {
		method, rest, _ := strings.Cut(string(r.request), " ")
		h.Version, h.Method, h.Scheme = message.HTTP11, method, "http"
		h.Target, _, _ = strings.Cut(rest, " ")
		// net/http reads the fields; it refuses some of the targets, so it gets another.
		_, fields, _ := strings.Cut(rest, "\r\n")
		req, err := http.ReadRequest(bufio.NewReader(strings.NewReader(method + " / HTTP/1.1\r\n" + fields)))
		if err != nil {
			t.Fatalf("%s: %v", r.name, err)
		}
		for name, values := range req.Header {
			h.Fields = append(h.Fields, message.Field{Name: strings.ToLower(name), Value: values[0]})
		}
		if body, err = io.ReadAll(req.Body); err != nil {
			t.Fatalf("%s: %v", r.name, err)
		}
		h.ContentLength = int64(len(body))
	}
	if err := h.Settle(); err != nil {
		return model.Reading{}, nil, err
	}
	if h.Forms != 0 {
		return model.Reading{}, nil, message.ErrBadTarget
	}
	got, err := d.Read(&model.Request{Method: h.Method, Path: h.Path, Query: h.Query, HasQuery: h.HasQuery, GRPC: r.grpc != "", Fields: h.Fields})
	if err != nil || !got.NeedsBody() {
		return got, []model.Call{got.Call}, err
	}
	var calls []model.Call
	s := got.Scanner(model.ScanOptions{Encoding: r.encoding, Inflate: 1 << 20, Decide: func(n model.Named) error {
		calls = append(calls, got.Call.With(n))
		return nil
	}})
	defer s.Close()
	if _, err := s.Write(body); err != nil {
		return got, nil, err
	}
	return got, calls, s.Check()
}

// isOf reports whether a server that gets the call may work on a model, "NAME" or "NAME VERSION".
func isOf(c model.Call, served string) bool {
	name, version, _ := strings.Cut(served, " ")
	chosen := c.Version == model.Latest || strings.HasPrefix(c.Version, model.Label) || version == ""
	return c.Model == name && (chosen || c.Version == version)
}

// TestRecordedRequestsAreReadAsTheServerReadsThem replays what real servers were asked: each request that
// they answered by a model is refused, or read as a call of that model and version. In a stream MLServer
// works on the model of the first message for all of them.
func TestRecordedRequestsAreReadAsTheServerReadsThem(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		folder, dialect string
		rest, grpc      int  // how many calls that a model served must be read, for the test to be worth something
		queries         bool // the dialect forwards queries
	}{
		{"tensorflow", "tensorflow", 15, 12, false},
		{"triton", "triton", 15, 12, false},
		{"mlserver", "v2", 15, 8, false},
		{"torchserve", "torchserve", 15, 12, true},
	} {
		d, ok := model.ByName(c.dialect)
		if !ok {
			t.Fatalf("no dialect %s", c.dialect)
		}
		rest, grpc := 0, 0
		for _, r := range recordings(t, c.folder) {
			got, calls, err := r.read(t, d)
			if err != nil || len(r.served) == 0 || got.Call.Server {
				continue
			}
			if r.grpc == "" {
				rest++
			} else {
				grpc++
			}
			for _, served := range r.served {
				if !slices.ContainsFunc(calls, func(c model.Call) bool { return isOf(c, served) }) {
					t.Errorf("%s/%s is read as %+v; the server worked on %s", c.folder, r.name, calls, served)
				}
			}
			if got.HasQuery && !c.queries {
				t.Errorf("%s/%s: the query ?%s is forwarded", c.folder, r.name, got.Query)
			}
		}
		if rest < c.rest || grpc < c.grpc {
			t.Errorf("of the calls that %s served only %d over REST and %d over gRPC are read", c.folder, rest, grpc)
		}
	}
}
