package proxy

import (
	"context"
	"log/slog"
	"os"
	"strconv"
	"strings"

	"sallyport/proxy/limit"
	"sallyport/proxy/setting"
)

// newRoom makes the bounds of the process: connections, descriptors and memory. When
// one is reached, new work is refused at once and the old goes on.
func (g *Gateway) newRoom() {
	l := g.config.Limits.WithDefaults()
	g.bodyRate = int64(l.BodyRate)
	g.room = limit.NewMemory(g.config.MemoryBudget(), g.options.MemoryUsed)
	if most := roomFor(descriptors()); most > 0 && most < l.Connections {
		level := slog.LevelInfo
		if g.config.Limits.Connections != 0 {
			level = slog.LevelWarn // it was asked for
		}
		g.log.Log(context.Background(), level, "the system gives fewer descriptors than limits.connections takes", "connections", most, "cure", "raise the limit of open files, such as LimitNOFILE= in the unit file")
		l.Connections = most
	}
	rate := func(per string, r setting.Rate) *limit.Rate {
		return limit.NewRate(limit.RateConfig{Per: per, Limit: r}, g.now)
	}
	g.conns = limit.NewConns(limit.ConnsConfig{
		Total: l.Connections, PerAddress: l.ConnectionsPerAddress, Exempt: g.snapshot.proxies,
		Accepts: rate("route", l.Accepts), AcceptsPerAddress: rate("address", l.AcceptsPerAddress), Spent: g.room.Spent,
	})
}

// roomFor is how many connections of clients there are descriptors for: each may have
// one to an upstream, and some are kept for listeners, files and issuers. Zero or less
// descriptors are no bound.
func roomFor(descriptors int) int {
	if descriptors <= 0 {
		return 0
	}
	return max((descriptors-min(256, descriptors/4))/2, 1)
}

// MemoryBudget is limits.memory with its default; zero is no bound.
func (c *Config) MemoryBudget() int64 {
	if c.Limits.Memory > 0 {
		return int64(c.Limits.Memory)
	}
	text, err := os.ReadFile("/sys/fs/cgroup/memory.max")
	if err != nil {
		return 0 // no control groups, or none of their second version
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil || n <= 0 {
		return 0 // "max"
	}
	return n / 5 * 4
}
