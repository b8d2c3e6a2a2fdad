package doctor

import (
	"strings"
	"testing"
)

// TestCureNamesThePortOfClients: the command of a cure must reach the gateway as it is pasted.
func TestCureNamesThePortOfClients(t *testing.T) {
	for name, c := range map[string]struct{ listen, want string }{
		"default":           {"", ":443:"},
		"another port":      {"listen: {https: \"127.0.0.1:8443\", control: off, health: off, http: off}\n", ":8443:"},
		"a forwarded port":  {"listen: {https: \"127.0.0.1:8443\", control: off, health: off, http: off}\npublic_https: 9443\n", ":9443:"},
		"the system's port": {"listen: {https: \"127.0.0.1:0\", control: off, health: off, http: off}\n", ":PORT:"},
	} {
		t.Run(name, func(t *testing.T) {
			config := c.listen + "tls: {local: {}}\nroutes:\n" + route("models.example.com", "http://127.0.0.1:1", "callers: anonymous")
			text := newWorld(t).examine(t, config, "", "")
			if want := "curl --resolve models.example.com" + c.want + "ADDRESS"; !strings.Contains(text, want) {
				t.Errorf("no %q in\n%s", want, text)
			}
		})
	}
}
