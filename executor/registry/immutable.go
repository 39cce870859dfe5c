package registry

import (
	"errors"
	"strings"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// immutable is what registries say about a tag that is there and that they keep
// from being changed: Google's Artifact Registry, and Amazon's ECR, as Kaniko
// knows them.
var immutable = [...]string{
	"The repository has enabled tag immutability",
	"cannot be overwritten because the tag is immutable",
}

// IsImmutable says whether a push failed because the tag is there already and
// cannot be changed.
func IsImmutable(err error) bool {
	var status *transport.Error
	if !errors.As(err, &status) {
		return false
	}
	for _, d := range status.Errors {
		for _, text := range immutable {
			if strings.Contains(d.Message, text) {
				return true
			}
		}
	}
	return false
}
