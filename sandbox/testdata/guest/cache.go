package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// cache hands out layers of cache mounts, well or badly.
func (g *guest) cache() {
	g.hello()
	key := strings.Repeat("a", 64)
	o := func(name, base, data string) request.Output {
		return request.Output{Kind: request.OutputCache, Name: name, Base: base, Digest: digest([]byte(data)), Size: int64(len(data))}
	}
	large := strings.Repeat("l", 1<<20)
	switch g.arg[1] {
	case "keep":
		g.output(o(key, "", "whole"), []byte("whole"))
		g.output(o(strings.Repeat("b", 64), "", large), []byte(large))
		g.arg = g.arg[1:]
		g.end()
		return
	case "look":
		g.look(key)
	case "on":
		g.output(o(key, g.arg[2], "more"), []byte("more"))
	case "touch":
		g.output(request.Output{Kind: request.OutputCache, Name: key, Base: g.arg[2]}, nil)
	case "name":
		g.output(o("../../"+key[6:], "", "x"), []byte("x"))
	case "base":
		g.output(o(key, "../x", "x"), []byte("x"))
	case "digest":
		bad := o(key, "", "x")
		bad.Digest = digest([]byte("y"))
		g.output(bad, []byte("x"))
	case "nodigest":
		g.output(request.Output{Kind: request.OutputCache, Name: key, Size: 1}, []byte("x"))
	case "large":
		g.output(o(key, "", large+"x"), []byte(large+"x"))
	case "more":
		g.output(o(key, "", "x"), []byte("xy"))
	case "less":
		short := o(key, "", "x")
		short.Size = 2
		g.output(short, []byte("x"))
	case "touchbytes":
		g.output(request.Output{Kind: request.OutputCache, Name: key, Base: digest(nil)}, []byte("x"))
	case "many":
		for i := range 1001 {
			name := digest(fmt.Append(nil, i))[len("sha256:"):]
			g.output(request.Output{Kind: request.OutputCache, Name: name, Base: digest(nil)}, nil)
		}
	case "half":
		check(g.w.WriteJSON(request.FrameOutput, o(key, "", large)))
		check(g.w.WriteChunk(0, bytes.Repeat([]byte("l"), 1000)))
	}
	g.done(nil)
}

// look tells what the cache directory looks like from inside.
func (g *guest) look(key string) {
	g.say(fmt.Sprintf("caches %q, %d bytes", g.req.Caches, g.req.CacheSize))
	dir := filepath.Join(string(g.req.Caches), key)
	found, err := filepath.Glob(dir + "/*")
	check(err)
	for _, name := range found {
		b, err := os.ReadFile(name)
		check(err)
		g.say(fmt.Sprintf("%d bytes in %s", len(b), filepath.Base(name)))
	}
	g.say(fmt.Sprint("write: ", os.WriteFile(dir+"/x", nil, 0o600) != nil, os.Remove(dir+"/index.json") != nil))
}
