package httpsig

import "time"

// Tags of sallyport's signatures. Each is for one direction and one purpose, and a
// verifier ignores signatures with another tag than its own.
const (
	TagRequest  = "sallyport-req"  // of a client, for the gateway
	TagForward  = "sallyport-fwd"  // of the gateway, for an upstream
	TagResponse = "sallyport-resp" // of a response, head and content; in the head, or in the trailers of a stream

	// TagResponseHead is for the head of a stream. A signature with TagResponse must
	// follow in the trailers; without it the response was cut or tampered with.
	TagResponseHead = "sallyport-resp-head"
	// TagResponseHeadOnly is for a head whose content is not signed.
	TagResponseHeadOnly = "sallyport-resp-head-only"
)

// Lifetime is how long the signature of a request is valid, and the default maximum age
// for gateways. Skew is how far clocks may differ.
const (
	Lifetime = time.Minute
	Skew     = 30 * time.Second
)

// RequestProfile returns the profile with which clients sign requests. The request must
// have Content-Digest, even without content.
func RequestProfile() Profile {
	return Profile{
		Tag:       TagRequest,
		Cover:     []string{"@method", "@authority", "@path", "@query", "content-digest"},
		IfPresent: []string{"content-type", "content-encoding"},
		Lifetime:  Lifetime,
		Nonce:     true,
	}
}

// RequestPolicy returns the policy of a gateway for signatures of requests. It accepts
// those of a [RequestProfile].
func RequestPolicy() Policy {
	return Policy{
		Tag:          TagRequest,
		Require:      []string{"content-digest"},
		IfPresent:    []string{"content-type", "content-encoding"},
		Target:       true,
		MaxAge:       Lifetime,
		Skew:         Skew,
		RequireNonce: true,
	}
}

// ForwardProfile returns the profile with which a gateway signs requests to upstreams.
// identity are the lower-case names of the fields that identify the caller to the
// upstream. Signing fails if a request lacks one.
func ForwardProfile(identity ...string) Profile {
	p := RequestProfile()
	p.Tag = TagForward
	p.Cover = append(p.Cover, identity...)
	return p
}

// ForwardPolicy returns the policy of an upstream for a gateway's signatures. It accepts
// those of a [ForwardProfile].
func ForwardPolicy(identity ...string) Policy {
	p := RequestPolicy()
	p.Tag = TagForward
	p.Require = append(p.Require, identity...)
	return p
}

// binding returns the components that bind a response to its request.
func binding() []string { return []string{"@method;req", "@authority;req", "@path;req", "@query;req"} }

// These fields of a response name the model that answered.
const (
	ModelField   = "x-sallyport-model"
	VersionField = "x-sallyport-model-version"
)

// ResponseProfile returns the profile with which a gateway signs a response whose whole
// content it has: digest and signature are in the head.
func ResponseProfile() Profile {
	return Profile{
		Tag:       TagResponse,
		Cover:     append([]string{"@status", "content-digest"}, binding()...),
		IfPresent: []string{"content-type", "content-encoding", "content-digest;req", "grpc-status", ModelField, VersionField},
		Lifetime:  Lifetime,
	}
}

// ResponsePolicy returns the policy of a client for a [ResponseProfile].
func ResponsePolicy() Policy {
	return Policy{
		Tag:          TagResponse,
		Require:      append([]string{"@status", "content-digest"}, binding()...),
		IfPresent:    []string{"content-type", "content-encoding", "content-digest;req", "grpc-status", ModelField, VersionField},
		MaxAge:       Lifetime,
		Skew:         Skew,
		RequireNonce: true,
	}
}

// HeadProfile returns the profile with which a gateway signs the head of a response. The
// tag is [TagResponseHead] if a signature follows in the trailers, and otherwise
// [TagResponseHeadOnly].
func HeadProfile(tag string) Profile {
	p := ResponseProfile()
	p.Tag = tag
	p.Cover = append([]string{"@status"}, binding()...)
	return p
}

// HeadPolicy returns the policy of a client for a [HeadProfile].
func HeadPolicy(tag string) Policy {
	p := ResponsePolicy()
	p.Tag = tag
	p.Require = append([]string{"@status"}, binding()...)
	return p
}

// TailProfile returns the profile with which a gateway signs a response in its trailers,
// after the content has ended without an error, or with a gRPC status that says what the
// error is. Its label differs from that of the head, since labels are unique in the whole
// message (RFC 9421, section 4).
func TailProfile() Profile {
	p := ResponseProfile()
	p.Label = "sp-tail"
	p.Cover = append([]string{"@status", "content-digest;tr"}, binding()...)
	p.IfPresent = []string{"content-digest;req", "grpc-status;tr", ModelField, VersionField}
	return p
}

// TailPolicy returns the policy of a client for a [TailProfile].
func TailPolicy() Policy {
	p := ResponsePolicy()
	p.Require = append([]string{"@status", "content-digest;tr"}, binding()...)
	p.IfPresent = []string{"content-digest;req", "grpc-status;tr", ModelField, VersionField}
	return p
}
