package login

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/oauth2"
)

func TestDeviceAnswersAreCheckedBeforeTheyAreShown(t *testing.T) {
	const good = `{"device_code": "d", "user_code": "ABCD-EFGH", "verification_uri": "https://login.example.com/device", "expires_in": 600, "interval": 5}`
	d, err := ParseDevice([]byte(good))
	if err != nil || d.DeviceCode != "d" || d.UserCode != "ABCD-EFGH" || d.Interval != 5 || time.Until(d.Expiry) > 600*time.Second {
		t.Fatalf("%+v, %v", d, err)
	}
	for name, text := range map[string]string{
		"nothing": "", "null": "null", "a page": "<html>", "a list": "[]", "an empty object": "{}",
		"no code for people":    strings.Replace(good, "ABCD-EFGH", "", 1),
		"an escape sequence":    strings.Replace(good, "ABCD-EFGH", `\u001b[2J`, 1),
		"a long code":           strings.Replace(good, "ABCD-EFGH", strings.Repeat("A", 65), 1),
		"a script":              strings.Replace(good, "https://login.example.com/device", "javascript:alert(1)", 1),
		"a file":                strings.Replace(good, "https://login.example.com/device", "file:///etc/passwd", 1),
		"an escape in the page": strings.Replace(good, "/device", `/\u001b[2J`, 1),
		"a negative interval":   strings.Replace(good, `"interval": 5`, `"interval": -1`, 1),
		"a vast interval":       strings.Replace(good, `"interval": 5`, `"interval": 9223372036854775807`, 1),
		"an interval of text":   strings.Replace(good, `"interval": 5`, `"interval": "soon"`, 1),
		"no end":                strings.Replace(good, `"expires_in": 600, `, "", 1),
		"an end in the past":    strings.Replace(good, "600", "-600", 1),
	} {
		if d, err := ParseDevice([]byte(text)); err == nil {
			t.Errorf("%s: %+v", name, d)
		}
	}
	if d, err := ParseDevice([]byte(strings.Replace(good, "600", "9223372036854775807", 1))); err != nil || time.Until(d.Expiry) > 24*time.Hour {
		t.Errorf("a vast life: %+v, %v", d, err)
	}
}

// answers is an issuer's token endpoint in the clock of a test. It gives its answers in turn, and the
// last for ever.
type answers struct {
	begin time.Time
	left  []string // codes of errors; "lost": no answer; "": a token
	asked []int    // seconds since begin
}

func (a *answers) RoundTrip(r *http.Request) (*http.Response, error) {
	a.asked = append(a.asked, int(time.Since(a.begin).Round(time.Second).Seconds()))
	next := a.left[0]
	if len(a.left) > 1 {
		a.left = a.left[1:]
	}
	status, text := 400, fmt.Sprintf(`{"error": %q}`, next)
	switch next {
	case "lost":
		return nil, errors.New("no route to host")
	case "":
		status, text = 200, `{"access_token": "a.b.c", "token_type": "Bearer"}`
	case "garbage":
		status, text = 200, "\x00\x01"
	}
	return &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(bytes.NewReader([]byte(text))), Request: r}, nil
}

func TestPollingKeepsItsPaceAndEnds(t *testing.T) {
	for _, c := range []struct {
		name     string
		interval int64
		answers  []string
		asked    string
		want     string // of the error; "": a token
	}{
		{"the usual pace", 0, []string{"authorization_pending", "authorization_pending", ""}, "[5 10 15]", ""},
		{"the issuer's pace", 2, []string{"authorization_pending", ""}, "[2 4]", ""},
		{"slower when told so", 1, []string{"slow_down", "authorization_pending", "slow_down", ""}, "[1 7 13 24]", ""},
		{"less often without an answer", 5, []string{"authorization_pending", "lost", "lost", "authorization_pending", ""}, "[5 10 20 40 60]", ""},
		{"denied", 5, []string{"authorization_pending", "access_denied"}, "[5 10]", "access_denied"},
		{"expired", 5, []string{"expired_token"}, "[5]", "expired_token"},
		{"an unknown error", 5, []string{"invalid_client"}, "[5]", "invalid_client"},
		{"garbage", 5, []string{"garbage"}, "[5]", "cannot parse json"},
		{"a person who does nothing", 20, []string{"authorization_pending"}, "[20 40 60 80]", "deadline exceeded"},
		{"an issuer that only slows down", 20, []string{"slow_down"}, "[20 45 75]", "deadline exceeded"},
		{"an issuer that is gone", 20, []string{"lost"}, "[20 60]", "deadline exceeded"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := &answers{begin: time.Now(), left: c.answers}
				ctx := context.WithValue(t.Context(), oauth2.HTTPClient, &http.Client{Transport: a})
				config := &oauth2.Config{ClientID: "terminal", Endpoint: oauth2.Endpoint{TokenURL: "https://login.example.com/token", AuthStyle: oauth2.AuthStyleInParams}}
				token, err := Poll(ctx, config, &oauth2.DeviceAuthResponse{DeviceCode: "d", Interval: c.interval, Expiry: time.Now().Add(99 * time.Second)})
				switch {
				case c.want == "" && (err != nil || token.AccessToken != "a.b.c"):
					t.Errorf("%+v, %v", token, err)
				case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
					t.Errorf("%v, want %q", err, c.want)
				}
				if got := fmt.Sprint(a.asked); got != c.asked {
					t.Errorf("asked at %s, want %s", got, c.asked)
				}
			})
		})
	}
}
