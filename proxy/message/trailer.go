package message

import "strings"

// KeptTrailers removes, in place, the trailers that must not be trusted or forwarded, see
// [BannedTrailer]. It also removes trailers that fold to the name of a head field: some readers
// would merge the two.
func KeptTrailers(trailers, head Fields) Fields {
	trailers.DelFunc(func(f Field) bool {
		folded := Fold(f.Name)
		if BannedTrailer(folded) {
			return true
		}
		for i := range head {
			if Fold(head[i].Name) == folded {
				return true
			}
		}
		return false
	})
	return trailers
}

// BannedTrailer reports whether a folded name must not be a trailer: fields for framing, routing,
// authentication or content processing (RFC 9110, section 6.5.1), cookies, and our own fields.
func BannedTrailer(name string) bool {
	switch name {
	case "authorization", "www-authenticate", "authentication-info", "cookie", "set-cookie", "x-api-key", "api-key", "dpop",
		"content-encoding", "content-type", "content-range", "content-location", "content-disposition", "content-security-policy",
		"range", "if-match", "if-none-match", "if-modified-since", "if-unmodified-since", "if-range",
		"cache-control", "age", "expires", "vary", "pragma", "location", "retry-after", "date", "strict-transport-security",
		"max-forwards", "forwarded", "via", "remote-user", "script-name":
		return true
	}
	return OfConnection(name) || strings.HasPrefix(name, "x-forwarded-") || strings.HasPrefix(name, "x-sallyport-")
}
