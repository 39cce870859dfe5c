// Command guest stands for the executor in the tests of package sandbox. What
// it does is the first line of the Dockerfile.
package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	walls "github.com/kbuild-sandbox/kbuild-sandbox/executor/posture"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

type guest struct {
	f   *os.File
	w   *request.Writer
	r   *request.Reader
	req request.Build
	arg []string

	start request.Go
	image request.Pushing // of push
}

// act is what a role does: the first line that begins with @ and its name, else,
// for build, the first line.
func act(role request.Role, dockerfile string) []string {
	for _, line := range strings.Split(dockerfile, "\n") {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		if words[0] == "@"+string(role) && len(words) > 1 {
			return words[1:]
		}
		if role == request.RoleBuild && !strings.HasPrefix(words[0], "@") {
			return words
		}
	}
	return []string{"quiet"}
}

func main() {
	if os.Getenv("MUTE") != "" { // a child, see children
		time.Sleep(time.Hour)
	}
	f := os.NewFile(3, "channel")
	defer runtime.KeepAlive(f) // the collector would close it while an act only waits
	g := &guest{f: f, w: request.NewWriter(f), r: request.NewReader(f)}
	b, err := os.ReadFile("/in/Dockerfile")
	raw, rerr := os.ReadFile("/in/request.json")
	check(rerr)
	check(json.Unmarshal(raw, &g.req))
	if g.req.Role == request.RolePush { // it has no Dockerfile
		b = []byte("@push " + strings.Join(g.req.Destinations[1:], " "))
		if err == nil {
			panic("push has the Dockerfile")
		}
	} else {
		check(err)
	}
	g.arg = act(g.req.Role, string(b))
	acts := map[string]func(){
		"ok": g.ok, "FROM": g.ok, "quiet": func() { g.hello(); g.done(nil) }, "tour": g.tour, "ask": g.ask, "layout": g.layout, "tar": g.tar,
		"hang": g.hang, "deaf": g.deaf, "silent": func() { os.Exit(0) }, "mute": func() { forever() },
		"panic": func() { g.hello(); panic("guest \x1b[31mpanics") }, "exit": func() { g.hello(); os.Exit(7) },
		"bad": g.bad, "fill": g.fill, "fail": g.fail, "liar": g.liar, "flood": g.flood, "early": func() { panic("at once") },
		"oldposture": g.oldPosture, "hold": g.hold, "rude": g.rude, "stillborn": g.stillborn, "cache": g.cache, "walk": g.walk,
		"tags": g.tags, "early2": g.nothing, "ready": g.ready, "forge": g.forge, "give": g.give, "find": g.find, "pushed": g.pushed, "claim": g.claim, "pour": g.pour,
	}
	do, ok := acts[g.arg[0]]
	if !ok {
		panic("unknown act " + g.arg[0])
	}
	do()
}

// forever waits where select{} would be a deadlock, which Go ends.
func forever() { time.Sleep(time.Hour) }

// walk reads the whole context.
func (g *guest) walk() {
	g.hello()
	start := time.Now()
	files, size := 0, 0
	check(filepath.WalkDir("/context", func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(p)
		files, size = files+1, size+len(b)
		return err
	}))
	g.say(fmt.Sprintf("%d files, %d bytes in %v", files, size, time.Since(start)))
	g.done(nil)
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func posture() request.Posture {
	p, err := walls.Measure()
	check(err)
	return p
}

func (g *guest) hello() {
	check(g.w.WriteJSON(request.FrameHello, posture()))
	kind, payload, err := g.r.Next()
	check(err)
	if kind != request.FrameGo {
		panic(fmt.Sprintf("%q instead of go", kind))
	}
	check(request.Decode(kind, payload, &g.start))
	if g.req.Role != request.RolePush {
		return
	}
	check(g.w.Write(request.FrameReady, nil))
	if slices.Contains([]string{"quiet", "ok", "find", "pushed"}, g.arg[0]) {
		kind, payload, err := g.r.Next()
		check(err)
		if kind != request.FramePush {
			panic(fmt.Sprintf("%q instead of push", kind))
		}
		check(request.Decode(kind, payload, &g.image))
	}
}

func (g *guest) say(text string) {
	check(g.w.WriteJSON(request.FrameEvent, request.Event{Time: time.Now(), Kind: request.EventInfo, Text: text}))
}

func (g *guest) done(f *request.Failure) {
	res := request.Result{Version: request.Version, Failure: f}
	if f == nil && g.req.Role == request.RoleBuild {
		image := []byte("image")
		g.output(request.Output{Kind: request.OutputStored, Stream: 9}, image)
		res.Digest, res.Size = digest(image), int64(len(image))
	}
	check(g.w.WriteJSON(request.FrameResult, res))
}

func (g *guest) ok() { g.hello(); g.say("here"); g.done(nil) }

func (g *guest) fail() {
	g.hello()
	g.done(&request.Failure{Class: request.ClassRun, Message: "no luck", ExitCode: 3})
}

