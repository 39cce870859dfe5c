package main

import (
	"github.com/google/go-containerregistry/pkg/authn"

	"github.com/kbuild-sandbox/kbuild-sandbox/cmd/mask"
)

// maskedKeychain has every credential masked that it hands out.
type maskedKeychain struct {
	authn.Keychain
	values *mask.Values
}

// Resolve implements authn.Keychain.
func (k maskedKeychain) Resolve(from authn.Resource) (authn.Authenticator, error) {
	a, err := k.Keychain.Resolve(from)
	if err != nil {
		return nil, err
	}
	given, err := a.Authorization()
	if err != nil {
		return nil, err
	}
	for _, value := range []string{given.Password, given.Auth, given.IdentityToken, given.RegistryToken} {
		_ = k.values.Add([]byte(value)) // one that is too short cannot be masked
	}
	return a, nil
}
