// Package systemd talks to the service manager that started the process: it takes over the sockets
// of a socket unit, reports the state of the service, and notifies the watchdog.
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
	// Sockets are the sockets of the socket units; nil if there is no such unit.
	Sockets []proxy.Socket

	notify   string        // the address of systemd's socket for messages; "" for none
	watchdog time.Duration // the longest time between two messages to the watchdog; 0 for no watchdog
	log      *slog.Logger
}

// Take reads systemd's environment variables and removes them, so that no child process can report
// in the name of this process or take its sockets. log is used for failed messages.
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

// Reloading implements [proxy.Manager]. It sends the time, which systemd compares with that of its
// own signal.
func (s *Service) Reloading() {
	s.send(daemon.SdNotifyReloading, strings.TrimSpace(daemon.SdNotifyMonotonicUsec()), "STATUS=reloading the configuration")
}

// slack is how long the process may take to end after the time that requests get.
const slack = 15 * time.Second

// Stopping implements [proxy.Manager]. It asks systemd not to kill the process within that time and
// slack, even if TimeoutStopSec= is shorter.
func (s *Service) Stopping(status string, within time.Duration) {
	s.send(daemon.SdNotifyStopping, fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", (within+slack).Microseconds()), statusLine(status))
}

// Watch blocks until ctx ends. Twice in the time that the watchdog waits, it calls alive and notifies
// the watchdog if alive returns nil. systemd restarts a service whose message does not come in time.
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

// look reports whether alive returns nil within half the watchdog's time. It logs the error.
func (s *Service) look(ctx context.Context, alive func(context.Context) error) bool {
	limited, cancel := context.WithTimeout(ctx, s.watchdog/2)
	defer cancel()
	err := alive(limited)
	if err != nil && ctx.Err() == nil {
		s.log.Error("the gateway failed the check for its watchdog; systemd will restart it", "error", err)
	}
	return err == nil
}

// send sends one message. If systemd cannot be reached, it logs that, and the service goes on.
func (s *Service) send(lines ...string) {
	if s.notify == "" {
		return
	}
	if err := write(s.notify, strings.Join(lines, "\n")); err != nil {
		s.log.Warn("reporting the state of the gateway to systemd failed", "state", lines[0], "error", err)
	}
}

// sendTime limits the sending of one message, because the socket's queue in the kernel may be full.
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

// statusLine returns a status for systemctl. It replaces line breaks, which would begin another
// assignment.
func statusLine(status string) string {
	return "STATUS=" + strings.Join(strings.FieldsFunc(status, func(r rune) bool { return r < ' ' || r == 0x7f }), "; ")
}
