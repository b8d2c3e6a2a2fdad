package seal

import (
	"cmp"
	"slices"
	"time"

	"sallyport/proxy/setting"
)

// Config is the section `integrity`: what signatures of all routes share.
type Config struct {
	// MaxAge is how old a request's signature may be. Default: 60s.
	MaxAge setting.Duration `yaml:"max_age"`
	// Skew is how far clocks of signers may be ahead. Default: 30s.
	Skew setting.Duration `yaml:"skew"`
	// Memory bounds the bodies that are held, of requests until their digests are
	// checked and of responses until they are signed, all together. Default: 256MiB.
	Memory setting.Size `yaml:"memory"`
	// Nonces is how many are remembered at once. Signed requests beyond that are
	// refused. Default: 1000000.
	Nonces int `yaml:"nonces"`
	// NoncesPerKey bounds those of one key, so that no caller takes all. Default: 250000.
	NoncesPerKey int `yaml:"nonces_per_key"`
	// State is the file in which a planned stop leaves the nonces for the next start,
	// or off. A start that does not find it refuses signed requests until those that may
	// be replays are stale; an empty file says that no nonce was used before. One process
	// owns it, by a lock on a file beside it: a second one starts as if it had not found
	// the file. A reload cannot change it. Default: sallyport-nonces in the folder
	// for state, which is $STATE_DIRECTORY or /var/lib/sallyport where there is one, else
	// that of gateway.yaml; sallyport check says where.
	State setting.Place `yaml:"state"`
	// Publish is the signing key, with a private_key, that signs for callers who have
	// no key of their own and ask by Accept-Signature. Its public half is served at
	// /.well-known/sallyport/keys.
	Publish string `yaml:"publish"`
}

// Defaults of the section `integrity`.
const (
	defaultSkew         = 30 * time.Second
	defaultMaxAge       = time.Minute
	defaultNonces       = 1_000_000
	defaultNoncesPerKey = 250_000
	defaultMemory       = 256 << 20
)

// WithDefaults is c with a value for everything but State and Publish.
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
	// Response says whether answers to signed requests, and to callers who ask for
	// it, are signed: sign or off. Default: sign.
	Response string `yaml:"response"`
	// Body says how a signed body is checked: buffer (held until its digest is right),
	// stream (sent on while it is checked, its end held back, for servers that act on
	// whole bodies only) or headers_only (its digest need not be signed). Default: buffer.
	Body string `yaml:"body"`
	// Buffer bounds one body that is held. Default: 32MiB.
	Buffer setting.Size `yaml:"buffer"`
	// Cover are further fields that a signature must cover where a request has them,
	// such as authorization.
	Cover setting.List[string] `yaml:"cover"`
	// ResponseBuffer is up to which length answers are held and signed in the head;
	// longer ones, and those without a length, are signed in trailers. Default: 1MiB.
	ResponseBuffer setting.Size `yaml:"response_buffer"`
	// Events says where the signature over a text/event-stream stands: trailer, or
	// inline (a comment after the last event). Default: trailer.
	Events string `yaml:"events"`
	// ForwardClientSignature sends the client's signature on to the upstream.
	ForwardClientSignature bool `yaml:"forward_client_signature"`
}

// Words of the section `integrity` of a route.
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

// Policy is what a route does about signatures. It is immutable.
type Policy struct {
	HeadersOnly      bool  // the digest of the content need not be signed
	Streams          bool  // content with a signed digest is verified while it is forwarded
	Buffer           int64 // the longest request content that is held, in bytes
	ForwardSignature bool  // the client's signature goes on to the upstream
	ResponseBuffer   int64 // the longest answer that is signed in its head, in bytes
	unsigned         bool  // answers are never signed
	inline           bool  // event streams are signed by a comment at their end
}

// NewPolicy compiles the section of a route. actsOnWhole says whether the upstream's
// servers act on a request only when all of its content has come.
func NewPolicy(shared *Config, c *RouteConfig, actsOnWhole bool) Policy {
	// Content that the budget for all could never hold gets 413 and not 503: trying
	// again cannot help. The end of the content takes a block too.
	most := shared.Memory.Or(defaultMemory) - BlockBytes
	return Policy{
		HeadersOnly: c.Body == HeadersOnly,
		// Where digests need not be signed they may be: what is signed is verified, and held
		// for that where servers might act on a part of it.
		Streams:          slices.Contains([]string{StreamBody, HeadersOnly}, c.Body) && actsOnWhole,
		Buffer:           min(c.Buffer.Or(defaultSignedBody), most),
		ForwardSignature: c.ForwardClientSignature,
		ResponseBuffer:   min(c.ResponseBuffer.Or(defaultSignedResponse), most),
		unsigned:         c.Response == Off,
		inline:           c.Events == Inline,
	}
}
