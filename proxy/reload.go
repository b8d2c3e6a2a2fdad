package proxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"sallyport/auth"
	"sallyport/proxy/audit"
	"sallyport/proxy/config"
	"sallyport/proxy/setting"
	"sallyport/proxy/watch"
)

// recheckTime limits how long a reload waits for keys of new issuers when it rechecks exchanges in
// progress.
const recheckTime = 10 * time.Second

// Reload reads the configuration file and all files it names, and replaces the configuration as a
// whole or not at all. Exchanges that begin after Reload has returned use the new one. Exchanges in
// progress are decided again by it and aborted if it refuses them. The rest may use the old one for
// its grace period (drain).
//
// An invalid file changes nothing; the report lists every fault. There is one exception: the file of
// revocations counts at once if it is sound itself, since a fault elsewhere must not leave a stolen
// credential in use. The same holds while the gateway drains. ctx limits only the wait for
// another reload in progress. Reload is safe for concurrent use. It is refused while the gateway
// does not run.
func (g *Gateway) Reload(ctx context.Context) ReloadReport {
	return g.reloadFor(ctx, config.ByRequest, slog.LevelInfo)
}

// reloadFor is Reload; unchanged is the log level if nothing has changed.
func (g *Gateway) reloadFor(ctx context.Context, by config.Loader, unchanged slog.Level) ReloadReport {
	g.reloading.Lock()
	defer g.reloading.Unlock()
	manager, runs := g.memory.options.Manager, g.base != nil && !g.draining.Load()
	if runs {
		manager.Reloading()
	}
	report := g.reload(ctx, by)
	if report.Result != ReloadChanged && g.base != nil && g.base.Err() == nil {
		g.revokeAlone(&report)
	}
	report.LoadedAt = g.loading.At
	log := g.memory.Log
	status := g.describe()
	switch report.Result {
	case ReloadChanged:
		facts := []any{"summary", report.Summary}
		if len(report.Changes) > 0 {
			facts = append(facts, "changes", report.Changes)
		}
		log.Info("configuration reloaded", facts...)
		g.now().config.LogWarnings(log)
		g.memory.reloads.Changed(report.To)
		g.memory.reloads.SetWatching(g.now().config.Reload.Watches())
	case ReloadUnchanged:
		log.Log(ctx, unchanged, "configuration not reloaded", "why", report.Summary)
		g.memory.reloads.Unchanged()
	default:
		log.Error("configuration refused; the previous one stays in use", "why", report.Summary, "faults", len(report.Faults))
		for i, f := range report.Faults {
			if i == maxLoggedFaults {
				log.Error("there are more faults", "cure", "sallyport check shows all")
				break
			}
			log.Error("configuration fault", "fault", f.Error())
		}
		g.memory.reloads.Failed(cmp.Or[error](report.Faults.Err(), errors.New(report.Summary)))
		status += "; the last reload was refused: " + report.Summary
	}
	if runs {
		manager.Ready(status)
	}
	return report
}

// maxLoggedFaults limits how many faults of a refused configuration are logged.
const maxLoggedFaults = 10

// reload implements Reload; reloading is held.
func (g *Gateway) reload(ctx context.Context, by config.Loader) ReloadReport {
	old := g.now()
	from, _ := config.ShortHashes(old.outline.Hash(), old.outline.Hash())
	report := ReloadReport{Result: ReloadRefused, From: from, To: from}
	switch {
	case g.base == nil:
		report.Summary = "the gateway is not running"
		return report
	case g.draining.Load():
		report.Summary = "the gateway is stopping"
		return report
	}
	if err := ctx.Err(); err != nil {
		report.Summary = "given up: " + err.Error()
		return report
	}
	path := old.config.Path()
	if path == "" {
		report.Summary = "the configuration did not come from a file"
		return report
	}
	cfg, err := LoadConfig(path)
	if err == nil {
		g.watch.Set(cfg.Files(), cfg.Globs())
		err = cfg.CheckFiles()
	}
	if err != nil {
		return refused(report, err)
	}
	next := config.OutlineOf(cfg)
	if next.Hash() == old.outline.Hash() {
		g.watch.Take() // they have been loaded
		report.Result, report.Summary = ReloadUnchanged, config.UnchangedSummary(cfg, &g.loading, g.memory.options.Now())
		return report
	}
	if err := checkFixed(cfg, g.memory); err != nil {
		return refused(report, err)
	}
	s, err := g.replace(old, cfg)
	if err != nil {
		return refused(report, err)
	}
	report.Result, report.Summary = ReloadChanged, config.ChangedSummary(old.outline, s.outline)
	g.loading = config.Loading{At: g.memory.options.Now(), By: by, Files: g.watch.Take(), Summary: report.Summary}
	report.From, report.To = config.ShortHashes(old.outline.Hash(), s.outline.Hash())
	for _, c := range config.DescribeChanges(old.outline, s.outline) {
		if !c.Summarized() {
			report.Changes = append(report.Changes, c.String())
		}
	}
	return report
}

