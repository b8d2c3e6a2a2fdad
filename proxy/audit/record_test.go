package audit

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

func fullRecord() *Record {
	return &Record{
		Time:             time.Date(2026, 11, 24, 9, 30, 0, 123456789, time.FixedZone("", 3600)),
		RequestID:        "01j8",
		Client:           netip.MustParseAddr("192.0.2.7"),
		Protocol:         "HTTP/2",
		Host:             "models.example.com",
		Method:           "POST",
		Path:             "/v1/models/half_plus_two:predict",
		Route:            "models.example.com/",
		Upstream:         "http://tf-1:8501",
		Principal:        "issuer/corp:alice",
		Credential:       "bearer",
		KeyID:            "2026-11",
		CredentialID:     "8f14e45f",
		Scopes:           []string{"models.predict", "openid"},
		Groups:           []string{`a"b`},
		GroupsElsewhere:  true,
		Dialect:          "tensorflow",
		Verb:             "predict",
		Model:            "half_plus_two",
		Version:          "label:stable",
		Signature:        "serving_default",
		Candidate:        CandidateDeny,
		CandidateRule:    "policies.next[2]",
		Dropped:          "upgrade trailers",
		Reason:           "forbidden",
		Cause:            "no rule allows POST",
		Status:           403,
		BytesIn:          27,
		BytesOut:         64,
		Duration:         1500 * time.Microsecond,
		UpstreamDuration: 1200 * time.Microsecond,
		Own:              300 * time.Microsecond,
	}
}

func TestRecordIsOneLineOfJSON(t *testing.T) {
	for _, tt := range []struct {
		name   string
		record *Record
		want   string
	}{
		{"full", fullRecord(), `{"time":"2026-11-24T08:30:00.123456Z","id":"01j8","client":"192.0.2.7","protocol":"HTTP/2",` +
			`"host":"models.example.com","method":"POST","path":"/v1/models/half_plus_two:predict","route":"models.example.com/",` +
			`"upstream":"http://tf-1:8501","principal":"issuer/corp:alice","credential":"bearer","key_id":"2026-11","credential_id":"8f14e45f",` +
			`"scopes":["models.predict","openid"],"groups":["a\"b"],"groups_elsewhere":true,"dialect":"tensorflow","verb":"predict","model":"half_plus_two",` +
			`"version":"label:stable","signature":"serving_default","candidate":"deny","candidate_rule":"policies.next[2]",` +
			`"dropped":"upgrade trailers","reason":"forbidden","cause":"no rule allows POST","status":403,"bytes_in":27,"bytes_out":64,` +
			`"duration_us":1500,"upstream_us":1200,"own_us":300}` + "\n"},
		{"empty", &Record{}, `{"time":"0001-01-01T00:00:00.000000Z","status":0,"bytes_in":0,"bytes_out":0,"duration_us":0,"upstream_us":0,"own_us":0}` + "\n"},
		{"zone of an address", &Record{Client: netip.MustParseAddr("fe80::1%\"},\n{")},
			`{"time":"0001-01-01T00:00:00.000000Z","client":"fe80::1","status":0,"bytes_in":0,"bytes_out":0,"duration_us":0,"upstream_us":0,"own_us":0}` + "\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := string(tt.record.appendLine(nil, new(stamp))); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestHostileStringsAreEscapedAndCut(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		limit    int
		want     string
	}{
		{"plain", "/predict", 64, "/predict"},
		{"quotes", `a"b\c`, 64, `a\"b\\c`},
		{"new lines", "a\r\n{\"forged\":1}", 64, `a\u000d\u000a{\"forged\":1}`},
		{"NUL, escape, DEL", "\x00\x1b[2J\x7f", 64, `\u0000\u001b[2J\u007f`},
		{"C1 control", "a\u0085b", 64, `a\u0085b`},
		{"line separator", "a\u2028b", 64, `a\u2028b`},
		{"text direction", "user\u202etxt", 64, `user\u202etxt`},
		{"beyond the basic plane", "a\U000e0001b", 64, `a\udb40\udc01b`},
		{"invalid", "a\xff\xc0b", 64, `a\ufffd\ufffdb`},
		{"non-ASCII letters", "mañana 明日 🙂", 64, "mañana 明日 🙂"},
		{"exactly the limit", strings.Repeat("a", 16), 16, strings.Repeat("a", 16)},
		{"over the limit", strings.Repeat("a", 17), 16, strings.Repeat("a", 13) + "…"},
		{"no half escape", strings.Repeat("\x01", 17), 16, `\u0001\u0001…`},
		{"escape that would not fit", strings.Repeat("a", 12) + "\x01", 16, strings.Repeat("a", 12) + "…"},
		{"no half letter", strings.Repeat("明", 9), 16, "明明明明…"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := string(appendString(nil, tt.in, tt.limit))
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if len(got) > tt.limit {
				t.Errorf("%q has %d bytes, want at most %d", got, len(got), tt.limit)
			}
		})
	}
}

