package model

import "strings"

// steering are fields that choose another model than the request line: of Ray Serve and
// SageMaker's containers. Those with a star begin so.
var steering = [...]string{
	"serve-multiplexed-model-id",
	"x-amzn-sagemaker-target-*", "x-amzn-sagemaker-custom-attributes", "x-amzn-sagemaker-inference-component",
}

// Dropped reports whether a field of a request, with its name in lower case, could make these servers do
// something else than what [Dialect.Read] reads. The gateway must not forward one from a client.
// Gateways of applications (CGI, WSGI) take "_" and "-" for the same, so Dropped does too.
func (d *Dialect) Dropped(name string) bool {
	for _, drop := range d.drops {
		if name == "" || name[0] != drop[0] {
			continue // as most fields of most requests
		}
		prefix, open := strings.CutSuffix(drop, "*")
		if len(name) < len(prefix) || len(name) > len(prefix) && !open {
			continue
		}
		i := 0
		for i < len(prefix) && (name[i] == prefix[i] || name[i] == '_' && prefix[i] == '-') {
			i++
		}
		if i == len(prefix) {
			return true
		}
	}
	return false
}
