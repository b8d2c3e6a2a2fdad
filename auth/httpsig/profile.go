package httpsig

import "time"

// Tags of sallyport's signatures. Each is for one direction and one purpose; a
// signature with one never passes for another.
const (
	TagRequest  = "sallyport-req"  // a client to the gateway
	TagForward  = "sallyport-fwd"  // the gateway to an upstream
	TagResponse = "sallyport-resp" // over head and content: in the head, or in the trailers of a stream

	// TagResponseHead is over the head of a stream, and promises a TagResponse in
	// the trailers: without that the response was cut or tampered with.
	TagResponseHead = "sallyport-resp-head"
	// TagResponseHeadOnly is over a head and promises nothing about the content.
	TagResponseHeadOnly = "sallyport-resp-head-only"
)

// Lifetime is how long a request's signature lives, and the greatest age that
// gateways accept by default; Skew is how far clocks may differ.
const (
	Lifetime = time.Minute
	Skew     = 30 * time.Second
)

// RequestProfile is how clients sign requests. Content-Digest must be set before,
// that of no content included.
func RequestProfile() Profile {
	return Profile{
		Tag:       TagRequest,
		Cover:     []string{"@method", "@authority", "@path", "@query", "content-digest"},
		IfPresent: []string{"content-type", "content-encoding"},
		Lifetime:  Lifetime,
		Nonce:     true,
	}
}

// RequestPolicy is what a gateway demands of the signatures of requests: a
// [RequestProfile] or more.
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

// ForwardProfile is how a gateway signs what it sends to upstreams. identity are
// the lower-case names of the fields that tell the upstream who calls; a message
// that lacks one cannot be signed.
func ForwardProfile(identity ...string) Profile {
	p := RequestProfile()
	p.Tag = TagForward
	p.Cover = append(p.Cover, identity...)
	return p
}

// ForwardPolicy is what an upstream demands of a gateway's signatures: a
// [ForwardProfile] or more.
func ForwardPolicy(identity ...string) Policy {
	p := RequestPolicy()
	p.Tag = TagForward
	p.Require = append(p.Require, identity...)
	return p
}

// binding are the components of a request that bind a response to it.
func binding() []string { return []string{"@method;req", "@authority;req", "@path;req", "@query;req"} }

// ResponseProfile is how a gateway signs a response whose content it knows:
// content digest and all in the head.
func ResponseProfile() Profile {
	return Profile{
		Tag:       TagResponse,
		Cover:     append([]string{"@status", "content-digest"}, binding()...),
		IfPresent: []string{"content-type", "content-encoding", "content-digest;req", "grpc-status"},
		Lifetime:  Lifetime,
	}
}

// ResponsePolicy is what a client demands of a [ResponseProfile].
func ResponsePolicy() Policy {
	return Policy{
		Tag:          TagResponse,
		Require:      append([]string{"@status", "content-digest"}, binding()...),
		IfPresent:    []string{"content-type", "content-encoding", "content-digest;req", "grpc-status"},
		MaxAge:       Lifetime,
		Skew:         Skew,
		RequireNonce: true,
	}
}

// HeadProfile is how a gateway signs the head of a response, with
// [TagResponseHead] where a signature over the content follows in the trailers and
// [TagResponseHeadOnly] where none does.
func HeadProfile(tag string) Profile {
	p := ResponseProfile()
	p.Tag = tag
	p.Cover = append([]string{"@status"}, binding()...)
	return p
}

// HeadPolicy is what a client demands of a [HeadProfile].
func HeadPolicy(tag string) Policy {
	p := ResponsePolicy()
	p.Tag = tag
	p.Require = append([]string{"@status"}, binding()...)
	return p
}

// TailProfile is how a gateway signs a response in its trailers, once its content
// has ended well. Its label differs from that of the head: labels are of the whole
// message (RFC 9421, section 4).
func TailProfile() Profile {
	p := ResponseProfile()
	p.Label = "sp-tail"
	p.Cover = append([]string{"@status", "content-digest;tr"}, binding()...)
	p.IfPresent = []string{"content-digest;req", "grpc-status;tr"}
	return p
}

// TailPolicy is what a client demands of a [TailProfile].
func TailPolicy() Policy {
	p := ResponsePolicy()
	p.Require = append([]string{"@status", "content-digest;tr"}, binding()...)
	p.IfPresent = []string{"content-digest;req", "grpc-status;tr"}
	return p
}
