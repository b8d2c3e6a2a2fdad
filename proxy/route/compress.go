package route

import (
	"compress/gzip"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"

	"sallyport/proxy/message"
	"sallyport/proxy/setting"
	"sallyport/proxy/wire"
)

// CompressConfig is the section `compress` of a route: true, or the answers to compress.
type CompressConfig struct {
	On bool // whether anything is compressed
	CompressFields
}

// CompressFields are the fields of the section `compress`.
type CompressFields struct {
	// Types are the media types of answers to compress; text/* is every text except event streams,
	// which must be named. Default: JSON, XML, SVG, JavaScript and text.
	Types setting.List[string] `yaml:"types"`
	// MinSize is the smallest length that is compressed. Default: 1KiB.
	MinSize setting.Size `yaml:"min_size"`
}

// Form implements [setting.Forms].
func (c *CompressConfig) Form(s setting.Shape) any {
	switch s {
	case setting.Scalar:
		return &c.On
	case setting.Mapping:
		c.On = true
		return &c.CompressFields
	}
	return nil
}

// Want implements [setting.Forms].
func (c *CompressConfig) Want() string { return "true or false, or {types, min_size}" }

// Compression decides which answers of a route are compressed. It is immutable.
//
// It is off by default. If an answer holds both a secret and attacker-chosen text, its compressed
// length reveals the secret (BREACH).
type Compression struct {
	types []string
	min   int64
}

// EventStream is the media type of event streams. They are compressed only if listed, because it
// saves little.
const EventStream = "text/event-stream"

// NewCompression returns nil if nothing is compressed.
func NewCompression(c *CompressConfig) *Compression {
	if !c.On {
		return nil
	}
	z := &Compression{types: slices.Clone(c.Types), min: c.MinSize.Or(1 << 10)}
	if len(z.types) == 0 {
		z.types = []string{"application/json", "application/problem+json", "application/xml", "application/javascript", "image/svg+xml", "text/*"}
	}
	return z
}

// covers reports whether an answer may be compressed for any client: it has a listed type, is
// complete, and neither encoded nor signed.
func (z *Compression) covers(h *message.Response) bool {
	if h.Status < 200 || h.Status == http.StatusPartialContent || h.Status >= 300 && h.Status < 400 || h.ContentLength >= 0 && h.ContentLength < z.min {
		return false
	}
	for _, f := range h.Fields {
		switch f.Name {
		case "content-encoding", "content-range", "content-digest", "repr-digest", "digest", "content-md5", "signature", "signature-input":
			return false
		}
	}
	return !h.Fields.HasToken("cache-control", "no-transform") && z.listed(h.Fields.Get("content-type"))
}

func (z *Compression) listed(contentType string) bool {
	media, _, _ := strings.Cut(contentType, ";")
	media = strings.ToLower(strings.TrimSpace(media))
	for _, t := range z.types {
		family, all := strings.CutSuffix(t, "/*")
		if media == t || all && media != EventStream && strings.HasPrefix(media, family+"/") {
			return true
		}
	}
	return false
}

// acceptsGzip reports whether a client accepts gzip (RFC 9110, section 12.5.3), by name or by a
// star, with a weight above zero.
func acceptsGzip(request message.Fields) bool {
	named, star := "", ""
	for _, f := range request {
		if f.Name != "accept-encoding" {
			continue
		}
		for item := range strings.SplitSeq(f.Value, ",") {
			coding, params, _ := strings.Cut(item, ";")
			weight := "1"
			if q, ok := strings.CutPrefix(strings.ToLower(strings.TrimSpace(params)), "q="); ok {
				weight = q
			}
			switch strings.ToLower(strings.TrimSpace(coding)) {
			case "gzip", "x-gzip":
				named = weight
			case "*":
				star = weight
			}
		}
	}
	if named == "" {
		named = star
	}
	q, err := strconv.ParseFloat(named, 64)
	return err == nil && q > 0
}

// maxCompressors limits concurrent compression: each compressor takes 1.2 MB. Further answers are
// sent uncompressed.
const maxCompressors = 64

// Compressors pools the gzip writers of a process. It is safe for concurrent use.
type Compressors struct {
	places chan struct{}
	idle   sync.Pool // of *gzip.Writer
}

// NewCompressors returns an empty pool.
func NewCompressors() *Compressors { return &Compressors{places: make(chan struct{}, maxCompressors)} }

// Compressor compresses one answer on its way to the client.
type Compressor struct {
	from   *Compressors
	stream wire.Stream
	gzip   *gzip.Writer
	Sent   int64 // bytes sent to the client
}

// take returns nil if all places are taken.
func (c *Compressors) take(s wire.Stream) *Compressor {
	select {
	case c.places <- struct{}{}:
	default:
		return nil
	}
	z := &Compressor{from: c, stream: s}
	out := writerFunc(func(p []byte) (int, error) {
		n, err := s.Write(p)
		z.Sent += int64(n)
		return n, err
	})
	if w, ok := c.idle.Get().(*gzip.Writer); ok {
		w.Reset(out)
		z.gzip = w
	} else {
		z.gzip, _ = gzip.NewWriterLevel(out, gzip.BestSpeed) // the level is valid
	}
	return z
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// Write compresses p.
func (z *Compressor) Write(p []byte) (int, error) { return z.gzip.Write(p) }

// Flush sends all compressed data, so that no event waits for the next.
func (z *Compressor) Flush() error {
	if err := z.gzip.Flush(); err != nil {
		return err
	}
	return z.stream.Flush()
}

// Close completes the content.
func (z *Compressor) Close() error { return z.gzip.Close() }

// Release frees the place. It does not complete the content; Close does.
func (z *Compressor) Release() {
	z.gzip.Reset(io.Discard)
	z.from.idle.Put(z.gzip)
	<-z.from.places
}

// Begin prepares an answer for compression and returns the writer for its content. It returns nil
// if route or client do not want that. A nil Compression compresses nothing. The writer must be
// released.
func (z *Compression) Begin(h *message.Response, request *message.Head, to wire.Stream, from *Compressors) *Compressor {
	if z == nil || !message.MayHaveBody(request.Method, h.Status) || !z.covers(h) {
		return nil
	}
	h.Fields.AddVary("Accept-Encoding")
	if !acceptsGzip(request.Fields) || request.Fields.HasToken("cache-control", "no-transform") {
		return nil
	}
	c := from.take(to)
	if c == nil {
		return nil
	}
	h.ContentLength = -1
	h.Fields.Add("content-encoding", "gzip")
	h.Fields.Del("accept-ranges") // ranges would refer to the uncompressed bytes
	for i := range h.Fields {
		// The bytes change but the content does not, so the ETag becomes weak.
		if f := &h.Fields[i]; f.Name == "etag" && !strings.HasPrefix(f.Value, "W/") {
			f.Value = "W/" + f.Value
		}
	}
	return c
}

// check records the faults of the section.
func (c *CompressConfig) check(at string, f *setting.Faults) {
	for i, t := range c.Types {
		family, rest, ok := strings.Cut(t, "/")
		at := setting.Index(at+".types", i)
		switch {
		case !ok || !message.ValidName(family) || !message.ValidName(rest) || strings.Contains(t, "*") && rest != "*" || family == "*":
			f.Add(at, t, "not a media type", "write one such as application/json, or text/*")
		case t != strings.ToLower(t):
			f.Add(at, t, "types are compared in lower case", "write "+strings.ToLower(t))
		}
	}
}
