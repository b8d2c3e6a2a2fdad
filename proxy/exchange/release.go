package exchange

import (
	"errors"
	"net/netip"

	"sallyport/auth/identity"
	"sallyport/policy/model"
	"sallyport/proxy/limit"
	"sallyport/proxy/route"
)

var (
	errNoPlace   = errors.New("the route chooses a version of the model (rewrite), and a request by this path or method has no place for one")
	errInContent = errors.New("the route chooses a version of the model (rewrite), and the message is sent on as it came")
)

// KnownAs returns the name by which limits and splits know a caller. A caller with an alias is the same
// whichever of its credentials it uses. Anonymous callers share a name, so the address is added.
func KnownAs(caller *identity.Principal, client netip.Addr) string {
	return knownAs(caller, caller.String(), client)
}

func knownAs(caller *identity.Principal, name string, client netip.Addr) string {
	switch {
	case caller.Source == "anonymous":
		return name + "@" + limit.Key(client).String()
	case caller.Alias != "":
		return caller.Alias
	}
	return name
}

// ChooseVersion returns a call with the version that the route chooses for it, if the call names none,
// and the place of the setting that does; "" if none does. caller is as of [KnownAs].
func ChooseVersion(r *route.Route, call model.Call, caller string) (chosen model.Call, at string) {
	if !call.Open() {
		return call, ""
	}
	version, at := r.Release.Version(caller, call.Model)
	if at != "" {
		call.Version = version
	}
	return call, at
}

// WithVersion returns the reading of a request with the version that the route chooses, and the place of
// the setting that does. The reading stays as it is if none does, or if the content names the model.
// ask is what was read. The error is that of a request into which no version can be written.
func WithVersion(r *route.Route, ask *model.Request, read model.Reading, caller string) (got model.Reading, at string, err error) {
	if read.NeedsBody() {
		return read, "", nil
	}
	call, at := ChooseVersion(r, read.Call, caller)
	if at == "" {
		return read, "", nil
	}
	if got, err = r.Dialect.WithVersion(ask, &read, call.Version); err != nil {
		return read, at, &refusal{reason: reasonVersionNeeded, cause: errNoPlace}
	}
	return got, at, nil
}

// chooseVersion writes the version that the route chooses into the path of a request that names none. Who
// may do nothing here does not learn what the route chooses.
func (x *exchange) chooseVersion() error {
	if !x.route.Release.ChoosesVersions() {
		return nil
	}
	got, at, err := WithVersion(x.route, &x.modelAsk, x.reading, x.knownAs())
	if err != nil {
		if denied := x.route.Policy.Screen(&x.caller, model.Call{}); denied != nil {
			return denied
		}
		return err
	}
	if at != "" {
		x.reading, x.chosen = got, got.Call.Version
	}
	return nil
}

// NoPlace returns the error for a call that the content makes without a version where the route chooses
// one, if the content has no place for it.
func NoPlace(*model.Reading) error {
	return &refusal{reason: reasonVersionNeeded, cause: errInContent}
}

// checkNamed refuses a call that the content makes without a version where the route chooses one. The
// content is sent on as it came.
func (x *exchange) checkNamed(call model.Call) error {
	if !x.route.Release.ChoosesVersions() {
		return nil
	}
	if _, at := ChooseVersion(x.route, call, x.knownAs()); at != "" {
		return NoPlace(&x.reading)
	}
	return nil
}

// chooseUpstream chooses the upstream of the request. A call that has not named its model yet goes to one
// that is chosen for all models, or to the route's own.
func (x *exchange) chooseUpstream() {
	if x.route.Backends != nil {
		if name, at := x.route.Release.Upstream(x.knownAs(), x.scanned.soFar().call(&x.reading).Model); at != "" {
			x.backend = x.route.Backends[name]
		}
	}
	x.record.UpstreamName = x.backend.Upstream.Name()
}

// knownAs returns the name by which limits and splits know the caller.
func (x *exchange) knownAs() string { return knownAs(&x.caller, x.record.Principal, x.client) }
