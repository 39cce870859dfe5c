package registry_test

import (
	"context"
	"testing"

	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/registrytest"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/registry"
)

func TestImmutableTags(t *testing.T) {
	st := newStore(t)
	desc := keep(t, st, randomImage(t, 1000, 1), true)
	for message, want := range map[string]bool{
		"The image tag '1' already exists in the 'app' repository and cannot be overwritten because the tag is immutable.": true,
		"The repository has enabled tag immutability and the tag exists":                                                   true,
		"the tag name is invalid": false,
	} {
		front := registrytest.StartProxy(t, registrytest.Start(t, registrytest.Options{}).URL, nil,
			fault{Method: "PUT", Path: manifests, Status: 400, Body: `{"errors":[{"code":"TAG_INVALID","message":"` + message + `"}]}`})
		c := newClient(t, registry.Config{})
		err := c.Push(context.Background(), st, desc, front.Addr+"/out:1", func(int64, int64) {})
		if err == nil || registry.IsImmutable(err) != want {
			t.Errorf("%q: %v, immutable %t, want %t", message, err, !want, want)
		}
	}
	if registry.IsImmutable(nil) {
		t.Error("no error is immutable")
	}
}
