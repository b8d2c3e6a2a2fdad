package route

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"sallyport/auth"
	"sallyport/proxy/setting"
)

// StepUpConfig is the section `step_up` of a route: how callers must have proved themselves to the
// issuer of their token, or of the login of their session.
//
// A person who goes to a page of the route and has not done so is sent to sign in, with these values in
// the request to the issuer, and replaces the session. Programs get 401 with the challenge of RFC 9470,
// which has the values. Tokens and sessions without the claims are refused.
type StepUpConfig struct {
	// ACRValues are authentication contexts, of which the claim acr must name one, or the claim that acr of
	// the issuer says. The issuer is asked for them in this order, the preferred one first. If the login has
	// acr_values too, only those count that both list. Default: any.
	ACRValues setting.List[string] `yaml:"acr_values"`
	// MaxAge is how long before each request callers may have proved themselves, by the claim auth_time.
	// A stream or WebSocket that began in time goes on. Issuers are asked for the smaller one of this and
	// the max_age of the login. Default: no bound.
	MaxAge setting.Duration `yaml:"max_age"`
	// Prompt is what the issuer is to ask people who sign in for the route, in place of the prompt of the
	// login: login, consent or select_account. Default: what the login says.
	Prompt string `yaml:"prompt"`
}

const (
	// minStepUpAge leaves time for the way back from the issuer.
	minStepUpAge = 10 * time.Second
	// maxACRValues is how many bytes all values have with their spaces. The cookie of a sign-in that has begun
	// holds them beside the page to return to.
	maxACRValues = 512
)

// StepUpDemand returns what the route demands of the authentication of its callers; nil if nothing.
func (r *Config) StepUpDemand() *auth.StepUp {
	if r.StepUp == nil {
		return nil
	}
	return &auth.StepUp{ACR: slices.Clone(r.StepUp.ACRValues), MaxAge: r.StepUp.MaxAge.D(), Prompt: r.StepUp.Prompt}
}

// InWords says what the section demands; "" for no section.
func (c *StepUpConfig) InWords() string {
	if c == nil {
		return ""
	}
	words := ""
	if len(c.ACRValues) > 0 {
		words = "acr " + strings.Join(c.ACRValues, " or ")
	}
	if c.MaxAge > 0 {
		words = strings.TrimPrefix(words+", auth_time up to "+c.MaxAge.String()+" ago", ", ")
	}
	return words
}

// checkStepUp records the faults of the section, and callers whom it could not hold to anything.
func (r *Config) checkStepUp(at string, f *setting.Faults) {
	c := r.StepUp
	if c == nil {
		return
	}
	at += ".step_up"
	if len(c.ACRValues) == 0 && c.MaxAge == 0 {
		f.Add(at, "", "demands nothing", "write acr_values, max_age or both")
	}
	if n := len(strings.Join(c.ACRValues, " ")); n > maxACRValues {
		f.Add(at+".acr_values", "", fmt.Sprintf("these are %d bytes, and have room in no cookie", n), fmt.Sprintf("list up to %d bytes", maxACRValues))
	}
	for i, v := range c.ACRValues {
		at := setting.Index(at+".acr_values", i)
		switch {
		case !auth.IsWord(v):
			f.Add(at, v, "not one word", "write each as an item of a list")
		case slices.Index(c.ACRValues, v) < i:
			f.Add(at, v, "is listed twice", "remove one of the two")
		}
	}
	if d := c.MaxAge; d != 0 && (d.D() < minStepUpAge || d.D() > auth.MaxSession) {
		f.Add(at+".max_age", d.String(), "out of bounds", "choose between "+setting.Duration(minStepUpAge).String()+" and "+setting.Duration(auth.MaxSession).String())
	}
	if known := auth.Prompts(); c.Prompt != "" && !slices.Contains(known, c.Prompt) {
		f.Add(at+".prompt", c.Prompt, "unknown value", "write "+strings.Join(known[:len(known)-1], ", ")+" or "+known[len(known)-1])
	}
	if c.Prompt != "" && len(r.Callers.Logins()) == 0 {
		f.Add(at+".prompt", c.Prompt, "nobody signs in for the route", "remove the line, or list a login in callers")
	}
	r.checkStepUpCallers(at, f)
}

// checkStepUpCallers records callers whose credentials do not say how they were authenticated.
func (r *Config) checkStepUpCallers(at string, f *setting.Faults) {
	names := r.Callers.Names()
	mute := slices.IndexFunc(names, func(name string) bool { return !auth.TellsAuthentication(name) })
	switch {
	case mute < 0:
	case len(r.Callers.All) == 0:
		f.Add(at, "", "callers lists "+names[mute]+", whose credential does not say how and when it was authenticated",
			"list issuer/NAME and login/NAME alone, and give "+names[mute]+" a route of its own, with another path or host")
	case !slices.ContainsFunc(names, auth.TellsAuthentication):
		f.Add(at, "", "none of the credentials in callers says how and when it was authenticated", "add issuer/NAME or login/NAME to all")
	}
}
