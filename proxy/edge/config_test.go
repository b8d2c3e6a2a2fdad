package edge

import (
	"strings"
	"testing"

	"sallyport/proxy/setting"
)

func TestConfigCheck(t *testing.T) {
	pair := setting.List[FileConfig]{{Cert: "a.pem", Key: "a.key"}}
	for _, tt := range []struct {
		name   string
		config Config
		want   string // the beginning of the only fault
	}{
		{"files", Config{Files: pair}, ""},
		{"local", Config{Local: &LocalConfig{}, MinVersion: "1.2"}, ""},
		{"both", Config{Files: pair, Local: &LocalConfig{Dir: "ca"}, MinVersion: "1.3"}, ""},
		{"none", Config{}, "tls: no source of certificates"},
		{"acme", Config{ACME: map[string]any{"email": "ops@example.com"}}, "tls.acme: certificates by ACME are not in this version; use tls.files or tls.local"},
		{"no key", Config{Files: setting.List[FileConfig]{pair[0], {Cert: "b.pem"}}}, "tls.files[1].key: missing"},
		{"no certificate", Config{Files: setting.List[FileConfig]{{Key: "b.key"}}}, "tls.files[0].cert: missing"},
		{"TLS 1.1", Config{Files: pair, MinVersion: "1.1"}, `tls.min_version: "1.1": is not a version`},
		{"SSL", Config{Files: pair, MinVersion: "any"}, `tls.min_version: "any": is not a version`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var f setting.Faults
			tt.config.Check("tls", &f)
			if tt.want == "" && len(f) > 0 || tt.want != "" && (len(f) != 1 || !strings.HasPrefix(f.Error(), tt.want)) {
				t.Errorf("got %q, want %q", f.Error(), tt.want)
			}
		})
	}
}
