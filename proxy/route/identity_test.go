package route

import (
	"reflect"
	"strings"
	"testing"

	"sallyport/proxy/setting"
)

// TestIdentityInFieldsOfClients: a request that has an identity field is refused, so one that every browser or program
// sends by itself would lock all of them out, although check found nothing.
func TestIdentityInFieldsOfClients(t *testing.T) {
	of := func(name string) map[string]IdentityConfig {
		all := map[string]IdentityConfig{"claims.name": {Claims: map[string]string{"name": name}}}
		section := reflect.TypeFor[IdentityConfig]()
		for i := range section.NumField() {
			if section.Field(i).Type.Kind() == reflect.String {
				var c IdentityConfig
				reflect.ValueOf(&c).Elem().Field(i).SetString(name)
				all[section.Field(i).Tag.Get("yaml")] = c
			}
		}
		return all
	}
	for _, name := range []string{
		"Accept", "accept_language", "User-Agent", "Origin", "Referer", "Cache-Control", "Pragma", "Priority", "Upgrade-Insecure-Requests",
		"Access-Control-Request-Method", "If-None-Match", "If-Range", "Last-Event-ID", "Traceparent", "Grpc-Timeout",
	} {
		for field, c := range of(name) {
			var f setting.Faults
			c.check("routes[0].identity", &f)
			if all := f.Error(); !strings.Contains(all, `routes[0].identity.`+field+`: "`+name+`"`) || !strings.Contains(all, "choose another name") {
				t.Errorf("%s: %s: got %q", field, name, all)
			}
		}
	}
	for _, name := range []string{"X-Remote-User", "X-Request-Id", "X-Forwarded-Access-Token", "X-WEBAUTH-USER"} {
		for field, c := range of(name) {
			var f setting.Faults
			if c.check("routes[0].identity", &f); f.Error() != "" {
				t.Errorf("%s: %s: got %q", field, name, f.Error())
			}
		}
	}
}
