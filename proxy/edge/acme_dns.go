package edge

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/libdns/cloudflare"
	"github.com/libdns/libdns"
	"github.com/libdns/rfc2136"
	"github.com/libdns/route53"
	"github.com/mholt/acmez/v3"
	"go.uber.org/zap"
)

// newDNSSolver makes what meets dns-01: it makes a record, waits until resolvers
// see it, and removes it.
func newDNSSolver(c *DNSConfig, now func() time.Time) (acmez.Solver, error) {
	provider, err := newDNSProvider(c, now)
	if err != nil {
		return nil, fmt.Errorf("acme: dns: %w", err)
	}
	return &certmagic.DNS01Solver{DNSManager: certmagic.DNSManager{
		DNSProvider:        provider,
		TTL:                time.Minute,
		PropagationDelay:   c.Wait.D(),
		PropagationTimeout: c.Timeout.Or(2 * time.Minute),
		Resolvers:          slices.Clone(c.Resolvers),
		Logger:             zap.NewNop(),
	}}, nil
}

func newDNSProvider(c *DNSConfig, now func() time.Time) (certmagic.DNSProvider, error) {
	switch {
	case c.RFC2136 != nil:
		key, err := c.RFC2136.Key.Read()
		if err != nil {
			return nil, err
		}
		p := &rfc2136.Provider{Server: c.RFC2136.Server, KeyName: c.RFC2136.KeyName, KeyAlg: c.RFC2136.Algorithm, Key: strings.TrimSpace(string(key))}
		if p.KeyAlg == "" {
			p.KeyAlg = "hmac-sha256"
		}
		if _, _, err := net.SplitHostPort(p.Server); err != nil {
			p.Server = net.JoinHostPort(p.Server, "53")
		}
		return p, nil
	case c.Cloudflare != nil:
		token, err := c.Cloudflare.Token.Read()
		if err != nil {
			return nil, err
		}
		return &cloudflare.Provider{APIToken: string(token), HTTPClient: (&bounds{now: now}).httpClient(nil)}, nil
	case c.Route53 != nil:
		p := &route53.Provider{Region: c.Route53.Region, AccessKeyId: c.Route53.AccessKeyID, HostedZoneID: c.Route53.ZoneID, MaxRetries: 3}
		if !c.Route53.SecretAccessKey.IsZero() {
			key, err := c.Route53.SecretAccessKey.Read()
			if err != nil {
				return nil, err
			}
			p.SecretAccessKey = string(key)
		}
		return p, nil
	case c.Exec != nil:
		return &execProvider{*c.Exec}, nil
	case c.Webhook != nil:
		return newWebhookProvider(c.Webhook, now)
	}
	return nil, errors.New("it is not said how records are made")
}

// Actions that exec and webhook are called for.
const (
	actionPresent = "present"
	actionCleanup = "cleanup"
)

// eachRecord calls do for each record, with its full name.
func eachRecord(zone string, records []libdns.Record, do func(fqdn, value string) error) ([]libdns.Record, error) {
	for i, r := range records {
		rr := r.RR()
		if err := do(strings.TrimSuffix(libdns.AbsoluteName(rr.Name, zone), ".")+".", rr.Data); err != nil {
			return records[:i], err
		}
	}
	return records, nil
}

// execProvider makes records by a program.
type execProvider struct{ config ExecConfig }

// AppendRecords has the program make records.
func (p *execProvider) AppendRecords(ctx context.Context, zone string, records []libdns.Record) ([]libdns.Record, error) {
	return eachRecord(zone, records, func(fqdn, value string) error { return p.run(ctx, actionPresent, fqdn, value) })
}

// DeleteRecords has the program remove records.
func (p *execProvider) DeleteRecords(ctx context.Context, zone string, records []libdns.Record) ([]libdns.Record, error) {
	return eachRecord(zone, records, func(fqdn, value string) error { return p.run(ctx, actionCleanup, fqdn, value) })
}

// maxOutput bounds what is kept of a program's or a server's words.
const maxOutput = 1 << 10

// run runs the program, which gets no more than it needs: a clean environment, no
// input, and its time. What it started goes with it.
func (p *execProvider) run(ctx context.Context, action, fqdn, value string) error {
	ctx, cancel := context.WithTimeout(ctx, p.config.Timeout.Or(time.Minute))
	defer cancel()
	args := append(slices.Clone(p.config.Command[1:]), action, fqdn, value)
	c := exec.CommandContext(ctx, p.config.Command[0], args...)
	c.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	for _, name := range p.config.Env {
		if v, ok := os.LookupEnv(name); ok {
			c.Env = append(c.Env, name+"="+v)
		}
	}
	c.Dir = "/"
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
	c.WaitDelay = time.Second
	var words output
	c.Stdout, c.Stderr = &words, &words
	err := c.Run()
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("%s %s %s: %w%s", p.config.Command[0], action, fqdn, err, words.quoted())
	}
	return nil
}

// output keeps the beginning of what is written.
type output struct{ b bytes.Buffer }

// Write never fails: a program must not end because it says much.
func (o *output) Write(p []byte) (int, error) {
	o.b.Write(p[:min(len(p), maxOutput-o.b.Len())])
	return len(p), nil
}

func (o *output) quoted() string {
	if s := strings.TrimSpace(o.b.String()); s != "" {
		return fmt.Sprintf(": %q", s)
	}
	return ""
}

// webhookProvider makes records by an HTTP server.
type webhookProvider struct {
	url    string
	token  string
	client *http.Client
}

func newWebhookProvider(c *WebhookConfig, now func() time.Time) (*webhookProvider, error) {
	p := &webhookProvider{url: c.URL.String()}
	if !c.Token.IsZero() {
		token, err := c.Token.Read()
		if err != nil {
			return nil, err
		}
		p.token = string(token)
	}
	b := &bounds{now: now}
	if c.CA == "" {
		p.client = b.httpClient(nil)
		return p, nil
	}
	roots, err := readRoots(c.CA)
	if err != nil {
		return nil, err
	}
	p.client = b.httpClient(roots)
	return p, nil
}

// AppendRecords has the server make records.
func (p *webhookProvider) AppendRecords(ctx context.Context, zone string, records []libdns.Record) ([]libdns.Record, error) {
	return eachRecord(zone, records, func(fqdn, value string) error { return p.post(ctx, actionPresent, fqdn, value) })
}

// DeleteRecords has the server remove records.
func (p *webhookProvider) DeleteRecords(ctx context.Context, zone string, records []libdns.Record) ([]libdns.Record, error) {
	return eachRecord(zone, records, func(fqdn, value string) error { return p.post(ctx, actionCleanup, fqdn, value) })
}

func (p *webhookProvider) post(ctx context.Context, action, fqdn, value string) error {
	body, err := json.Marshal(map[string]string{"action": action, "fqdn": fqdn, "value": value})
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	if p.token != "" {
		r.Header.Set("Authorization", "Bearer "+p.token)
	}
	answer, err := p.client.Do(r)
	if err != nil {
		return fmt.Errorf("webhook: %w", err)
	}
	defer answer.Body.Close()
	var words output
	_, _ = io.Copy(&words, io.LimitReader(answer.Body, maxOutput))
	if answer.StatusCode < 200 || answer.StatusCode > 299 {
		return fmt.Errorf("webhook: status %d%s", answer.StatusCode, words.quoted())
	}
	return nil
}
