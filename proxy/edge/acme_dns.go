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

// newDNSSolver returns a dns-01 solver: it creates a record, waits until resolvers see it,
// and removes it afterwards.
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
	return nil, errors.New("tls.acme.dns names no way to create records")
}

// Actions of exec and webhook.
const (
	actionPresent = "present"
	actionCleanup = "cleanup"
)

// eachRecord calls do with the full name and text of each record. It stops at the first error.
func eachRecord(zone string, records []libdns.Record, do func(fqdn, value string) error) ([]libdns.Record, error) {
	for i, r := range records {
		rr := r.RR()
		if err := do(strings.TrimSuffix(libdns.AbsoluteName(rr.Name, zone), ".")+".", rr.Data); err != nil {
			return records[:i], err
		}
	}
	return records, nil
}

// execProvider creates records with a program.
type execProvider struct{ config ExecConfig }

// AppendRecords runs the program to create records.
func (p *execProvider) AppendRecords(ctx context.Context, zone string, records []libdns.Record) ([]libdns.Record, error) {
	return eachRecord(zone, records, func(fqdn, value string) error { return p.run(ctx, actionPresent, fqdn, value) })
}

// DeleteRecords runs the program to remove records.
func (p *execProvider) DeleteRecords(ctx context.Context, zone string, records []libdns.Record) ([]libdns.Record, error) {
	return eachRecord(zone, records, func(fqdn, value string) error { return p.run(ctx, actionCleanup, fqdn, value) })
}

// maxOutput is the number of bytes kept of a program's output or a server's response.
const maxOutput = 1 << 10

// run runs the program with a clean environment, no input and a time limit. At the limit, the
// whole process group is killed.
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

// output keeps the first maxOutput bytes written to it.
type output struct{ b bytes.Buffer }

// Write never fails: an error would stop a program for long output.
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

// webhookProvider creates records through an HTTP server.
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

// AppendRecords calls the server to create records.
func (p *webhookProvider) AppendRecords(ctx context.Context, zone string, records []libdns.Record) ([]libdns.Record, error) {
	return eachRecord(zone, records, func(fqdn, value string) error { return p.post(ctx, actionPresent, fqdn, value) })
}

// DeleteRecords calls the server to remove records.
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
