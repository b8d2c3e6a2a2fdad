package main

import (
	"encoding/base64"
	"encoding/json"
	"net/url"
	"strconv"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"sallyport/cmd/sallyport/login"
)

// demanded returns the parameters that ask for a stronger or more recent authentication (RFC 9470,
// section 4).
func (t *tokenCommand) demanded() url.Values {
	all := url.Values{}
	if len(t.acrValues) > 0 {
		all.Set("acr_values", strings.Join(t.acrValues, " "))
	}
	if t.claims != "" {
		all.Set("claims", t.claims)
	}
	if t.maxAge > 0 {
		all.Set("max_age", strconv.FormatInt(int64(t.maxAge/time.Second), 10))
	}
	return all
}

// tooOld reports whether the person of a cached token proved themselves longer ago than --max-age.
func (t *tokenCommand) tooOld(e *login.Entry, now time.Time) bool {
	return e != nil && t.maxAge > 0 && now.Sub(e.AuthenticatedAt) > t.maxAge
}

// authenticatedAt returns when the person who just signed in proved themselves: they may have had a
// session at the issuer. Without an ID token that says it, that is now.
func authenticatedAt(got *oauth2.Token, now time.Time) time.Time {
	raw, _ := got.Extra("id_token").(string)
	_, rest, _ := strings.Cut(raw, ".")
	payload, _, _ := strings.Cut(rest, ".")
	var claims struct {
		AuthTime int64 `json:"auth_time"`
	}
	text, err := base64.RawURLEncoding.DecodeString(payload)
	if err != nil || json.Unmarshal(text, &claims) != nil || claims.AuthTime <= 0 {
		return now
	}
	return time.Unix(claims.AuthTime, 0).UTC()
}

// isObject reports whether a text is a JSON object, as the parameter claims must be.
func isObject(text string) bool {
	var object map[string]json.RawMessage
	return json.Unmarshal([]byte(text), &object) == nil && object != nil
}

// stepUpFlags returns the flags of sallyport token that get a token for a challenge (RFC 9470, section 3). An
// issuer that is asked by the parameter claims has a second challenge with these, in base64.
func stepUpFlags(challenge string) string {
	value := func(name string) string {
		_, rest, _ := strings.Cut(challenge, name+`="`)
		v, _, _ := strings.Cut(rest, `"`)
		return v
	}
	flags := "--login"
	if claims, err := base64.StdEncoding.DecodeString(value("claims")); err == nil && isObject(string(claims)) && isShellText(string(claims)) {
		flags += " --claims '" + string(claims) + "'"
	} else {
		for _, acr := range strings.Fields(value("acr_values")) {
			if isShellText(acr) {
				flags += " --acr-values '" + acr + "'"
			}
		}
	}
	if seconds, err := strconv.ParseUint(value("max_age"), 10, 31); err == nil {
		flags += " --max-age " + strconv.FormatUint(seconds, 10) + "s"
	}
	return flags
}

// isShellText reports whether a text of somebody else can stand in a command line between single quotes.
func isShellText(s string) bool {
	return s != "" && len(s) <= 1000 && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' || r == '\'' })
}
