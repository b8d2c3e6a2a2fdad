package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"sallyport/proxy"
)

// files checks the files that the configuration names, and what it warns of.
func (p *patient) files() []Finding {
	var found []Finding
	for _, err := range []error{p.config.CheckFiles(), p.config.CheckListeners()} {
		if err != nil {
			found = append(found, faultsOf("files", Fail, err)...)
		}
	}
	warnings := append(p.config.Warnings(), proxy.EndWarnings(p.config, false, p.Now())...)
	if len(warnings) > 0 {
		found = append(found, faultsOf("configuration", Warn, warnings)...)
	}
	found = append(found, p.localRoot()...)
	if len(found) == 0 {
		return []Finding{{"files", p.Config, OK, "it and its files are sound, with safe modes", ""}}
	}
	return found
}

// localRoot warns of a folder of the local authority that hides its root from clients.
func (p *patient) localRoot() []Finding {
	if p.config.TLS.Local == nil {
		return nil
	}
	dir := string(p.config.TLS.Local.Dir)
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm()&0o005 == 0o005 {
		return nil
	}
	return []Finding{{"files", filepath.Join(dir, "root.pem"), Warn, "only the owner of the folder can read it, and other users' clients need it",
		"chmod 755 " + dir + "; the key in it is readable by its owner alone"}}
}

// gateway asks the running gateway for its state.
func (p *patient) gateway(ctx context.Context) []Finding {
	if p.Socket == "" {
		return []Finding{{"gateway", p.Config, Skipped, "listen.control is off, so it cannot be asked", ""}}
	}
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	s, err := proxy.Status(ctx, p.Socket)
	var nobody *proxy.ControlError
	switch {
	case errors.Is(err, fs.ErrPermission):
		return []Finding{{"gateway", p.Socket, Skipped, "this user may not ask the gateway", "run doctor as root or as the gateway's user"}}
	case errors.As(err, &nobody):
		found := []Finding{{"gateway", p.Config, Skipped, "no gateway runs with this configuration", "sallyport serve starts it"}}
		if busy := p.config.BusyListeners(); len(busy) > 0 {
			found = append(found, faultsOf("gateway", Fail, busy)...)
		}
		return found
	case err != nil:
		return []Finding{{"gateway", p.Socket, Fail, err.Error(), "sallyport status and the gateway's log say more"}}
	}
	p.status = &s
	return running(&s)
}

// running returns the findings about a running gateway.
func running(s *proxy.StatusReport) []Finding {
	found := []Finding{{"gateway", s.File, OK, fmt.Sprintf("runs as process %d, version %s", s.PID, s.Version), ""}}
	if s.Draining {
		found[0].State, found[0].Text = Warn, found[0].Text+", and is about to end"
	}
	if e := s.Configuration.LastError; e != "" {
		first, _, _ := strings.Cut(e, "\n")
		found = append(found, Finding{"gateway", s.File, Fail, "the last reload was refused, so an older configuration is in force: " + first, "correct the file, and run sallyport reload"})
	}
	return found
}
