package registry

import (
	"context"
	"time"
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
