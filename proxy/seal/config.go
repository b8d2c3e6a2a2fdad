package seal

import (
	"cmp"
	"slices"
	"time"

	"sallyport/proxy/setting"
)

// Config is the section `integrity`: signature settings of all routes.
type Config struct {
	// MaxAge is how old a request's signature may be. Default: 60s.
	MaxAge setting.Duration `yaml:"max_age"`
	// Skew is how far clocks of signers may be ahead. Default: 30s.
	Skew setting.Duration `yaml:"skew"`
	// Memory limits the memory of all held bodies: of requests until their digests are verified,
	// and of responses until they are signed. Default: 256MiB.
	Memory setting.Size `yaml:"memory"`
	// Nonces limits how many nonces are remembered at once. Further signed requests are refused.
	// Default: 1000000.
	Nonces int `yaml:"nonces"`
	// NoncesPerKey limits the nonces of one key, so that no caller uses all. Default: 250000.
	NoncesPerKey int `yaml:"nonces_per_key"`
	// State is the file that keeps the nonces over a planned restart, or off. A start without the
	// file refuses signed requests until possible replays are too old; an empty file says that no
	// nonce was used before. One process owns it, by a lock on a file beside it; a second process
	// starts as without the file. A reload cannot change it. Default: sallyport-nonces in the
	// folder for state. That is $STATE_DIRECTORY or /var/lib/sallyport if one exists, and otherwise
	// the folder of gateway.yaml; sallyport check shows it.
	State setting.Place `yaml:"state"`
	// Publish is the signing key, with a private_key, for answers to callers without a key who ask
	// by Accept-Signature. Its public half is served at /.well-known/sallyport/keys.
	Publish string `yaml:"publish"`
}

// These are the defaults of the section `integrity`.
const (
	defaultSkew         = 30 * time.Second
	defaultMaxAge       = time.Minute
	defaultNonces       = 1_000_000
	defaultNoncesPerKey = 250_000
	defaultMemory       = 256 << 20
)

// WithDefaults returns c with a value for everything except State and Publish.
func (c Config) WithDefaults() Config {
	c.MaxAge = setting.Duration(c.MaxAge.Or(defaultMaxAge))
	c.Skew = setting.Duration(c.Skew.Or(defaultSkew))
	c.Memory = setting.Size(c.Memory.Or(defaultMemory))
	c.Nonces = cmp.Or(c.Nonces, defaultNonces)
	c.NoncesPerKey = cmp.Or(c.NoncesPerKey, defaultNoncesPerKey)
	return c
}

// RouteConfig is the section `integrity` of a route.
type RouteConfig struct {
	// Request says who signs: when_key (who calls with a signing key) or always
	// (everyone, those with a token too). Default: when_key.
	Request string `yaml:"request"`
	// Response sets whether answers to signed requests, and to callers who ask for
	// it, are signed: sign or off. Default: sign.
	Response string `yaml:"response"`
	// Body says how a signed body is verified. buffer: it is held until its digest is verified.
	// stream: it is verified while forwarded and its end withheld, for servers that act only on
	// whole bodies; over gRPC, for calls with one message. headers_only: its digest need not be
	// signed, as for streams of gRPC requests. Default: buffer.
	Body string `yaml:"body"`
	// Buffer limits the size of one held body. Default: 32MiB.
	Buffer setting.Size `yaml:"buffer"`
	// Cover lists further fields that a signature must cover if the request has them, such as
	// authorization.
	Cover setting.List[string] `yaml:"cover"`
	// ResponseBuffer is the length up to which answers are held and signed in the head. Longer
	// ones, and those of unknown length, are signed in trailers. Default: 1MiB.
	ResponseBuffer setting.Size `yaml:"response_buffer"`
	// Events says where the signature of a text/event-stream goes: trailer, or inline (a comment
	// after the last event). Default: trailer.
	Events string `yaml:"events"`
	// ForwardClientSignature forwards the client's signature to the upstream.
	ForwardClientSignature bool `yaml:"forward_client_signature"`
}

// These are the values of the section `integrity` of a route.
const (
	Always      = "always"
	WhenKey     = "when_key"
	Sign        = "sign"
	Off         = "off"
	HoldBody    = "buffer"
	StreamBody  = "stream"
	HeadersOnly = "headers_only"
	Trailer     = "trailer"
	Inline      = "inline"
)

const (
	defaultSignedBody     = 32 << 20
	defaultSignedResponse = 1 << 20
)

// Policy holds a route's rules for signatures. It is immutable.
type Policy struct {
	HeadersOnly      bool  // the digest of the content need not be signed
	Streams          bool  // content with a signed digest is verified while it is forwarded
	Buffer           int64 // the longest request content to hold, in bytes
	ForwardSignature bool  // forward the client's signature to the upstream
	ResponseBuffer   int64 // the longest answer that is signed in its head, in bytes
	unsigned         bool  // answers are never signed
	inline           bool  // event streams are signed by a comment at their end
}

// NewPolicy compiles the section of a route. actsOnWhole reports whether the upstream's servers wait
// for the whole content before they act on a request.
func NewPolicy(shared *Config, c *RouteConfig, actsOnWhole bool) Policy {
	// A body larger than the whole budget gets 413, not 503: retrying cannot help. The end of the
	// content takes a block too.
	most := shared.Memory.Or(defaultMemory) - BlockBytes
	return Policy{
		HeadersOnly: c.Body == HeadersOnly,
		// Even if a digest need not be signed, a signed one is verified. The content is held if the
		// servers might act on a part of it.
		Streams:          slices.Contains([]string{StreamBody, HeadersOnly}, c.Body) && actsOnWhole,
		Buffer:           min(c.Buffer.Or(defaultSignedBody), most),
		ForwardSignature: c.ForwardClientSignature,
		ResponseBuffer:   min(c.ResponseBuffer.Or(defaultSignedResponse), most),
		unsigned:         c.Response == Off,
		inline:           c.Events == Inline,
	}
}
