package main

import (
	"fmt"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// pour hands out so many MiB without having announced them.
func (g *guest) pour() {
	g.hello()
	check(g.w.WriteJSON(request.FrameOutput, request.Output{Kind: request.OutputStored}))
	var n int
	fmt.Sscan(g.arg[1], &n)
	chunk := make([]byte, 1<<18)
	for range n * 4 {
		check(g.w.WriteChunk(0, chunk))
	}
	check(g.w.WriteJSON(request.FrameEnd, request.OutputEnd{}))
	g.done(nil)
}
