package registry

import (
	"context"
	"net"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Hurry makes a client wait for nothing between tries.
func Hurry(c *Client) {
	c.pause = func(ctx context.Context, _ time.Duration) error { return ctx.Err() }
}

// Delays makes a client note how long it would wait between tries.
func Delays(c *Client, to *[]time.Duration) {
	c.pause = func(ctx context.Context, d time.Duration) error {
		*to = append(*to, d)
		return ctx.Err()
	}
}

// Explained is what becomes of err while something is pulled.
func Explained(err error) error {
	return (&session{}).explain("pull x", err)
}

// CheckHop judges a redirect.
var CheckHop = checkHop

// Hosts makes a client dial other addresses, as if names stood for them.
func Hosts(c *Client, names map[string]string) {
	c.net.dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if to, ok := names[addr]; ok {
			addr = to
		}
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	}
}

// Sum is the digest of b.
var Sum = sum

// ReadManifest reads a manifest as Resolve does.
func ReadManifest(raw []byte, header string, p v1.Platform) {
	mt, err := mediaType(raw, header)
	if err != nil {
		return
	}
	if mt.IsIndex() {
		choose(raw, p)
		return
	}
	if m, err := parseImage(raw); err == nil {
		parseConfig(raw, m)
	}
}

// Stall sets how long a transfer may stand still.
func Stall(c *Client, d time.Duration) { c.stall = d }
