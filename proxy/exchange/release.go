package exchange

import (
	"errors"
	"fmt"
	"net/netip"

	"sallyport/auth/identity"
	"sallyport/policy/model"
	"sallyport/proxy/limit"
	"sallyport/proxy/route"
	"sallyport/proxy/seal"
)

var (
	errNoPlace       = errors.New("the route chooses a version of the model (rewrite), and a request by this path or method has no place for one")
	errInStream      = errors.New("the route chooses a version of the model (rewrite), and the messages of a stream are sent on as they came")
	errSignedContent = errors.New("the route chooses a version of the model (rewrite), and the caller has signed the message")
	errNamedLate     = errors.New("the route chooses a version of the model (rewrite), and the message has named its model too late to write one into it")
	errRewritten     = errors.New("a message into which a version was written names another one")
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
// ask is what was read. The error is for a request into which the version cannot be written; then got
// still has it in its call. It must be told to nobody whom the rules refuse that call.
func WithVersion(r *route.Route, ask *model.Request, read model.Reading, caller string) (got model.Reading, at string, err error) {
	if read.NeedsBody() {
		return read, "", nil
	}
	call, at := ChooseVersion(r, read.Call, caller)
	if at == "" {
		return read, "", nil
	}
	if got, err = r.Dialect.WithVersion(ask, &read, call.Version); err != nil {
		read.Call = call
		return read, at, &refusal{reason: reasonVersionNeeded, cause: errNoPlace}
	}
	return got, at, nil
}

// NoPlace returns the error for a call that the content makes without a version where the route chooses
// one, if its method has no place for one; nil if it has.
func NoPlace(read *model.Reading) error {
	switch {
	case read.Streams():
		return &refusal{reason: reasonVersionNeeded, cause: errInStream}
	case !read.TakesVersion():
		return &refusal{reason: reasonVersionNeeded, cause: errNoPlace}
	}
	return nil
}

// chooseVersion writes the version that the route chooses into the path of a request that names none.
func (x *exchange) chooseVersion() error {
	if !x.route.Release.ChoosesVersions() {
		return nil
	}
	got, at, err := WithVersion(x.route, &x.modelAsk, x.reading, x.knownAs())
	if err != nil {
		if _, denied := x.route.Policy.Decide(&x.caller, got.Call, x.about); denied != nil {
			return denied
		}
		return err
	}
	if at != "" {
		x.reading, x.chosen = got, got.Call.Version
	}
	return nil
}

// chooseNamed returns what a message names with the version that the route chooses, if it names none. The
// version must be written while the start of the message is held. The error is for a message into which it
// cannot be written. It must be told to nobody whom the rules refuse the call.
func (x *exchange) chooseNamed(n model.Named) (named, error) {
	now := named{by: x.reading.Call.Dialect, what: n}
	if !x.route.Release.ChoosesVersions() {
		return now, nil
	}
	call, at := ChooseVersion(x.route, x.reading.Call.With(n), x.knownAs())
	if at == "" {
		return now, nil
	}
	now.what.Version, now.chosen = call.Version, true
	if err := NoPlace(&x.reading); err != nil {
		return now, err
	}
	if !x.scanned.choose(call.Version) {
		return now, &refusal{reason: reasonVersionNeeded, cause: x.whyFixed()}
	}
	return now, nil
}

// fixed reports whether the content of a gRPC call must be sent on as it came.
func (x *exchange) fixed() bool { return x.bodySigned() || x.digestField() != "" }

// whyFixed says why no version can be written into a message.
func (x *exchange) whyFixed() error {
	switch {
	case x.bodySigned():
		return errSignedContent
	case x.digestField() != "":
		return fmt.Errorf("the route chooses a version of the model (rewrite), and the request has a digest of its content (%s)", x.digestField())
	}
	return errNamedLate
}

// digestField returns the name of a field of the request that has a digest of the content; "" for none.
func (x *exchange) digestField() string {
	for _, name := range [...]string{"content-digest", "repr-digest", "digest", "content-md5"} {
		if x.head.Fields.Has(name) {
			return name
		}
	}
	return ""
}

// writeVersion writes the version that was chosen for a gRPC call into its message, of which the start is
// held and nothing was sent. What is sent is read again: it must name just that version.
func (x *exchange) writeVersion() error {
	version := x.scanned.endLead()
	if fault := x.scanned.fault; fault != nil && x.reading.GRPC() && x.route.Release.ChoosesVersions() {
		return fault // a rule about no model may allow what cannot be read, but it could not be given a version
	}
	if version == "" {
		return nil
	}
	c := &x.content
	before := c.held.Size()
	switch err := x.reading.WriteVersion(&c.held, version); {
	case errors.Is(err, seal.ErrMemory):
		return x.noMemory(before + seal.BlockBytes)
	case err != nil:
		return &refusal{reason: reasonVersionNeeded, cause: fmt.Errorf("the route chooses a version of the model (rewrite): %w", err)}
	}
	if c.length > 0 {
		c.length += c.held.Size() - before
	}
	x.scanned.again = x.reading.Scanner(model.ScanOptions{Decide: func(n model.Named) error {
		if n.Version != version {
			return errRewritten
		}
		return nil
	}})
	c.Body = seal.NewVerified(c.Body, x.scanned.again)
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
