package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"sallyport/auth"
	"sallyport/proxy/setting"
)

// maxRevokedWarnings limits how many lines of the file of revocations are warned of.
const maxRevokedWarnings = 20

// cureRevoked is the cure for a line that revokes nobody.
const cureRevoked = "correct the name, or remove the line if what it named is gone"

// RevokedWarnings returns the lines of the file of revocations that revoke nobody: probably a name is
// mistyped, or what it named is gone. It reads the files of revocations and of API keys.
func (c *Config) RevokedWarnings() Faults {
	var f setting.Faults
	if c.Revoked == "" {
		return nil
	}
	// Both files may be long, so neither is read once for each line of the other.
	keys := sync.OnceValues(func() (map[string]auth.APIKeyConfig, error) { return auth.APIKeysOf(string(c.APIKeyFile)) })
	find := func(name string) (auth.APIKeyConfig, bool, error) {
		all, err := keys()
		key, found := all[name]
		return key, found, err
	}
	// What cannot be read is a fault, see CheckFiles.
	_ = auth.EachRevocation(string(c.Revoked), func(line int, r *auth.Revocation) {
		if len(f) >= maxRevokedWarnings {
			return
		}
		if problem, cure := c.missesAll(r, find); problem != "" {
			f.Add("revoked", fmt.Sprintf("%s:%d", c.Revoked, line), "revokes nobody: "+problem, cure)
		}
	})
	return c.Place(f)
}

// MissesAll says why a revocation matches no credential of the configuration, and what would do;
// problem is "" if it may match one. It knows no tokens, users and certificates.
func (c *Config) MissesAll(r *auth.Revocation) (problem, cure string) {
	return c.missesAll(r, func(name string) (auth.APIKeyConfig, bool, error) { return auth.FindAPIKey(string(c.APIKeyFile), name) })
}

// findAPIKey looks for a key by its name in the file of keys.
type findAPIKey func(name string) (auth.APIKeyConfig, bool, error)

func (c *Config) missesAll(r *auth.Revocation, find findAPIKey) (problem, cure string) {
	issuer, isIssuer := strings.CutPrefix(r.Source, "issuer/")
	switch source, _, _ := strings.Cut(r.ID, ":"); {
	case r.Kind == auth.RevokedPrincipal && source != "cert":
		problem, _ = c.badQualified(r.ID)
		return problem, cureRevoked
	case isIssuer:
		if _, known := c.Issuers[issuer]; !known {
			return "there is no issuer " + strconv.Quote(issuer), cureRevoked
		}
	case r.Kind == auth.RevokedKey:
		if _, known := c.SigningKeys[r.ID]; !known {
			return "there is no signing key " + strconv.Quote(r.ID), cureRevoked
		}
	case r.Kind == auth.RevokedAPIKey:
		return c.noAPIKey(r.ID, find)
	}
	return "", ""
}

// noAPIKey says why there is no API key with this id, which is a name or the id of a secret.
func (c *Config) noAPIKey(id string, find findAPIKey) (problem, cure string) {
	name, _, ofSecret := strings.Cut(id, ":")
	key, found := c.APIKeys[name]
	if !found && c.APIKeyFile != "" {
		var err error
		if key, found, err = find(name); err != nil {
			return "", "" // the file is a fault
		}
	}
	if !found {
		return "there is no API key " + strconv.Quote(name), cureRevoked
	}
	var ids []string
	for i := range key.Hash {
		ids = append(ids, key.SecretID(name, i))
	}
	if ofSecret && !slices.Contains(ids, id) {
		return "API key " + name + " has no such secret", "there are: " + strings.Join(ids, ", ")
	}
	return "", ""
}
