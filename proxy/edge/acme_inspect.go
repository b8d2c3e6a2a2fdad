package edge

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/mholt/acmez/v3/acme"
)

// DirectoryReport describes an ACME authority of the configuration, as its directory shows it.
type DirectoryReport struct {
	URL   string
	Terms string // URL of the terms of service; "" if there are none
	// Account reports that the storage has an account there.
	Account bool
	// Problem says why no certificate can be obtained there, and Cure what to do; "" if the
	// directory shows no reason.
	Problem, Cure string
}

// Directories asks each ACME authority of the active view for its directory. It registers no account
// and orders nothing. It returns nil without tls.acme.
func (e *Edge) Directories(ctx context.Context) []DirectoryReport {
	a := e.view.Load().acme
	if a == nil {
		return nil
	}
	var all []DirectoryReport
	for _, c := range a.authorized {
		all = append(all, c.inspect(ctx, a.now))
	}
	return all
}

// ChallengePorts returns the ports at which authorities connect to prove a host's name; none if DNS
// records prove it, or if its certificate comes from another source.
func (e *Edge) ChallengePorts(host string) []string {
	v := e.view.Load()
	if v.acme == nil || !slices.Contains(v.names, host) {
		return nil
	}
	var ports []string
	for _, c := range v.acme.authorized[:1] {
		for kind, port := range map[string]string{challengeTLS: "443", challengeHTTP: "80"} {
			if c.solvers[kind] != nil {
				ports = append(ports, port)
			}
		}
	}
	slices.Sort(ports)
	return ports
}

func (a *authorityClient) inspect(ctx context.Context, now func() time.Time) DirectoryReport {
	r := DirectoryReport{URL: a.directory}
	_, err := a.loadAccount(ctx)
	r.Account = err == nil
	client := a.client(&bounds{now: now})
	defer client.HTTPClient.CloseIdleConnections()
	d, err := client.GetDirectory(ctx)
	if err != nil {
		what, cure := causeACME("", err, a.storage.Path)
		if r.Problem, r.Cure = strings.Join(strings.Fields(what), " "), cure; cure == willRetry {
			r.Cure = "check that tls.acme.directory is the URL of an ACME directory"
		}
		return r
	}
	r.Terms = d.Meta.TermsOfService
	switch {
	case d.NewOrder == "" || d.NewAccount == "":
		r.Problem, r.Cure = "the answer is no ACME directory", "check that tls.acme.directory is the URL of an ACME directory"
	case d.Meta.ExternalAccountRequired && a.eab == nil:
		r.Problem, r.Cure = causeOfProblem("", acme.Problem{Type: "urn:ietf:params:acme:error:externalAccountRequired", Detail: "accounts need an external account binding"})
	case a.profile != "" && d.Meta.Profiles[a.profile] == "":
		r.Problem = fmt.Sprintf("the authority has no profile %q; it has %s", a.profile, strings.Join(slices.Sorted(maps.Keys(d.Meta.Profiles)), ", "))
		r.Cure = "choose one of them as tls.acme.profile, or none"
	}
	return r
}
