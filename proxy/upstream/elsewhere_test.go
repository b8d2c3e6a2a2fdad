package upstream

import (
	"context"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"sallyport/proxy/setting"
)

// elsewhere is a connection to another machine. It counts what is written to it.
type elsewhere struct {
	net.Conn
	written *atomic.Int64
}

func (c elsewhere) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 80} }

func (c elsewhere) Write(b []byte) (int, error) {
	c.written.Add(int64(len(b)))
	return c.Conn.Write(b)
}

// The configuration takes localhost and names under it for this machine, so that credentials may go
// there without TLS. If a resolver says otherwise, nothing is sent. Other names go where they lead.
func TestNamesOfThisMachineLeadNowhereElse(t *testing.T) {
	for name, want := range map[string]string{
		"http://model.localhost": "reserved for this machine", "http://LOCALHOST.": "reserved for this machine", "h2c://localhost": "reserved for this machine",
		"http://model.internal": "",
	} {
		var written atomic.Int64
		server := answerServer(t, ok200+"Content-Length: 1\r\n\r\na")
		u := configured(t, Config{Rest: setting.List[setting.URL]{endpointURL(t, name)}}, Options{Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			c, err := (&net.Dialer{}).DialContext(ctx, network, server)
			return elsewhere{c, &written}, err
		}})
		_, _, err := outcome(u, get())
		switch {
		case want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: got %v", name, err)
		case want != "" && written.Load() > 0:
			t.Errorf("%s: %d bytes were sent", name, written.Load())
		}
	}
}
