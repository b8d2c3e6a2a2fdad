package exchange

import (
	"net/http"
	"strings"

	"sallyport/auth"
	"sallyport/proxy/message"
	"sallyport/proxy/route"
	"sallyport/proxy/wire"
)

// Redirect handles every request on the plain HTTP listeners. It never forwards. It redirects the
// hosts of routes to HTTPS, and warns callers that a credential sent in the clear is compromised.
func (s *Server) Redirect(stream wire.Stream) { s.handle(stream, (*exchange).redirect) }

func (x *exchange) redirect() error {
	if err := x.read(); err != nil {
		return err
	}
	if strings.HasPrefix(x.head.Path, "//") {
		return x.head.Refuse(message.DoubleSlash, "an empty segment at the start of a path, behind which some clients read an authority", "")
	}
	if text, ok := x.server.Challenge(x.head.Host, x.head.Path); ok && x.head.Method == http.MethodGet {
		return x.answerChallenge(text)
	}
	if name := credentialIn(x.head.Fields); name != "" {
		return because(reasonPlainHTTP, name+" was sent without TLS")
	}
	if !x.snapshot.Routes.Serves(x.head.Host) {
		return route.ErrNoHost
	}
	return x.respondHere(&message.Response{Status: http.StatusPermanentRedirect, Fields: message.Fields{
		{Name: "location", Value: x.origin() + x.head.PathAndQuery()},
	}}, nil)
}

// answerChallenge proves to a certificate authority that the gateway controls the host (RFC 8555,
// section 8.3).
func (x *exchange) answerChallenge(text string) error {
	x.stream.CloseAfter()
	return x.respondHere(ChallengeAnswer(text), []byte(text))
}

// ChallengeAnswer returns the head of the answer to an ACME challenge.
func ChallengeAnswer(text string) *message.Response {
	return &message.Response{Status: http.StatusOK, ContentLength: int64(len(text)), Fields: message.Fields{
		{Name: "content-type", Value: "application/octet-stream"},
		{Name: "cache-control", Value: "no-store"},
	}}
}

// publicPort returns the HTTPS port as clients see it. It is 443 if a balancer ends TLS and there
// is no HTTPS listener.
func (x *exchange) publicPort() int {
	if p := x.snapshot.PublicHTTPS; p != 0 {
		return p
	}
	if p := x.server.httpsPort.Load(); p != 0 {
		return int(p)
	}
	return 443
}

// credentialIn returns the name of a field that holds a credential; "" for none. Session cookies do
// not count: browsers send those marked Secure over HTTPS only.
func credentialIn(f message.Fields) string {
	for _, name := range []string{"authorization", "x-api-key", "api-key", "signature", "dpop"} {
		if f.Has(name) {
			return name
		}
	}
	for _, line := range f {
		if line.Name == auth.SubprotocolField && auth.HasSubprotocolToken(line.Value) {
			return line.Name
		}
	}
	return ""
}