// revokeAlone applies the file of revocations to the configuration in use, after a reload that did not
// replace that. reloading is held.
func (g *Gateway) revokeAlone(report *ReloadReport) {
	now := g.now()
	if report.Result == ReloadUnchanged && !now.revokedAlone {
		return
	}
	all, err := auth.ReadRevocations(now.config.Revoked)
	if err != nil || now.config.Revoked == "" {
		return // the report has the fault
	}
	now.auth.Revoke(all)
	now.revokedAlone = report.Result == ReloadRefused
	ctx, cancel := context.WithTimeout(g.base, recheckTime)
	defer cancel()
	if n := g.server.RecheckAll(ctx); n > 0 {
		g.memory.Log.Info("exchanges of revoked callers were cut", "exchanges", n)
	}
	if report.Result == ReloadRefused {
		report.Summary += "; revocations count all the same"
	}
}

// checkFixed records changes of settings that cannot change while the process runs.
func checkFixed(c *Config, m *memory) error {
	var f setting.Faults
	const cure = "restart the gateway to change it, or put back what it was"
	if held := m.replay.File(); m.replay.Begun() && c.TakesSignatures() && nonceFile(c) != held {
		f.Add("integrity.state", string(c.Integrity.State), "cannot change while the gateway runs, which holds "+cmp.Or(held, "none"), cure)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Logins)) {
		l := c.Logins[name]
		held := m.auth.Logins().StatePath(name, l.ClientID)
		if held != "" && l.Session.Outlives() && string(l.Session.State) != held {
			f.Add("logins."+name+".session.state", string(l.Session.State), "cannot change while the gateway runs, which holds "+held, cure)
		}
	}
	return c.Place(f).Err()
}

// replace builds the snapshot of a configuration, opens its additional listeners and makes it
// current. After an error nothing has changed.
func (g *Gateway) replace(old *snapshot, cfg *Config) (*snapshot, error) {
	s, err := build(cfg, g.memory)
	if err != nil {
		return nil, err
	}
	var records *audit.Change // nil: the audit file stays the same
	if cfg.Audit.File != old.config.Audit.File {
		if records, err = g.memory.Audit.Prepare(cfg.Audit); err != nil {
			s.release()
			return nil, fmt.Errorf("audit.file: %w", err)
		}
	}
	lacking, surplus := missing(g.open, placesOf(cfg))
	opened, err := g.listen(cfg, lacking)
	if err == nil {
		err = g.remember(cfg, opened)
	}
	if err != nil {
		if records != nil {
			records.Discard()
		}
		s.release()
		return nil, err
	}
	s.activate(g.memory)
	if records != nil {
		records.Apply()
	}
	g.current.Store(s)
	g.endings.Wake()
	g.engines.setOptions(engineOptions(cfg, g.memory.Clock))
	g.server.Swap(&s.Snapshot)
	g.serve(opened)
	for _, l := range opened {
		g.announceListener(l)
	}
	g.closeListeners(surplus)
	g.announceUnused(cfg)
	g.memory.snapshots.Add(1)
	g.replaced.Go(func() { <-old.Drained() })
	g.foundation.start(g.failed, func() error { g.retire(old); return nil })
	return s, nil
}

