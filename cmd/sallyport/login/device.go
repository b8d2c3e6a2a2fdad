package login

import (
	"context"
	"encoding/json"
	"errors"
	"net/url"
	"strings"
	"time"

	"golang.org/x/oauth2"
)

// Limits of the device flow, in seconds.
const (
	usualPause = 5 // between requests, where the issuer names none (RFC 8628, section 3.2)
	maxPause   = 60
	maxLife    = 24 * 60 * 60 // of a code
)

// ParseDevice reads the answer of a device authorization endpoint (RFC 8628, section 3.2). What it
// returns can be shown in a terminal.
func ParseDevice(text []byte) (*oauth2.DeviceAuthResponse, error) {
	// DeviceAuthResponse reads itself, and panics at null.
	var m struct {
		DeviceCode string `json:"device_code"`
		UserCode   string `json:"user_code"`
		Page       string `json:"verification_uri"`
		Complete   string `json:"verification_uri_complete"`
		ExpiresIn  int64  `json:"expires_in"`
		Interval   int64  `json:"interval"`
	}
	if err := json.Unmarshal(text, &m); err != nil {
		return nil, errors.New("the answer is no JSON object with what belongs to a device code")
	}
	switch {
	case m.DeviceCode == "":
		return nil, errors.New("the answer has no device_code")
	case m.UserCode == "" || len(m.UserCode) > 64 || !printable(m.UserCode):
		return nil, errors.New("the answer has no user_code that can be shown")
	case !pageURL(m.Page), m.Complete != "" && !pageURL(m.Complete):
		return nil, errors.New("the answer has no verification_uri that can be opened")
	case m.Interval < 0 || m.Interval > maxPause:
		return nil, errors.New("the answer has an interval that is negative or longer than a minute")
	case m.ExpiresIn <= 0:
		return nil, errors.New("the answer has no expires_in, or it is over")
	}
	life := time.Duration(min(m.ExpiresIn, maxLife)) * time.Second
	return &oauth2.DeviceAuthResponse{DeviceCode: m.DeviceCode, UserCode: m.UserCode, VerificationURI: m.Page, VerificationURIComplete: m.Complete,
		Interval: m.Interval, Expiry: time.Now().Add(life)}, nil
}

// pageURL reports whether text is an absolute URL for a browser.
func pageURL(text string) bool {
	u, err := url.Parse(text)
	return err == nil && u.Host != "" && (u.Scheme == "https" || u.Scheme == "http") && len(text) <= 4096 && printable(text) && !strings.Contains(text, " ")
}

func printable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r >= 0x7f })
}

// Poll asks for the token until the person has confirmed, has refused, or d or ctx ends. A request
// without an answer is made again, less often (RFC 8628, section 3.5).
func Poll(ctx context.Context, c *oauth2.Config, d *oauth2.DeviceAuthResponse, opts ...oauth2.AuthCodeOption) (*oauth2.Token, error) {
	for {
		token, err := c.DeviceAccessToken(ctx, d, opts...)
		var lost *url.Error
		if err == nil || ctx.Err() != nil || !errors.As(err, &lost) {
			return token, err
		}
		pause := d.Interval
		if pause == 0 {
			pause = usualPause
		}
		d.Interval = min(2*pause, maxPause)
	}
}
