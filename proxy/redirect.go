package proxy

import (
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"sallyport/proxy/message"
	"sallyport/proxy/wire"
)

// redirect is the handler of every request on the listener for plain HTTP. It
// never proxies: it sends the hosts of routes to HTTPS, and tells those who sent
// a credential in the clear that it is lost.
func (g *Gateway) redirect(s wire.Stream) {
	x := g.exchange(s)
	defer x.finish()
	if err := x.toHTTPS(); err != nil {
		x.refuse(err)
	}
}

func (x *exchange) toHTTPS() error {
	if err := x.read(); err != nil {
		return err
	}
	if text, ok := x.g.edge.ChallengeAnswer(x.head.Host, x.head.Path); ok && x.head.Method == http.MethodGet {
		return x.answerChallenge(text)
	}
	if carriesCredential(x.head.Fields) {
		return &refusal{reason: reasonPlainHTTP}
	}
	if !x.s.routes.serves(x.head.Host) {
		return &refusal{reason: reasonNoRoute}
	}
	to := "https://" + x.head.Host
	if p := x.g.publicPort(); p != 443 {
		to += ":" + strconv.Itoa(p)
	}
	x.responded = true
	x.record.Status = http.StatusPermanentRedirect
	if x.head.ContentLength != 0 {
		x.stream.CloseAfter()
	}
	_ = x.stream.SetWriteDeadline(time.Now().Add(refusalTime))
	err := x.stream.Respond(&message.Response{Status: x.record.Status, Fields: message.Fields{
		{Name: "location", Value: to + x.head.PathAndQuery()},
		{Name: requestIDField, Value: x.record.RequestID},
	}}, false)
	if err == nil {
		err = x.stream.Finish(nil)
	}
	if err != nil {
		return errClientGone(err)
	}
	return nil
}

// answerChallenge shows an authority that the host is ours (RFC 8555, section 8.3).
func (x *exchange) answerChallenge(text string) error {
	x.responded = true
	x.record.Status = http.StatusOK
	if err := answerPlainly(x.stream, x.record.Status, text); err != nil {
		return errClientGone(err)
	}
	return nil
}

// answerPlainly answers with a short text and ends the connection.
func answerPlainly(s wire.Stream, status int, text string) error {
	s.CloseAfter()
	_ = s.SetWriteDeadline(time.Now().Add(refusalTime))
	err := s.Respond(&message.Response{Status: status, ContentLength: int64(len(text)), Fields: message.Fields{
		{Name: "content-type", Value: "application/octet-stream"},
		{Name: "cache-control", Value: "no-store"},
	}}, false)
	if err == nil {
		_, err = s.Write([]byte(text))
	}
	if err == nil {
		err = s.Finish(nil)
	}
	return err
}

// publicPort is the port of HTTPS as clients see it.
func (g *Gateway) publicPort() int {
	if p := g.config.PublicHTTPS; p != 0 {
		return p
	}
	if len(g.addrs.HTTPS) == 0 {
		return 443 // the balancer's
	}
	a, _ := netip.ParseAddrPort(g.addrs.HTTPS[0].String())
	return int(a.Port())
}

// carriesCredential says whether a head holds what proves a caller. Session
// cookies are left to the browser, which sends those marked Secure over HTTPS only.
func carriesCredential(f message.Fields) bool {
	for _, name := range []string{"authorization", "x-api-key", "signature", "dpop"} {
		if f.Has(name) {
			return true
		}
	}
	return false
}
