package gateway

import (
	"bytes"
	"crypto/sha256"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
)

// TestNarrow: connections beyond those with large buffers carry the same bytes,
// both ways at once, and a place for a large one becomes free again.
func TestNarrow(t *testing.T) {
	server := echoServer(t, "127.0.0.1:0")
	r := newRig(t, Config{Egress: allowing(t, server.String()), Limits: Limits{Wide: 1}})
	data := make([]byte, 20<<20)
	rand.NewChaCha8([32]byte{7}).Read(data)
	for range 2 {
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				c, err := r.dial(through(server))
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				wg.Go(func() {
					if _, err := c.Write(data); err != nil {
						t.Error(err)
					}
					if err := c.CloseWrite(); err != nil {
						t.Error(err)
					}
				})
				got, err := io.ReadAll(c)
				if err != nil || !bytes.Equal(got, data) {
					t.Errorf("%d bytes, sum %x, %v", len(got), sha256.Sum256(got), err)
				}
			})
		}
		wg.Wait()
	}
	r.end(t)
	if r.wide != 0 {
		t.Errorf("%d places for large buffers are taken", r.wide)
	}
}
