package exchange

import (
	"slices"
	"strings"

	"sallyport/auth/identity"
	"sallyport/proxy/message"
)

// addIdentity writes the caller's identity, in the fields that the route names.
func (x *exchange) addIdentity(f *message.Fields) {
	names := &x.route.Identity
	if names.Principal != "" {
		f.Add(names.Principal, printable(x.record.Principal))
	}
	if names.Scopes != "" {
		f.Add(names.Scopes, printable(strings.Join(x.caller.Scopes, " ")))
	}
	if names.RequestID != "" {
		f.Add(names.RequestID, x.record.RequestID)
	}
	if names.Name != "" {
		f.Add(names.Name, printable(x.caller.Name))
	}
	if names.Email != "" {
		f.Add(names.Email, printable(emailOf(&x.caller)))
	}
	if names.Groups != "" {
		f.Add(names.Groups, groupList(x.caller.Groups))
	}
	for i := range names.Claims {
		f.Add(names.Claims[i].Name, claimValue(&x.caller, names.Claims[i].Path))
	}
	x.addToken(f, names.AccessToken, x.proof.Tokens.Access)
	x.addToken(f, names.IDToken, x.proof.Tokens.ID)
}

// addToken writes a token of the caller, if there is one. A proxy that asks gets an empty field for none, because it
// would forward what the client has there.
func (x *exchange) addToken(f *message.Fields, name, token string) {
	if !message.ValidValue(token) {
		token = ""
	}
	switch {
	case name == "", token == "" && x.asker == "":
		return
	case name == "authorization" && token != "":
		token = "Bearer " + token
	}
	f.Add(name, token)
}

// claimValue returns a claim of the caller as the value of a field; "" for none, and for objects.
func claimValue(caller *identity.Principal, path string) string {
	if caller.Claim == nil {
		return ""
	}
	values := caller.Claim(path)
	if len(values) == 1 && !caller.IsList(path) {
		return printable(values[0])
	}
	return groupList(values)
}

// emailOf returns the address that the caller's credential states; "" if it says that nobody verified
// the address, which people may have written themselves.
func emailOf(caller *identity.Principal) string {
	if caller.Claim == nil {
		return ""
	}
	if verified := caller.Claim("email_verified"); len(verified) > 0 && !slices.Equal(verified, []string{"true"}) {
		return ""
	}
	if email := caller.Claim("email"); len(email) == 1 {
		return email[0]
	}
	return ""
}

// groupList returns a list of groups that servers read alike, whether they split it at commas or at
// spaces, and whether or not they know quotes and JSON.
func groupList(groups []string) string {
	var b strings.Builder
	for i, group := range groups {
		if i > 0 {
			b.WriteByte(',')
		}
		for j := 0; j < len(group); j++ {
			switch c := group[j]; {
			case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("-._~/:@+=", c) >= 0:
				b.WriteByte(c)
			default:
				percent(&b, c)
			}
		}
	}
	return b.String()
}

// printable makes a field value of a name chosen by an issuer. It percent-encodes bytes that no
// field may hold, and "%", so that distinct names stay distinct.
func printable(s string) string {
	plain := func(c byte) bool { return c >= ' ' && c <= '~' && c != '%' }
	i := 0
	for i < len(s) && plain(s[i]) {
		i++
	}
	if i == len(s) && s == strings.TrimSpace(s) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if c := s[i]; plain(c) && (c != ' ' || i > 0 && i < len(s)-1) {
			b.WriteByte(c)
		} else {
			percent(&b, c)
		}
	}
	return b.String()
}

// percent writes a byte in percent-encoding.
func percent(b *strings.Builder, c byte) {
	const hex = "0123456789ABCDEF"
	b.WriteByte('%')
	b.WriteByte(hex[c>>4])
	b.WriteByte(hex[c&15])
}
