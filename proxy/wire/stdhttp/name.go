package stdhttp

import (
	"net/http"
	"strings"
)

// net/http writes names as Content-Type, the gateway as content-type. The tables avoid an
// allocation for each field.
var toLower, toCanonical = func() (map[string]string, map[string]string) {
	lower, canonical := map[string]string{}, map[string]string{}
	for _, name := range strings.Fields(`accept accept-encoding accept-language accept-ranges access-control-allow-origin age
		allow authorization cache-control connection content-disposition content-encoding content-language content-length
		content-range content-security-policy content-type cookie date dnt etag expect expires host if-match
		if-modified-since if-none-match if-range keep-alive last-modified link location origin pragma range referer
		referrer-policy retry-after sec-ch-ua sec-fetch-dest sec-fetch-mode sec-fetch-site sec-fetch-user server
		set-cookie signature signature-input strict-transport-security te trailer transfer-encoding upgrade
		upgrade-insecure-requests user-agent vary via www-authenticate x-content-type-options x-forwarded-for
		x-forwarded-host x-forwarded-proto x-frame-options x-request-id x-requested-with`) {
		c := http.CanonicalHeaderKey(name)
		lower[c], canonical[name] = name, c
	}
	return lower, canonical
}()

func lowerName(canonical string) string {
	if l, ok := toLower[canonical]; ok {
		return l
	}
	return strings.ToLower(canonical)
}

func canonicalName(lower string) string {
	if c, ok := toCanonical[lower]; ok {
		return c
	}
	return http.CanonicalHeaderKey(lower)
}