// liar has no filter, by what it says.
func (g *guest) liar() {
	p := posture()
	p.Seccomp = 0
	check(g.w.WriteJSON(request.FrameHello, p))
	g.r.Next()
	g.say("unreachable")
}

func (g *guest) oldPosture() {
	p := posture()
	p.GVisor = false
	check(g.w.WriteJSON(request.FrameHello, p))
	g.r.Next()
	g.say("unreachable")
}

// rude does not say hello.
func (g *guest) rude() {
	if g.arg[1] == "event" {
		g.say("unreachable")
		forever()
	}
	check(g.w.WriteJSON(request.FrameResult, request.Result{Version: request.Version}))
}

// stillborn fails before it can say hello.
func (g *guest) stillborn() {
	g.done(&request.Failure{Class: request.ClassInternal, Message: "no request"})
}

// tour tells what it finds, one line an event.
func (g *guest) tour() {
	g.hello()
	note := func(what string, v any) { g.say(fmt.Sprintf("%s: %v", what, v)) }
	var st unix.Statfs_t
	check(unix.Statfs("/w", &st))
	note("workspace", uint64(st.Blocks)*uint64(st.Bsize))
	list := func(dir string) {
		es, err := os.ReadDir(dir)
		if err != nil {
			note("list "+dir, err)
			return
		}
		var names []string
		for _, e := range es {
			names = append(names, e.Name())
		}
		note("list "+dir, strings.Join(names, " "))
	}
	list("/")
	list("/w")
	list("/in")
	list("/context")
	list("/proc/self/fd")
	b, err := os.ReadFile("/context/secret")
	note("secret", fmt.Sprintf("%s %v", b, err))
	for _, p := range []string{"/x", "/context/x", "/in/x", "/kbuild-executor", "/etc/x"} {
		err := os.WriteFile(p, []byte("x"), 0o644)
		note("write "+p, err != nil)
	}
	check(os.MkdirAll("/w/l", 0o755))
	check(os.MkdirAll("/w/u", 0o755))
	check(os.MkdirAll("/w/m", 0o755))
	check(os.WriteFile("/w/l/f", []byte("x"), 0o4755))
	check(os.Chown("/w/l/f", 4711, 815))
	note("overlay", unix.Mount("overlay", "/w/m", "overlay", 0, "lowerdir=/w/l,upperdir=/w/u"))
	note("trusted xattr", unix.Setxattr("/w/u", "trusted.overlay.opaque", []byte("y"), 0))
	note("whiteout", unix.Mknod("/w/u/gone", unix.S_IFCHR, 0))
	var s unix.Stat_t
	check(unix.Stat("/w/m/f", &s))
	note("owner", fmt.Sprint(s.Uid, " ", s.Gid))
	for _, p := range []string{"/etc/resolv.conf", "/etc/hosts", "/etc/ssl/certs/ca-certificates.crt"} {
		_, err := os.ReadFile(p)
		note(p, err)
	}
	note("bpf", func() error { _, _, e := unix.Syscall(unix.SYS_BPF, 0, 0, 0); return e }())
	env := os.Environ()
	slices.Sort(env) // gVisor keeps no order
	note("env", strings.Join(env, " "))
	note("dns", strings.Join(g.req.Run.DNS, "|"))
	host, _ := os.Hostname()
	note("host", host)
	g.done(nil)
}

func (g *guest) ask() {
	g.hello()
	for i, host := range g.arg[1:] {
		check(g.w.WriteJSON(request.FrameAsk, request.Ask{ID: uint64(i + 1), Host: host, Repository: "a/b", Scope: request.Pull}))
	}
	for range g.arg[1:] {
		kind, p, err := g.r.Next()
		check(err)
		g.say(fmt.Sprintf("%c %s", kind, p))
	}
	g.done(nil)
}

func (g *guest) output(o request.Output, data []byte) {
	check(g.w.WriteJSON(request.FrameOutput, o))
	for len(data) > 0 {
		n := min(len(data), 300<<10)
		check(g.w.WriteChunk(o.Stream, data[:n]))
		data = data[n:]
	}
	check(g.w.WriteJSON(request.FrameEnd, request.OutputEnd{Stream: o.Stream}))
}

func digest(b []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(b)) }

func (g *guest) layout() {
	g.hello()
	big := bytes.Repeat([]byte("layer "), 1<<20)
	for _, b := range [][]byte{[]byte("config"), big, []byte("config")} {
		g.output(request.Output{Kind: request.OutputStored, Digest: digest(b), Size: int64(len(b))}, b)
		check(g.w.WriteJSON(request.FrameOutput, request.Output{Kind: request.OutputKeep, Digest: digest(b)}))
	}
	g.output(request.Output{Kind: request.OutputIndex}, []byte(`{"schemaVersion":2}`))
	g.end()
}

func (g *guest) tar() {
	g.hello()
	g.output(request.Output{Kind: request.OutputTar}, bytes.Repeat([]byte("t"), 1<<20))
	g.end()
}

