package wire_test

import (
	"crypto/tls"
	"net"
	"net/http/httptest"
)

// tlsListener accepts connections with the certificate of pki.
type tlsListener struct {
	net.Listener
	pki *httptest.Server
}

func (l tlsListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return tls.Server(c, l.pki.TLS), nil
}
