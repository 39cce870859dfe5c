package main

import (
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"

	"github.com/kbuild-sandbox/kbuild-sandbox/cmd/mask"
)

type oneLogin authn.AuthConfig

func (l oneLogin) Resolve(authn.Resource) (authn.Authenticator, error) {
	return authn.FromConfig(authn.AuthConfig(l)), nil
}

func TestMaskedKeychain(t *testing.T) {
	values := mask.New()
	k := maskedKeychain{oneLogin{Username: "me-myself", Password: "hunter2", IdentityToken: "identity", RegistryToken: "bearer"}, values}
	const text = "me-myself hunter2 identity bearer"
	if got := values.Text(text); got != text {
		t.Errorf("before anything is handed out: %q", got)
	}
	a, err := k.Resolve(nil)
	if err != nil {
		t.Fatal(err)
	}
	if c, err := a.Authorization(); err != nil || c.Password != "hunter2" {
		t.Errorf("the credential is %+v, %v", c, err)
	}
	if got := values.Text(text); got != "me-myself *** *** ***" {
		t.Errorf("afterwards: %q", got)
	}
}