// remember takes over the nonces, as the last thing that can fail: what a configuration that is refused
// has taken over would be held all the same. After an error it closes the listeners that were opened.
func (g *Gateway) remember(cfg *Config, opened []*openListener) error {
	remembering := g.memory.replay.Begun()
	if err := g.memory.beginReplay(cfg); err != nil {
		for _, l := range opened {
			_ = l.Close() // no connection was accepted
		}
		return err
	}
	if !remembering {
		g.announceIntegrity()
	}
	return nil
}

// closeListeners closes listeners that the configuration no longer names.
func (g *Gateway) closeListeners(surplus []*openListener) {
	for _, l := range surplus {
		if err := l.close(); err != nil {
			g.memory.Log.Warn("a listener was not closed cleanly", "error", err)
		}
		g.memory.Log.Info("no longer listening", "for", l.use, "addr", l.address())
	}
	g.open = slices.DeleteFunc(g.open, func(l *openListener) bool { return slices.Contains(surplus, l) })
	g.noteAddrs()
}

// retire rechecks the exchanges that use a replaced snapshot. It lets the permitted ones finish
// within the grace period, aborts the rest, and releases the snapshot.
func (g *Gateway) retire(old *snapshot) {
	defer g.memory.snapshots.Add(-1)
	ctx, cancel := context.WithTimeout(g.base, recheckTime)
	if n := g.server.Recheck(ctx); n > 0 {
		g.memory.Log.Info("the new configuration refused exchanges under way; they were cut", "exchanges", n)
	}
	cancel()
	drain := old.config.Drain.Or(defaultDrain)
	grace := time.NewTimer(drain)
	defer grace.Stop()
	select {
	case <-old.Drained():
	case <-g.base.Done(): // the gateway stops, and has waited for every exchange
	case <-grace.C:
		if n := g.server.Cut(&old.Snapshot, drain); n > 0 {
			g.memory.Log.Warn("exchanges of a replaced configuration were cut at the end of its grace period", "exchanges", n)
		}
	}
	<-old.Drained()
	old.release()
}

// revisitEvery is how often streams are checked whose credential may be revoked, or whose session may
// have ended.
const revisitEvery = 5 * time.Second

// revisit ends streams whose token or certificate was revoked, until ctx ends. It asks an issuer about a token only
// once the last answer is too old.
func (g *Gateway) revisit(ctx context.Context) error {
	return g.repeat(ctx, g.server.Revisit, "the issuer no longer vouches for the callers of streams; they were cut")
}

// revisitSessions ends streams of people whose session has ended, until ctx ends.
func (g *Gateway) revisitSessions(ctx context.Context) error {
	return g.repeat(ctx, g.server.RevisitSessions, "the sessions of people with streams have ended; the streams were cut")
}

// repeat calls check every few seconds until ctx ends, and logs how many exchanges it cut.
func (g *Gateway) repeat(ctx context.Context, check func(context.Context) int, text string) error {
	tick := time.NewTicker(revisitEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if n := check(ctx); n > 0 {
				g.memory.Log.Info(text, "exchanges", n)
			}
		}
	}
}

// followFiles reloads whenever files have changed, until ctx ends. If the configuration turns
// watching off, changes wait for an explicit reload.
func (g *Gateway) followFiles(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-g.watch.Changed():
		}
		if g.now().config.Reload.Watches() {
			// A file may be written twice, or the operator may have reloaded already.
			g.reloadFor(ctx, config.ByWatcher, slog.LevelDebug)
		}
	}
}

// newWatch returns the watcher for the files of a configuration.
func newWatch(cfg *Config, o *Options) *watch.Watch {
	w := watch.New(watch.Options{Log: o.Log})
	w.Set(cfg.Files(), cfg.Globs())
	return w
}

// Reopen reopens the audit file by its name, after log rotation has renamed the old one.
func (g *Gateway) Reopen() error { return g.memory.Audit.Reopen() }

// refused returns the report of a refused reload with the reason.
func refused(r ReloadReport, err error) ReloadReport {
	r.Result, r.Summary = ReloadRefused, err.Error()
	if errors.As(err, &r.Faults) {
		r.Summary = fmt.Sprintf("the configuration has %d faults", len(r.Faults))
		if len(r.Faults) == 1 {
			r.Summary = "the configuration has a fault"
		}
	}
	return r
}
