package route

import "testing"

func TestDocumentOfAResource(t *testing.T) {
	if NewResource("/v1", nil, []string{"a"}, true) != nil {
		t.Error("a resource for which nobody issues tokens")
	}
	r := NewResource("=/v1", []string{"https://login.example"}, []string{"b", "a", "b"}, true)
	const want = `{"resource":"https://a.example:8443/v1","authorization_servers":["https://login.example"],"scopes_supported":["b","a"],"bearer_methods_supported":["header"],"tls_client_certificate_bound_access_tokens":true}` + "\n"
	if got := string(r.Document("https://a.example:8443")); got != want {
		t.Errorf("got %s", got)
	}
	if got := r.URL("https://a.example:8443"); got != "https://a.example:8443/.well-known/oauth-protected-resource/v1" {
		t.Errorf("at %s", got)
	}
}
