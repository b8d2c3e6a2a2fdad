package upstream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Reach opens a connection to an endpoint of the configuration, named by its URL, as a request would:
// with the TLS handshake, and over HTTP/2 with the greeting. It closes the connection again. It
// reads the CA file. The error is the cause alone, which names the setting that helps if there is one.
func (c *Config) Reach(ctx context.Context, url string, o Options) error {
	u, err := NewPools(o).Open("reached", *c, false)
	if err != nil {
		return err
	}
	defer u.Close()
	all := u.all()
	i := slices.IndexFunc(all, func(e *endpoint) bool { return e.label == url })
	if i < 0 {
		return fmt.Errorf("no endpoint %s", url)
	}
	conn, _, err := all[i].conns.take(ctx, 0, time.Time{}, false)
	if err == nil {
		conn.giveUp()
		return nil
	}
	var failed *Error
	if errors.As(err, &failed) {
		return failed.Err
	}
	return err
}
