package proxy

import (
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"sallyport/auth"
	"sallyport/auth/httpsig"
	"sallyport/policy/model"
	"sallyport/proxy/limit"
	"sallyport/proxy/message"
	"sallyport/proxy/shared"
)

// newIntegrity makes what the signatures of all routes share.
func (g *Gateway) newIntegrity() (err error) {
	c := &g.config.Integrity
	g.memory = limit.NewBytes(c.Memory.Or(defaultMemory))
	if g.signers, err = newAnswerSigners(g.auth.Key(c.Publish), g.now); err != nil {
		return err
	}
	if !slices.ContainsFunc(g.config.Routes, func(r RouteConfig) bool { return r.takesSignatures() }) {
		return nil // and no file is needed
	}
	state := c.State
	if state == configOff {
		state = ""
	}
	g.replay, err = shared.NewReplay(shared.ReplayConfig{
		Nonces: orElse(c.Nonces, defaultNonces), PerKey: orElse(c.NoncesPerKey, defaultNoncesPerKey),
		Window: c.MaxAge.Or(defaultMaxAge), Skew: c.Skew.Or(defaultSkew), State: state, Now: g.now,
	})
	if err != nil {
		return fmt.Errorf("integrity.state: %w", err)
	}
	return nil
}

func orElse(n, def int) int {
	if n == 0 {
		return def
	}
	return n
}

// announceIntegrity logs what an operator should know of signatures at the start.
func (g *Gateway) announceIntegrity() {
	if g.replay == nil {
		return
	}
	if s := g.replay.Status(); !s.WindowUntil.IsZero() {
		g.log.Warn("signed requests are refused for a while: replays from before the start could not be told",
			"until", s.WindowUntil.UTC(), "why", s.Note, "cure", "keep integrity.state over restarts; an empty file says that no nonce was used before")
	}
}

// signatureDemand is what a route wants of signatures.
func signatureDemand(cfg *Config, c *RouteConfig) auth.SignatureDemand {
	return auth.SignatureDemand{
		Always:      c.Integrity.Request == integrityAlways,
		Cover:       slices.Clone(c.Integrity.Cover),
		HeadersOnly: c.Integrity.Body == integrityHeadersOnly,
		Authority:   authorities(cfg),
	}
}

// authorities says for which authorities requests may be signed, besides that the
// host is one of a route: with the port that clients see, or without one.
func authorities(cfg *Config) func(string) bool {
	ports := []string{"443"}
	if cfg.PublicHTTPS != 0 {
		ports = append(ports, strconv.Itoa(cfg.PublicHTTPS))
	}
	any := false
	for _, addr := range cfg.Listen.HTTPSAddrs() {
		_, port, _ := net.SplitHostPort(addr)
		any = any || port == "0" // chosen by the system: it is for tests
		ports = append(ports, port)
	}
	return func(authority string) bool {
		i := strings.LastIndexByte(authority, ':')
		if i < 0 || strings.HasSuffix(authority, "]") || any {
			return true
		}
		return slices.Contains(ports, authority[i+1:])
	}
}

// newRouteIntegrity is what a route to servers of a dialect does about signatures.
func newRouteIntegrity(cfg *Config, c *RouteConfig, dialect *model.Dialect) routeIntegrity {
	i := &c.Integrity
	// What the memory for all could never hold is too long, and not to be tried later;
	// its end takes a block too.
	most := cfg.Integrity.Memory.Or(defaultMemory) - blockBytes
	r := routeIntegrity{
		body:             i.Body,
		buffer:           min(i.Buffer.Or(defaultSignedBody), most),
		forwardSignature: i.ForwardClientSignature,
		unsigned:         i.Response == configOff,
		responseBuffer:   min(i.ResponseBuffer.Or(defaultSignedResponse), most),
		inline:           i.Events == integrityInline,
	}
	if r.body == "" {
		r.body = integrityBuffer
	}
	// Where digests need not be signed they may be: what is said is compared, and held
	// for that where servers might act on a part of it.
	r.streams = r.body != integrityBuffer && dialect.ActsOnWhole()
	return r
}

// publicPath is where the gateway itself answers, on every host; nothing below it is
// ever forwarded.
const (
	publicPath = "/.well-known/sallyport"
	keysPath   = publicPath + "/keys"
)

// public says whether a path is one of the gateway's own. Letter case does not
// count: what some server would take for such a path is not forwarded either.
func public(path string) bool {
	return len(path) >= len(publicPath) && strings.EqualFold(path[:len(publicPath)], publicPath) &&
		(len(path) == len(publicPath) || path[len(publicPath)] == '/')
}

// answerPublic gives a public document: no credential is asked for.
func (x *exchange) answerPublic() error {
	key := x.g.signers.published
	switch {
	case x.asker != "":
		return &refusal{reason: reasonUndecided}
	case !x.s.routes.serves(x.head.Host) || x.head.Path != keysPath || key.For(auth.SignResponse, x.g.now()) == nil:
		return &refusal{reason: reasonNoRoute}
	case x.head.Method != http.MethodGet && x.head.Method != http.MethodHead:
		return &refusal{reason: reasonMethod, allow: "GET, HEAD"}
	}
	// A JWK set (RFC 7517) with an OKP key (RFC 8037).
	text := fmt.Appendf(nil, `{"keys":[{"kty":"OKP","crv":"Ed25519","use":"sig","alg":"EdDSA","kid":%q,"x":%q}]}`+"\n",
		key.For(auth.SignResponse, x.g.now()).ID(), base64.RawURLEncoding.EncodeToString(key.Public()))
	h := message.Response{Status: http.StatusOK, ContentLength: int64(len(text)), Fields: message.Fields{
		{Name: "content-type", Value: "application/jwk-set+json"},
		{Name: "cache-control", Value: "public, max-age=300"},
		{Name: "access-control-allow-origin", Value: "*"},
		{Name: requestIDField, Value: x.record.RequestID},
	}}
	x.record.Status = h.Status
	if x.head.ContentLength != 0 {
		x.stream.CloseAfter()
	}
	return x.write(&h, text)
}

// sentence is a text of package httpsig as refusals write theirs.
func sentence(text string) string { return strings.ToUpper(text[:1]) + text[1:] + "." }

// cutTarget parts a target in origin form.
func cutTarget(target string) (path, query string, hasQuery bool) { return strings.Cut(target, "?") }

var _ httpsig.Fields = (*message.Fields)(nil)
