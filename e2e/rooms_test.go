package e2e

import (
	"fmt"
	"go/ast"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The five laws of the house. Each test prints the reason with what it found.

// TestLaw1 keeps the launcher small: it parses nothing that an attacker wrote.
func TestLaw1LauncherParsesNothing(t *testing.T) {
	rooms := listRooms(t)
	const reason = "the launcher runs on the host with the user's rights: what parses hostile input or speaks to registries lives inside gVisor"
	report(t, reason, lawLauncher(rooms))
}

// launcherBars are import paths, or with a trailing slash trees of them, that
// must not be anywhere in the launcher's graph.
var launcherBars = []string{
	"archive/tar", "net/http", "crypto/tls",
	"github.com/moby/buildkit/", "github.com/google/go-containerregistry/",
	module + "/executor/dockerfile", module + "/executor/plan", module + "/executor/registry",
	module + "/executor/layer", module + "/executor/buildcontext", module + "/executor",
}

func lawLauncher(rooms map[string]*room) []string {
	launcher := rooms["cmd/kbuild-sandbox"]
	if launcher == nil {
		return []string{"cmd/kbuild-sandbox is not there"}
	}
	var out []string
	for _, dep := range launcher.Deps {
		for _, bar := range launcherBars {
			if dep == bar || strings.HasSuffix(bar, "/") && strings.HasPrefix(dep, bar) {
				out = append(out, "cmd/kbuild-sandbox reaches "+dep+" through "+importers(rooms, launcher, dep))
			}
		}
	}
	return out
}

// importers names the launcher's rooms that import dep directly, else "a
// package outside the module".
func importers(rooms map[string]*room, launcher *room, dep string) string {
	var out []string
	for _, r := range rooms {
		if slices.Contains(r.Imports, dep) && (r == launcher || slices.Contains(launcher.Deps, r.ImportPath)) {
			out = append(out, r.name)
		}
	}
	if len(out) == 0 {
		return "a package outside the module"
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

// TestLaw2 keeps the arrows between the rooms as the architecture draws them.
func TestLaw2ArrowsBetweenRooms(t *testing.T) {
	const reason = "only executor/request crosses the wall, and every arrow between rooms is one that the architecture draws (add it to arrows only with a reason)"
	report(t, reason, lawArrows(listRooms(t)))
}

// arrows are the rooms that each room may import, beside executor/request. A
// trailing /* stands for all rooms below.
var arrows = map[string][]string{
	"cmd/kbuild-sandbox": {"cmd/flags", "cmd/mask", "cmd/progress", "cmd/secrets", "cmd/trace", "sandbox", "sandbox/gateway", "sandbox/provenance", "sandbox/sign", "policy", "runtime/runsc"},
	"cmd/executor":       {"cmd/flags", "cmd/mask", "cmd/progress", "cmd/secrets", "cmd/trace", "executor", "executor/*", "policy", "policy/filter"},
	"cmd/flags":          {"cmd/progress", "cmd/secrets", "policy"},
	"cmd/mask":           {},
	"cmd/progress":       {"cmd/mask"},
	"cmd/secrets":        {"cmd/mask"},
	"cmd/trace":          {"cmd/progress"},
	"policy":             {},
	"policy/filter":      {"policy"},
	// The cache directory has one form and two sides; its room parses no layer. What a
	// copy takes has one digest and three who ask for it; that room reads no contents.
	"sandbox":               {"runtime/runsc", "policy", "sandbox/gateway", "sandbox/cgroup", "sandbox/layerdir", "sandbox/hashes", "executor/cachedir", "executor/take"},
	"sandbox/cgroup":        {},
	"sandbox/layerdir":      {"executor/whole"},
	"sandbox/hashes":        {"executor/whole"},
	"sandbox/provenance":    {"policy"},
	"sandbox/sign":          {},
	"sandbox/gateway":       {"policy"},
	"runtime/runsc":         {},
	"executor":              {"executor/*"},
	"executor/request":      {},
	"executor/store":        {},
	"executor/buildcontext": {"executor/take"},
	// Its way to the network is buildcontext's.
	"executor/buildcontext/git": {"executor/buildcontext"},
	"executor/dockerfile":       {},
	"executor/plan":             {"executor/dockerfile"},
	"executor/rootfs":           {},
	"executor/beneath":          {},
	"executor/take":             {"executor/beneath"},
	"executor/posture":          {},
	"executor/step":             {"executor/dockerfile", "executor/plan", "executor/rootfs", "executor/layer", "executor/buildcontext", "executor/take", "executor/beneath", "policy", "policy/filter"},
	"executor/layer":            {"executor/store", "executor/erofs"},
	"executor/erofs":            {},
	"executor/cachedir":         {"executor/whole"},
	"executor/whole":            {},
	"executor/cache":            {"executor/registry"},
	"executor/registry":         {"executor/store"},
}

func lawArrows(rooms map[string]*room) []string {
	var out []string
	for name, r := range rooms {
		allowed, known := arrows[name]
		if !known {
			out = append(out, name+" is a room that the architecture does not have")
			continue
		}
		for _, imp := range r.Imports {
			to, inside := strings.CutPrefix(imp, module+"/")
			if !inside {
				if name == "executor/request" && strings.Contains(imp, ".") {
					out = append(out, "executor/request imports "+imp+": types only, standard library only")
				}
				continue
			}
			if to != "executor/request" && !allows(allowed, to) {
				out = append(out, name+" imports "+to)
			}
		}
	}
	return out
}

func allows(list []string, to string) bool {
	for _, a := range list {
		if tree, ok := strings.CutSuffix(a, "*"); a == to || ok && strings.HasPrefix(to, tree) {
			return true
		}
	}
	return false
}

// TestLaw3 keeps each power in one room.
func TestLaw3OnePowerOneRoom(t *testing.T) {
	const reason = "only rootfs and the RUN child mount, only registry and buildcontext dial, only step executes, only cmd prints"
	report(t, reason, lawPowers(listRooms(t)))
}

// A power is something that few rooms may do. Names are import path + "." + name.
type power struct {
	what  string
	names []string
	// where are rooms, or files as room/file*.go, that may.
	where []string
}

const sysUnix, system = "golang.org/x/sys/unix.", "syscall."

var powers = []power{
	{"mounts",
		[]string{sysUnix + "Mount", sysUnix + "Fsmount", sysUnix + "Fsopen", sysUnix + "MoveMount", sysUnix + "OpenTree", sysUnix + "MountSetattr",
			sysUnix + "PivotRoot", sysUnix + "Chroot", sysUnix + "Unmount", system + "Mount", system + "Unmount", system + "PivotRoot", system + "Chroot"},
		// The launcher's workdir.go detaches mounts of a launcher that died.
		[]string{"executor/rootfs", "executor/step/child*.go", "sandbox/workdir.go"}},
	{"dials",
		[]string{"net.Dial", "net.DialTimeout", "net.Dialer", "net.Listen", "net/http.Get", "net/http.Client", "net/http.DefaultClient",
			"net/http.DefaultTransport", "net/http.Transport", "crypto/tls.Dial"},
		// On the host: an SSH agent's Unix socket.
		[]string{"executor/registry", "executor/buildcontext", "sandbox/gateway", "cmd/secrets/agent.go"}},
	{"serves or calls a Unix socket",
		[]string{"net.DialUnix", "net.ListenUnix", "net.ListenUnixgram", "net.FileConn", "net.FileListener", "net.ListenConfig"},
		// The SSH agent that a RUN step is lent; on the host, the first stage's
		// socket pair, and a ping socket.
		[]string{"executor/step/run_agent.go", "sandbox/gateway"}},
	{"executes",
		[]string{"os/exec.Command", "os/exec.CommandContext", "os/exec.Cmd", "os.StartProcess", system + "Exec", sysUnix + "Exec", system + "ForkExec"},
		// On the host: the launcher starts runsc and the credential helpers.
		[]string{"executor/step", "runtime/runsc", "sandbox", "cmd"}},
	{"prints",
		[]string{"fmt.Print", "fmt.Println", "fmt.Printf", "log.Print", "log.Println", "log.Printf", "log.Fatal", "log.Fatalf",
			"log/slog.Info", "log/slog.Warn", "log/slog.Error", "log/slog.Debug", "os.Stdout", "os.Stderr"},
		[]string{"cmd"}},
}

func lawPowers(rooms map[string]*room) []string {
	var out []string
	for name, r := range rooms {
		for _, f := range r.files {
			for _, use := range f.uses() {
				for _, p := range powers {
					if slices.Contains(p.names, use.name) && !mayUse(p, name, f.base) {
						out = append(out, fmt.Sprintf("%s %s: %s", f.at(use.node), p.what, use.name))
					}
				}
			}
		}
	}
	return out
}

func mayUse(p power, room, file string) bool {
	for _, w := range p.where {
		if room == w || strings.HasPrefix(room, w+"/") {
			return true
		}
		if ok, _ := filepath.Match(w, room+"/"+file); ok {
			return true
		}
	}
	return false
}

// TestLaw4 keeps functions free of hidden state.
func TestLaw4NoHiddenState(t *testing.T) {
	const reason = "no mutable package state, no init, no environment read below cmd/; context first; interfaces of one to three methods: what a function does must follow from its arguments"
	report(t, reason, lawState(listRooms(t)))
}

func lawState(rooms map[string]*room) []string {
	var out []string
	for name, r := range rooms {
		inCmd := strings.HasPrefix(name, "cmd/")
		out = append(out, r.mutableState(inCmd)...)
		for _, f := range r.files {
			for _, use := range f.uses() {
				switch use.name {
				case "os.Getenv", "os.LookupEnv", "os.Environ", "os.ExpandEnv":
					if !inCmd {
						out = append(out, f.at(use.node)+": "+use.name)
					}
				}
			}
			for n := range ast.Preorder(f.syntax) {
				out = append(out, f.shape(n)...)
			}
		}
	}
	return out
}

// TestLaw5 keeps rooms named by what they do, and explained.
func TestLaw5RoomsAreNamedAndExplained(t *testing.T) {
	const reason = "a room does one verb and its doc.go says what it does, what it may touch and what it must not"
	report(t, reason, lawNames(listRooms(t)))
}

func lawNames(rooms map[string]*room) []string {
	var out []string
	for name, r := range rooms {
		switch base := name[strings.LastIndex(name, "/")+1:]; base {
		case "util", "utils", "common", "helper", "helpers", "types", "misc", "lib":
			out = append(out, name+": the name says nothing")
		}
		if r.Name != "main" && !slices.Contains(r.GoFiles, "doc.go") {
			out = append(out, name+" has no doc.go")
			continue
		}
		var doc string
		for _, f := range r.files {
			doc += f.syntax.Doc.Text()
		}
		const least = 150 // characters: less cannot say all three
		if r.Name != "main" && len(doc) < least {
			out = append(out, fmt.Sprintf("%s: its package comment has %d characters", name, len(doc)))
		}
	}
	return out
}

// TestFilesStaySmall keeps files readable at one go.
func TestFilesStaySmall(t *testing.T) {
	const most = 500 // lines
	var out []string
	for _, r := range listRooms(t) {
		for _, name := range append(slices.Clone(r.GoFiles), r.TestGoFiles...) {
			b, err := os.ReadFile(filepath.Join(r.Dir, name))
			if err != nil {
				t.Fatal(err)
			}
			if n := strings.Count(string(b), "\n"); n >= most {
				out = append(out, fmt.Sprintf("%s/%s has %d lines", r.name, name, n))
			}
		}
	}
	report(t, "a file has fewer than 500 lines", out)
}

// TestFunctionsFitAScreen keeps functions readable without scrolling.
func TestFunctionsFitAScreen(t *testing.T) {
	const lines, params = 60, 5
	var out []string
	for _, r := range listRooms(t) {
		for _, f := range r.files {
			for _, d := range f.syntax.Decls {
				fn, ok := d.(*ast.FuncDecl)
				if !ok {
					continue
				}
				if n := f.fset.Position(fn.End()).Line - f.fset.Position(fn.Pos()).Line + 1; n > lines {
					out = append(out, fmt.Sprintf("%s: %s has %d lines", f.at(fn), fn.Name.Name, n))
				}
				if n := fn.Type.Params.NumFields(); n > params {
					out = append(out, fmt.Sprintf("%s: %s has %d parameters", f.at(fn), fn.Name.Name, n))
				}
			}
		}
	}
	report(t, "a function fits a screen: 60 lines, 5 parameters", out)
}

func report(t *testing.T, reason string, found []string) {
	t.Helper()
	slices.Sort(found)
	for _, f := range slices.Compact(found) {
		t.Errorf("%s\n\tlaw: %s", f, reason)
	}
}
