package proxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"sallyport/proxy/audit"
	"sallyport/proxy/config"
	"sallyport/proxy/setting"
	"sallyport/proxy/watch"
)

// recheckTime bounds how long a reload may wait for keys of new issuers, when it decides
// again on the exchanges that are under way.
const recheckTime = 10 * time.Second

// Reload loads the configuration file again, with everything that it names, and swaps
// the new configuration in: whole, or not at all. Exchanges that begin after it has
// returned see the new one. Those under way are decided again by it and cut if it refuses
// them; what they use of the old one stays for at most its grace period (drain).
//
// A file that cannot be used changes nothing; the report has every fault. ctx ends only
// the waiting for another reload that is under way. It is safe for concurrent use, and
// refused while the gateway does not run.
func (g *Gateway) Reload(ctx context.Context) ReloadReport { return g.reloadFor(ctx, slog.LevelInfo) }

// reloadFor is Reload; that nothing changed is logged at a level.
func (g *Gateway) reloadFor(ctx context.Context, unchanged slog.Level) ReloadReport {
	g.reloading.Lock()
	defer g.reloading.Unlock()
	report := g.reload(ctx)
	report.LoadedAt = g.now().loaded
	log := g.memory.Log
	switch report.Result {
	case ReloadChanged:
		log.Info("configuration reloaded", "summary", report.Summary, "changes", report.Changes)
		g.memory.reloads.Changed(report.To)
		g.memory.reloads.SetWatching(g.now().config.Reload.Watches())
	case ReloadUnchanged:
		log.Log(ctx, unchanged, "configuration not reloaded", "why", report.Summary)
		g.memory.reloads.Unchanged()
	default:
		log.Error("configuration refused; the one before stays in force", "why", report.Summary, "faults", len(report.Faults))
		for i, f := range report.Faults {
			if i == maxLoggedFaults {
				log.Error("there are more faults", "cure", "sallyport check shows all")
				break
			}
			log.Error("configuration fault", "fault", f.Error())
		}
		g.memory.reloads.Failed(cmp.Or[error](report.Faults.Err(), errors.New(report.Summary)))
	}
	return report
}

// maxLoggedFaults bounds how many faults of a refused configuration are logged.
const maxLoggedFaults = 10

// reload does what Reload says, with reloading held.
func (g *Gateway) reload(ctx context.Context) ReloadReport {
	old := g.now()
	from, _ := config.ShortHashes(old.outline.Hash(), old.outline.Hash())
	report := ReloadReport{Result: ReloadRefused, From: from, To: from}
	if g.base == nil || g.draining.Load() {
		report.Summary = "the gateway is not running"
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
		report.Result, report.Summary = ReloadUnchanged, config.UnchangedSummary(cfg, old.loaded, g.memory.options.Now())
		return report
	}
	if err := checkFixed(cfg, old.config, g.memory); err != nil {
		return refused(report, err)
	}
	s, err := g.replace(old, cfg)
	if err != nil {
		return refused(report, err)
	}
	report.Result, report.Summary = ReloadChanged, config.ChangedSummary(old.outline, s.outline)
	report.From, report.To = config.ShortHashes(old.outline.Hash(), s.outline.Hash())
	for _, c := range config.DescribeChanges(old.outline, s.outline) {
		report.Changes = append(report.Changes, c.String())
	}
	return report
}

// checkFixed records what cannot change while the process runs.
func checkFixed(c, old *Config, m *memory) error {
	var f setting.Faults
	const cure = "restart the gateway to change it, or put back what it was"
	if m.replay.Begun() && c.Integrity.State != old.Integrity.State {
		f.Add("integrity.state", string(c.Integrity.State), "cannot change while the gateway runs, which holds "+string(old.Integrity.State), cure)
	}
	return c.Place(f).Err()
}

// replace builds the snapshot of a configuration beside the old one, opens what it
// listens on besides, and swaps. After an error nothing has changed.
func (g *Gateway) replace(old *snapshot, cfg *Config) (*snapshot, error) {
	remembering := g.memory.replay.Begun()
	s, err := build(cfg, g.memory)
	if err != nil {
		return nil, err
	}
	if !remembering {
		g.announceIntegrity()
	}
	var records *audit.Change // nil: they go where they went
	if cfg.Audit != old.config.Audit {
		if records, err = g.memory.Audit.Prepare(cfg.Audit); err != nil {
			s.release()
			return nil, fmt.Errorf("audit.file: %w", err)
		}
	}
	lacking, surplus := missing(g.open, placesOf(cfg))
	opened, err := g.listen(cfg, lacking)
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
	g.engines.setOptions(engineOptions(cfg, g.memory.Clock))
	g.server.Swap(&s.Snapshot)
	g.serve(opened)
	for _, l := range opened {
		g.announceListener(l)
	}
	g.closeListeners(surplus)
	g.memory.snapshots.Add(1)
	g.foundation.start(g.failed, func() error { g.retire(old); return nil })
	return s, nil
}

// closeListeners closes listeners that the configuration does not name any more.
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

// retire decides again on the exchanges that are under way with a snapshot that was
// replaced, lets those that stay finish within the grace period, cuts the rest, and gives
// back what the snapshot had.
func (g *Gateway) retire(old *snapshot) {
	defer g.memory.snapshots.Add(-1)
	ctx, cancel := context.WithTimeout(g.base, recheckTime)
	if n := g.server.Recheck(ctx); n > 0 {
		g.memory.Log.Info("the new configuration refused exchanges under way; they were cut", "exchanges", n)
	}
	cancel()
	grace := time.NewTimer(old.config.Drain.Or(defaultDrain))
	defer grace.Stop()
	select {
	case <-old.Drained():
	case <-g.base.Done(): // the process ends, and has waited for every exchange
	case <-grace.C:
		if n := g.server.Cut(&old.Snapshot); n > 0 {
			g.memory.Log.Warn("exchanges of a replaced configuration were cut at the end of its grace period", "exchanges", n)
		}
	}
	<-old.Drained()
	old.release()
}

// followFiles reloads whenever files have changed, until ctx ends. Where the running
// configuration says that it does not watch, changes wait for another way to reload.
func (g *Gateway) followFiles(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-g.watch.Changed():
		}
		if g.now().config.Reload.Watches() {
			// A file may be written twice, or have been reloaded by the operator already.
			g.reloadFor(ctx, slog.LevelDebug)
		}
	}
}

// newWatch makes the watcher of the files of a configuration.
func newWatch(cfg *Config, o *Options) *watch.Watch {
	w := watch.New(watch.Options{Log: o.Log})
	w.Set(cfg.Files(), cfg.Globs())
	return w
}

// Reopen opens the audit file anew under its name, after whatever rotates it has renamed
// the old one.
func (g *Gateway) Reopen() error { return g.memory.Audit.Reopen() }

// refused is the report of a reload that was refused, and why.
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
