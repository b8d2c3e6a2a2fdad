// Package systemd speaks with the service manager that has started the process: it takes the
// sockets of a socket unit, reports what state the service is in, and feeds the watchdog.
package systemd

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"

	"sallyport/proxy"
)

// Service is this process as a service of systemd. Without a service manager its methods do
// nothing. It implements [proxy.Manager], and is safe for concurrent use.
type Service struct {
	// Sockets are the sockets of the socket units; none without one.
	Sockets []proxy.Socket

	notify   string        // where messages go; "" for nowhere
	watchdog time.Duration // the longest pause between two signs of life; 0 for no watchdog
	log      *slog.Logger
}

// Take reads what systemd says in the environment, and removes it from there: a child must not
// report in the name of this process, nor take its sockets.
func Take(log *slog.Logger) (*Service, error) {
	s := &Service{notify: os.Getenv("NOTIFY_SOCKET"), log: log}
	if err := os.Unsetenv("NOTIFY_SOCKET"); err != nil {
		return nil, fmt.Errorf("NOTIFY_SOCKET: %w", err)
	}
	for _, f := range activation.Files(true) {
		s.Sockets = append(s.Sockets, proxy.Socket{Name: f.Name(), File: f})
	}
	var err error
	if s.watchdog, err = daemon.SdWatchdogEnabled(true); err != nil {
		return nil, fmt.Errorf("the environment of systemd's watchdog: %w", err)
	}
	return s, nil
}

// Ready implements [proxy.Manager].
func (s *Service) Ready(status string) { s.send(daemon.SdNotifyReady, statusLine(status)) }

// Reloading implements [proxy.Manager]. systemd compares the time with that of its own signal.
func (s *Service) Reloading() {
	s.send(daemon.SdNotifyReloading, strings.TrimSpace(daemon.SdNotifyMonotonicUsec()), "STATUS=reloading the configuration")
}

// slack is how long the process may take to end beyond the time that requests are given.
const slack = 15 * time.Second

// Stopping implements [proxy.Manager]. It asks systemd not to kill the process within that time,
// whatever TimeoutStopSec= says.
func (s *Service) Stopping(status string, within time.Duration) {
	s.send(daemon.SdNotifyStopping, fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", (within+slack).Microseconds()), statusLine(status))
}

// Watch feeds the watchdog until ctx ends, while alive says that the process can work: twice in
// the time that the watchdog waits. systemd restarts a service that has missed it.
func (s *Service) Watch(ctx context.Context, alive func(context.Context) error) {
	if s.notify == "" || s.watchdog <= 0 {
		return
	}
	tick := time.NewTicker(s.watchdog / 2)
	defer tick.Stop()
	for ctx.Err() == nil {
		if s.look(ctx, alive) {
			s.send(daemon.SdNotifyWatchdog)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// look reports whether alive says so within the time until the next look.
func (s *Service) look(ctx context.Context, alive func(context.Context) error) bool {
	limited, cancel := context.WithTimeout(ctx, s.watchdog/2)
	defer cancel()
	err := alive(limited)
	if err != nil && ctx.Err() == nil {
		s.log.Error("the gateway does not answer its watchdog; systemd will restart it", "error", err)
	}
	return err == nil
}

// send sends one message. A manager that cannot be reached is logged, and the service goes on.
func (s *Service) send(lines ...string) {
	if s.notify == "" {
		return
	}
	if err := write(s.notify, strings.Join(lines, "\n")); err != nil {
		s.log.Warn("systemd could not be told the state of the gateway", "state", lines[0], "error", err)
	}
}

// sendTime limits one message: the kernel's queue of the socket may be full.
const sendTime = 2 * time.Second

func write(socket, message string) error {
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetWriteDeadline(time.Now().Add(sendTime)); err != nil {
		return err
	}
	_, err = c.Write([]byte(message))
	return err
}

// statusLine returns a status for systemctl. A line break would begin another assignment.
func statusLine(status string) string {
	return "STATUS=" + strings.Join(strings.FieldsFunc(status, func(r rune) bool { return r < ' ' || r == 0x7f }), "; ")
}