// For any input, a record is one line of printable JSON of limited length, and uncut values
// decode to the input.
func FuzzRecordLine(f *testing.F) {
	f.Add("/predict", "models.example.com", "alice")
	f.Add("/\r\n{}", "a\"b\\", "\xff\u202e\U000e0001")
	f.Add(strings.Repeat("\x00", 3000), strings.Repeat("é", 200), strings.Repeat("\U000e0001", 100))
	f.Fuzz(func(t *testing.T, path, host, principal string) {
		r := fullRecord()
		r.Path, r.Host, r.Principal = path, host, principal
		r.RequestID, r.Protocol, r.Method, r.Route, r.Upstream = host, host, host, host, host
		r.Credential, r.KeyID, r.CredentialID, r.Reason, r.Cause = principal, principal, principal, principal, path
		line := string(r.appendLine(nil, new(stamp)))
		if len(line) > maxLine {
			t.Fatalf("the line has %d bytes, want at most %d", len(line), maxLine)
		}
		if !utf8.ValidString(line) {
			t.Fatalf("not UTF-8: %q", line)
		}
		for _, c := range strings.TrimSuffix(line, "\n") {
			if !unicode.IsPrint(c) {
				t.Fatalf("%q is not printable in %q", c, line)
			}
		}
		var got struct{ Path, Host, Principal string }
		if err := json.Unmarshal([]byte(line), &got); err != nil {
			t.Fatalf("%v: %q", err, line)
		}
		want := strings.ToValidUTF8(principal, "\ufffd")
		if utf8.ValidString(principal) && !strings.HasSuffix(got.Principal, "…") && got.Principal != want {
			t.Errorf("principal %q reads back as %q", principal, got.Principal)
		}
	})
}

// Each time is formatted correctly, whatever was formatted before.
func TestStampWritesSortableTimes(t *testing.T) {
	var s stamp
	at := time.Date(2026, 12, 31, 23, 59, 58, 0, time.FixedZone("east", 3600))
	for i, step := range []time.Duration{0, time.Nanosecond, 999 * time.Nanosecond, time.Microsecond, 123456 * time.Microsecond, time.Second, time.Hour, -time.Hour - time.Second, time.Minute, 900 * time.Millisecond, 99 * time.Millisecond} {
		at = at.Add(step)
		if got, want := string(s.append(nil, at)), at.UTC().Format("2006-01-02T15:04:05.000000Z"); got != want {
			t.Errorf("%d: %s, want %s", i, got, want)
		}
	}
}

// A token may have any number of scopes, of any length.
func TestListsInARecordAreBounded(t *testing.T) {
	for name, list := range map[string][]string{
		"many": slices.Repeat([]string{"scope"}, 1000),
		"long": slices.Repeat([]string{strings.Repeat("\x00ö\"", 1000)}, 3),
		"one":  {strings.Repeat("x", 5000)},
	} {
		line := (&Record{Scopes: list}).appendLine(nil, new(stamp))
		var got struct{ Scopes []string }
		if err := json.Unmarshal(line, &got); err != nil {
			t.Fatalf("%s: %v: %s", name, err, line)
		}
		if last := got.Scopes[len(got.Scopes)-1]; len(line) > 800 || !strings.HasSuffix(last, "…") {
			t.Errorf("%s: %d bytes, and %q last", name, len(line), last)
		}
	}
}
