package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"strings"
	"syscall"
)

// maxReport is the maximum size, in bytes, of an answer that a client reads.
const maxReport = 16 << 20

// ControlClient queries a running gateway over its control socket. It is safe for concurrent use.
type ControlClient struct {
	path string
	http *http.Client
}

// DialControl returns a client of the control socket at path. It connects for each request.
func DialControl(path string) *ControlClient {
	return &ControlClient{path: path, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		},
		DisableKeepAlives:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: controlHeadBytes,
	}}}
}

// Reload requests a reload and waits for the result. A refused configuration is no error: the
// report describes it.
func (c *ControlClient) Reload(ctx context.Context) (ReloadReport, error) {
	var r ReloadReport
	err := c.get(ctx, http.MethodPost, "/reload", &r)
	if err == nil && r.Result != ReloadChanged && r.Result != ReloadUnchanged && r.Result != ReloadRefused {
		err = fmt.Errorf("%s: the answer has the unknown result %q: does the gateway have a different version?", c.path, r.Result)
	}
	return r, err
}

// Status requests the state of the gateway.
func (c *ControlClient) Status(ctx context.Context) (StatusReport, error) {
	var r StatusReport
	return r, c.get(ctx, http.MethodGet, "/status", &r)
}

// get sends a request and decodes the answer.
func (c *ControlClient) get(ctx context.Context, method, path string, into any) error {
	if err := socketPathFits(c.path); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, controlAnswer)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, "http://control"+path, nil)
	if err != nil {
		return err
	}
	response, err := c.http.Do(request)
	if err != nil {
		return c.explain(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxReport))
	if err != nil {
		return c.explain(err)
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: the gateway answered %s: %s", c.path, response.Status, firstLine(text))
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("%s: reading the gateway's answer: %w", c.path, err)
	}
	return nil
}

// explain describes an error of the connection, with a remedy. The result wraps err.
func (c *ControlClient) explain(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &ControlError{c.path, "there is no control socket: no gateway runs with this configuration, or listen.control names another path", err}
	case errors.Is(err, syscall.ECONNREFUSED):
		return &ControlError{c.path, "nobody answers at the control socket: the gateway is not running", err}
	case errors.Is(err, fs.ErrPermission):
		return &ControlError{c.path, "no permission: be root or the gateway's own user", err}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return &ControlError{c.path, "the gateway closed the connection: it stopped, or this user is not root or the gateway's own user", err}
	}
	return &ControlError{c.path, err.Error(), err}
}

// ControlError means that the gateway could not be reached, or sent no complete answer.
type ControlError struct {
	Path    string // of the socket
	Problem string // for the operator
	cause   error
}

func (e *ControlError) Error() string { return e.Path + ": " + e.Problem }

// Unwrap returns the error of the connection.
func (e *ControlError) Unwrap() error { return e.cause }

// firstLine returns the part of an answer that an error may quote.
func firstLine(text []byte) string {
	line, _, _ := strings.Cut(string(text[:min(len(text), 200)]), "\n")
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, line)
}