// end ends as the second word says.
func (g *guest) end() {
	switch {
	case len(g.arg) < 2:
		g.done(nil)
	case g.arg[1] == "fail":
		g.done(&request.Failure{Class: request.ClassPush, Message: "refused"})
	case g.arg[1] == "exit":
		os.Exit(5)
	case g.arg[1] == "hang":
		g.say("waiting")
		forever()
	}
}

// hang obeys a cancel, unless it is deaf.
func (g *guest) hang() {
	g.hello()
	g.children()
	g.say("waiting")
	kind, _, err := g.r.Next()
	check(err)
	if kind == request.FrameCancel {
		g.done(&request.Failure{Class: request.ClassCanceled, Message: "as you wish"})
	}
}

func (g *guest) deaf() {
	g.hello()
	signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	g.children()
	g.say("waiting")
	for {
		runtime.Gosched()
	}
}

// children starts processes that would outlive a careless end.
func (g *guest) children() {
	check(os.WriteFile("/w/big", make([]byte, 32<<20), 0o644))
	for range 3 {
		_, err := os.StartProcess("/kbuild-executor", []string{"/kbuild-executor"}, &os.ProcAttr{
			Env: []string{"MUTE=1"}, Sys: &syscall.SysProcAttr{Setsid: true},
		})
		check(err)
	}
}

// bad breaks the protocol in the way that its argument says.
func (g *guest) bad() {
	g.hello()
	raw := func(kind byte, n uint32, p string) {
		h := append([]byte{kind}, binary.BigEndian.AppendUint32(nil, n)...)
		g.f.Write(append(h, p...))
	}
	blob := func(o request.Output, data string) {
		check(g.w.WriteJSON(request.FrameOutput, o))
		check(g.w.WriteChunk(o.Stream, []byte(data)))
		g.w.WriteJSON(request.FrameEnd, request.OutputEnd{Stream: o.Stream})
	}
	switch g.arg[1] {
	case "kind":
		raw('?', 0, "")
	case "length":
		raw('E', 1<<31, "")
	case "cut":
		raw('E', 100, "{")
		os.Exit(0)
	case "json":
		raw('E', 1, "{")
	case "event":
		raw('E', 18, `{"kind":"unheard"}`)
	case "answer":
		raw('A', 2, "{}")
	case "hello":
		raw('H', 2, "{}")
	case "ask":
		g.w.WriteJSON(request.FrameAsk, request.Ask{ID: 1, Host: "../x\n"})
	case "repo":
		g.w.WriteJSON(request.FrameAsk, request.Ask{ID: 1, Host: "x", Repository: "a b"})
	case "chunk":
		raw('C', 5, "\x00\x00\x00\x00x")
	case "end":
		raw('Z', 2, "{}")
	case "unasked":
		blob(request.Output{Kind: request.OutputTar}, "x")
	case "digest":
		blob(request.Output{Kind: request.OutputStored, Digest: digest([]byte("y")), Size: 1}, "x")
	case "traversal":
		blob(request.Output{Kind: request.OutputStored, Digest: "sha256:../../../../x", Size: 1}, "x")
	case "short":
		blob(request.Output{Kind: request.OutputStored, Digest: digest([]byte("x")), Size: 2}, "x")
	case "long":
		blob(request.Output{Kind: request.OutputStored, Digest: digest([]byte("xxx")), Size: 2}, "xxx")
	case "huge":
		blob(request.Output{Kind: request.OutputStored, Digest: digest([]byte("x")), Size: 1 << 60}, "x")
	case "index":
		blob(request.Output{Kind: request.OutputIndex}, "[")
	case "missing":
		g.done(nil)
	case "version":
		raw('R', 13, `{"version":9}`)
	case "result":
		text := fmt.Sprintf(`{"version":%d,"digest":"sha256:xx"}`, request.Version)
		raw('R', uint32(len(text)), text)
	}
	g.say("unreachable")
	forever()
}

// fill writes until the workspace is full.
func (g *guest) fill() {
	g.hello()
	f, err := os.Create("/w/big")
	check(err)
	buf := make([]byte, 1<<20)
	for n := 0; ; n++ {
		if _, err := f.Write(buf); err != nil {
			g.say(fmt.Sprintf("%d MiB: %v", n, err))
			break
		}
	}
	g.done(nil)
}

// hold writes so many MiB and waits.
func (g *guest) hold() {
	g.hello()
	f, err := os.Create("/w/big")
	check(err)
	var n int
	fmt.Sscan(g.arg[1], &n)
	for range n {
		_, err := f.Write(make([]byte, 1<<20))
		check(err)
	}
	g.say("waiting")
	forever()
}

// flood sends more than anybody reads.
func (g *guest) flood() {
	g.hello()
	check(g.w.WriteJSON(request.FrameEvent, request.Event{Kind: request.EventStart, Step: 1, Name: "flood"}))
	e := request.Event{Kind: request.EventLog, Step: 1, Stream: 1, Data: make([]byte, 500<<10)}
	for range 400 {
		check(g.w.WriteJSON(request.FrameEvent, e))
	}
	g.done(nil)
}
