package auth

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"sallyport/proxy/setting"
)

// Google's tokens may have its name in place of its URL.
const (
	googleURL  = "https://accounts.google.com"
	googleName = "accounts.google.com"
)

// issues reports whether tokens of the issuer may have this iss.
func (iss *issuer) issues(claimed string) bool {
	return slices.Contains(iss.urls, claimed) || iss.url == googleURL && claimed == googleName
}

// tenant returns the tenant of Entra that an accepted iss names; "" for issuers without tenants.
func (iss *issuer) tenant(claimed string) string {
	if i := slices.Index(iss.urls, claimed); i >= 0 && i < len(iss.tenants) {
		return iss.tenants[i]
	}
	return ""
}

// qualify returns the name of a caller, which begins with the tenant if there is one: the
// administrators of each tenant choose names as they like. The claim tid must not contradict iss.
func (iss *issuer) qualify(name, claimed string, claims claimSet) (string, error) {
	tenant := iss.tenant(claimed)
	if tenant == "" {
		return name, nil
	}
	if tid, ok := claims.find("tid"); ok && (len(tid.values) != 1 || tid.values[0] != tenant) {
		return "", fmt.Errorf("tid is %s, iss is of tenant %s", values(tid.values), tenant)
	}
	return tenant + "/" + name, nil
}

// keepOwn removes the keys that may not sign tokens with this iss. Entra says in the member
// issuer of a key whose tokens it signs, with {tenantid} for those of any tenant: its key for
// private accounts must prove nobody of a company. It returns the issuer of a removed key.
func (t *tries) keepOwn(iss *issuer, claimed string) (other string) {
	kept := tries{}
	for _, k := range t.keys[:t.n] {
		if k.issuer != "" && k.issuer != claimed && (len(iss.tenants) > 0 && k.issuer != iss.url || !strings.Contains(k.issuer, tenantPlace)) {
			other = k.issuer
			continue
		}
		kept.keys[kept.n] = k
		kept.n++
	}
	*t = kept
	return other
}

var errForeignKey = errors.New("the token's key is for tokens of")

// foreignKey returns the cause for a token whose key is another issuer's.
func (iss *issuer) foreignKey(other string) error {
	return fmt.Errorf("issuer %s: %w %s", iss.name, errForeignKey, setting.Quoted(other, 2*shownName))
}
