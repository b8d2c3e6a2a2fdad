// Package doctor looks for what keeps a gateway from working, or lets others pass it by.
//
// It asks what the configuration names (DNS, issuers, logins, upstreams, authorities) as the gateway
// would, and the gateway itself if it runs. It changes nothing, orders nothing and reads no secret into its
// findings. Every check has a time bound.
package doctor

import (
	"context"
	"crypto/x509"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"sallyport/proxy"
)

// State says how grave a finding is.
type State string

// The states of a finding.
const (
	OK      State = "ok"
	Warn    State = "warn"    // it may be meant so
	Fail    State = "fail"    // something does not work, or is open
	Skipped State = "skipped" // it could not be checked, and the text says why
)

// Finding is the outcome of one check.
type Finding struct {
	Check   string `json:"check"`
	Subject string `json:"subject"` // such as issuers.corp, a host or a URL
	State   State  `json:"state"`
	Text    string `json:"text"`
	Cure    string `json:"cure,omitempty"`
}

// Report is the outcome of all checks.
type Report struct {
	OK       bool      `json:"ok"` // no finding is [Fail]
	File     string    `json:"file"`
	Findings []Finding `json:"findings"`
}

// Options say what to check. The functions replace the network and the machine in tests; nil means
// the real ones.
type Options struct {
	Config string // path of the configuration
	Token  string // file with a token to judge; "" for none
	Route  string // the route that the token is for; "" for all
	Socket string // control socket of the gateway; "" if it has none

	Lookup    func(ctx context.Context, host string) ([]netip.Addr, error)
	Dial      func(ctx context.Context, network, addr string) (net.Conn, error)
	Addresses func() ([]netip.Addr, error) // of this machine
	Roots     *x509.CertPool               // that clients trust; nil: the system's
	Now       func() time.Time
}

func (o Options) withDefaults() Options {
	if o.Lookup == nil {
		o.Lookup = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	if o.Dial == nil {
		o.Dial = new(net.Dialer).DialContext
	}
	if o.Addresses == nil {
		o.Addresses = ownAddresses
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

const (
	checkTime = 8 * time.Second // for one check
	totalTime = time.Minute     // for all
	atOnce    = 16              // checks that run at the same time
)

// patient is what is examined.
type patient struct {
	Options
	config *proxy.Config
	exam   *proxy.Examination
	status *proxy.StatusReport // of the running gateway; nil if none answers
	own    []netip.Addr
}

// Run makes all checks. The error is not nil only if the token or the route cannot be read.
func Run(ctx context.Context, o Options) (*Report, error) {
	o = o.withDefaults()
	o.Lookup = once(o.Lookup)
	r := &Report{File: o.Config}
	p := &patient{Options: o}
	config, err := proxy.LoadConfig(o.Config)
	if err != nil {
		r.Findings = faultsOf("configuration", Fail, err)
		return r, nil
	}
	p.config = config
	r.Findings = p.files()
	if p.exam, err = proxy.Examine(config, proxy.Options{Now: o.Now, Dial: o.Dial}); err != nil {
		// The faults of the files say more, if there are any.
		if !slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.State == Fail }) {
			r.Findings = append(r.Findings, Finding{"files", o.Config, Fail, err.Error(), ""})
		}
		return r, nil
	}
	defer p.exam.Close()
	judged, err := p.readToken()
	if err != nil {
		return nil, err
	}
	if p.own, err = o.Addresses(); err != nil {
		r.Findings = append(r.Findings, Finding{"exposed", "this machine", Skipped, "its addresses are not known: " + err.Error(), ""})
	}
	ctx, cancel := context.WithTimeout(ctx, totalTime)
	defer cancel()
	r.Findings = append(r.Findings, p.gateway(ctx)...)
	r.Findings = append(r.Findings, run(ctx, p.checks())...)
	r.Findings = append(r.Findings, p.token(ctx, judged)...)
	r.OK = !slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.State == Fail })
	return r, nil
}

// check is one check. It must end soon after its context.
type check func(ctx context.Context) []Finding

// checks returns the checks that may run side by side.
func (p *patient) checks() []check {
	return slices.Concat(p.names(), p.issuers(), p.logins(), p.behind(), p.chains(), p.revocationLists(), p.authorities(), p.upstreams())
}

// run makes checks side by side, and returns their findings in the order of the checks.
func run(ctx context.Context, all []check) (found []Finding) {
	results := make([][]Finding, len(all))
	slots := make(chan struct{}, atOnce)
	var wg sync.WaitGroup
	for i, one := range all {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			bound, cancel := context.WithTimeout(ctx, checkTime)
			defer cancel()
			results[i] = one(bound)
		})
	}
	wg.Wait()
	return slices.Concat(results...)
}

// faultsOf returns a finding for each fault of a configuration in an error.
func faultsOf(check string, state State, err error) (found []Finding) {
	var faults proxy.Faults
	if !errors.As(err, &faults) {
		return []Finding{{check, "", state, err.Error(), ""}}
	}
	for _, f := range faults {
		one := Finding{Check: check, Subject: f.Path, State: state, Cure: f.Cure}
		if one.Subject == "" {
			one.Subject = f.File
		}
		f.Path, f.Cure = "", ""
		one.Text = f.Error()
		found = append(found, one)
	}
	return found
}

// once returns a look-up that remembers its answers: several checks ask for the same names.
func once(lookup func(context.Context, string) ([]netip.Addr, error)) func(context.Context, string) ([]netip.Addr, error) {
	type answer struct {
		found []netip.Addr
		err   error
	}
	var mu sync.Mutex // guards known
	known := map[string]answer{}
	return func(ctx context.Context, host string) ([]netip.Addr, error) {
		mu.Lock()
		a, ok := known[host]
		mu.Unlock()
		if !ok {
			if a.found, a.err = lookup(ctx, host); ctx.Err() == nil {
				mu.Lock()
				known[host] = a
				mu.Unlock()
			}
		}
		return slices.Clone(a.found), a.err
	}
}

// ownAddresses returns the addresses of this machine.
func ownAddresses() ([]netip.Addr, error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	var own []netip.Addr
	for _, a := range all {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil {
			own = append(own, prefix.Addr().Unmap())
		}
	}
	return own, nil
}
