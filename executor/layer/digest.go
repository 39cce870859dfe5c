package layer

import (
	"context"
	"crypto/sha256"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Digest returns the digest of the files in a directory with their names, owners
// and modes, whatever their times.
func Digest(ctx context.Context, dir string) (v1.Hash, error) {
	sum := sha256.New()
	epoch := time.Unix(0, 0)
	if _, err := writeTar(ctx, dir, sum, PackOptions{Root: true, ClampTo: &epoch}); err != nil {
		return v1.Hash{}, err
	}
	return sumHash(sum), nil
}
