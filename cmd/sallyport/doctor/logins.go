package doctor

import (
	"context"
	"fmt"
	"strings"

	"sallyport/auth/login"
	"sallyport/proxy"
)

// maxRedirects is how many redirect URIs of a login are tried, so that an issuer is not flooded.
const maxRedirects = 4

// logins tries the client of each login at its issuer. No person signs in, and nothing is begun.
func (p *patient) logins() (all []check) {
	for _, r := range p.config.Registrations() {
		at := "logins." + r.Login
		add := func(try func(ctx context.Context) []proxy.LoginFinding) {
			all = append(all, func(ctx context.Context) []Finding { return loginFindings(at, try(ctx)) })
		}
		add(func(ctx context.Context) []proxy.LoginFinding { return p.exam.LoginOffers(ctx, r.Login) })
		for _, uri := range r.Redirects[:min(len(r.Redirects), maxRedirects)] {
			add(func(ctx context.Context) []proxy.LoginFinding {
				return []proxy.LoginFinding{p.exam.TryRedirect(ctx, r.Login, uri)}
			})
		}
		if n := len(r.Redirects) - maxRedirects; n > 0 {
			all = append(all, func(context.Context) []Finding {
				return []Finding{{"login", at, Skipped, fmt.Sprintf("further redirect URIs, %d in number, are not tried; sallyport check lists them", n), ""}}
			})
		}
		if len(r.Wildcards) > 0 {
			all = append(all, func(context.Context) []Finding {
				return []Finding{{"login", at, Skipped, "redirect URIs of hosts with a star are not tried: issuers register none; sallyport check says what to do", ""}}
			})
		}
		origin := ""
		if len(r.Redirects) > 0 {
			origin = strings.TrimSuffix(r.Redirects[0], login.CallbackPath(r.Login))
		} else {
			origin = "https://" + r.Wildcards[0]
		}
		add(func(ctx context.Context) []proxy.LoginFinding {
			return []proxy.LoginFinding{p.exam.TryClient(ctx, r.Login, origin)}
		})
	}
	return all
}

func loginFindings(at string, found []proxy.LoginFinding) (all []Finding) {
	states := map[proxy.LoginGrade]State{proxy.LoginProven: OK, proxy.LoginUnproven: Skipped, proxy.LoginDoubtful: Warn, proxy.LoginFailing: Fail}
	for _, f := range found {
		all = append(all, Finding{"login", at, states[f.Grade], f.Text, f.Cure})
	}
	return all
}
