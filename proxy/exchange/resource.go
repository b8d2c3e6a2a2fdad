package exchange

import (
	"net/http"
	"strconv"

	"sallyport/proxy/message"
	"sallyport/proxy/route"
)

// origin returns scheme, host and port of the gateway as clients see them.
func (x *exchange) origin() string {
	if p := x.publicPort(); p != 443 {
		return "https://" + x.head.Host + ":" + strconv.Itoa(p)
	}
	return "https://" + x.head.Host
}

// findResource returns the resource whose metadata is asked for, nil for other requests. Another
// proxy that asks for a decision serves such paths itself.
func (x *exchange) findResource() *route.Resource {
	if x.asker != "" || x.head.Forms != 0 {
		return nil
	}
	return x.snapshot.Routes.Resource(x.head.Host, x.head.Path, x.client)
}

// metadataURL returns where clients find the metadata of the route; "" for nowhere.
func (x *exchange) metadataURL() string {
	if x.route.Resource == nil || x.asker != "" {
		return ""
	}
	return x.route.Resource.URL(x.origin())
}

const metadataMethods = "GET, HEAD, OPTIONS"

// sendMetadata sends the metadata of a resource (RFC 9728) without asking for a credential, to
// pages of any site too: clients in browsers ask with a field of their own, so by a preflight.
func (x *exchange) sendMetadata(r *route.Resource) error {
	h := message.Response{Status: http.StatusOK, Fields: message.Fields{{Name: "access-control-allow-origin", Value: "*"}}}
	switch x.head.Method {
	case http.MethodGet, http.MethodHead:
	case http.MethodOptions:
		h.Status, h.ContentLength = http.StatusNoContent, -1
		h.Fields.Add("allow", metadataMethods)
		h.Fields.Add("access-control-allow-methods", metadataMethods)
		h.Fields.Add("access-control-allow-headers", "*")
		h.Fields.Add("access-control-max-age", "600")
		return x.respondHere(&h, nil)
	default:
		return &route.MethodError{Allow: metadataMethods}
	}
	text := r.Document(x.origin())
	h.ContentLength = int64(len(text))
	h.Fields.Add("content-type", "application/json")
	h.Fields.Add("cache-control", "public, max-age=300")
	return x.respondHere(&h, text)
}
