package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/flat"
	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/rig"
)

// commands are the scripts' own commands. IMAGE is a reference in a registry,
// layout:DIR, or tar:FILE, for an image of an index with %platform after it.
//
//	build ARGS...           kbuild-sandbox build with the registry's host as insecure and plain progress;
//	                        placeholders like $REGISTRY in the Dockerfile named by -f (or ./Dockerfile)
//	                        are expanded; fails if $TMPDIR is not empty afterwards
//	try ARGS...             the same, with status 0 or 1
//	pod LAYOUT CONTEXT ...  runs the product's image as a pod in gVisor
//	status N                the last build ended with this status
//	config IMAGE EXPR       jq's answer about the config file
//	manifest IMAGE EXPR     jq's answer about the manifest
//	top IMAGE EXPR          jq's answer about what IMAGE names, also an index
//	tree IMAGE [BASE]       the flattened image, or what differs from BASE, a path a line, and `N changed, M removed`
//	layers IMAGE            the entries of every layer, "N type mode uid:gid path"
//	validate IMAGE          go-containerregistry's validate
//	absent REF              the registry does not have it
//	unpack IMAGE DIR        umoci's unpacking of it, rootfs in DIR/rootfs
//	same-as-buildah ARGS... builds with us and with buildah and compares the trees, and ours with what umoci unpacks
//	index REF IMAGE...      pushes an index of images, each for its own platform
//	serve NAME DIR [HEADER] serves DIR by HTTP, bare repositories NAME.git in it by git's protocol; $NAME its
//	                        127.0.0.1:port, $PORT_NAME the port; asks for an Authorization header
//	special KIND NAME [N]   a fifo, or N sparse or random bytes
//	agent start|client NAME an ssh-agent: $NAME its socket; a static program that tries one
//	expand FILE...          replaces $NAME of the script's environment in files
//	registry NAME OPT...    starts a registry of its own: $NAME its host; auth tls readonly
//	proxy NAME TARGET OPT.. starts a front that fails; see proxyCommand
func commands() map[string]func(*testscript.TestScript, bool, []string) {
	return map[string]func(*testscript.TestScript, bool, []string){
		"build":           buildCommand,
		"try":             tryCommand,
		"pod":             podCommand,
		"status":          statusCommand,
		"config":          jqCommand(v1.Image.RawConfigFile),
		"manifest":        jqCommand(v1.Image.RawManifest),
		"top":             topCommand,
		"tree":            treeCommand,
		"layers":          layersCommand,
		"validate":        validateCommand,
		"absent":          absentCommand,
		"unpack":          unpackCommand,
		"same-as-buildah": sameAsBuildah,
		"expand":          expandCommand,
		"registry":        registryCommand,
		"proxy":           proxyCommand,
		"special":         specialCommand,
		"index":           indexCommand,
		"serve":           serveCommand,
		"agent":           agentCommand,
	}
}

func buildCommand(ts *testscript.TestScript, neg bool, args []string) {
	if status := build(ts, args); (status != 0) != neg {
		ts.Fatalf("build ended with status %d", status)
	}
}

func tryCommand(ts *testscript.TestScript, neg bool, args []string) {
	if status := build(ts, args); status > 1 || neg {
		ts.Fatalf("build ended with status %d", status)
	}
}

// build runs a build to its status.
func build(ts *testscript.TestScript, args []string) int {
	file := "Dockerfile"
	for i, a := range args {
		if (a == "-f" || a == "--dockerfile") && i+1 < len(args) {
			file = args[i+1]
		}
	}
	if _, err := os.Stat(ts.MkAbs(file)); err == nil {
		expand(ts, file)
	}
	args = append([]string{"build", "--insecure-registry", ts.Getenv("REGISTRY")}, args...)
	if !slices.ContainsFunc(args, func(a string) bool { return strings.HasPrefix(a, "--progress") }) {
		args = append(args, "--progress", "plain")
	}
	err := ts.Exec("kbuild-sandbox", args...)
	status := 0
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		status = exit.ExitCode()
	case err != nil:
		ts.Fatalf("build: %v", err)
	}
	ts.Setenv("STATUS", strconv.Itoa(status))
	if left := rig.Files(ts.Getenv("TMPDIR")); len(left) > 0 {
		ts.Fatalf("left behind in $TMPDIR: %q", left)
	}
	return status
}

func statusCommand(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 || neg {
		ts.Fatalf("usage: status N")
	}
	if got := ts.Getenv("STATUS"); got != args[0] {
		ts.Fatalf("the build ended with status %s, not %s", got, args[0])
	}
}

// expand replaces $NAME in a file by the script's environment, for names that
// the driver or a command of it has set.
func expand(ts *testscript.TestScript, file string) {
	pairs := []string{}
	for _, name := range strings.Fields(ts.Getenv("EXPAND") + " REGISTRY BUSYBOX DEBIAN") {
		pairs = append(pairs, "$"+name, ts.Getenv(name))
	}
	text := strings.NewReplacer(pairs...).Replace(ts.ReadFile(file))
	ts.Check(os.WriteFile(ts.MkAbs(file), []byte(text), 0o644))
}

func expandCommand(ts *testscript.TestScript, _ bool, args []string) {
	for _, f := range args {
		expand(ts, f)
	}
}

// jqCommand runs jq over a part of an image.
func jqCommand(part func(v1.Image) ([]byte, error)) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		if len(args) != 2 || neg {
			ts.Fatalf("usage: config|manifest IMAGE EXPR")
		}
		raw, err := part(open(ts, args[0]))
		ts.Check(err)
		jq(ts, raw, args[1])
	}
}

func jq(ts *testscript.TestScript, raw []byte, expr string) {
	file := filepath.Join(ts.Getenv("SIDE"), "part.json")
	ts.Check(os.WriteFile(file, raw, 0o644))
	ts.Check(ts.Exec("jq", "-cr", expr, file))
}

func treeCommand(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 1 || len(args) > 2 || neg {
		ts.Fatalf("usage: tree IMAGE [BASE]")
	}
	entries := flatten(ts, args[0]).Entries(flat.Options{})
	base := map[string]flat.Entry{}
	if len(args) == 2 {
		base = flatten(ts, args[1]).Entries(flat.Options{})
	}
	changed, removed := flat.Diff(base, entries)
	for _, e := range changed {
		fmt.Fprintln(ts.Stdout(), e)
	}
	for _, p := range removed {
		fmt.Fprintln(ts.Stdout(), p, "removed")
	}
	fmt.Fprintf(ts.Stdout(), "%d changed, %d removed\n", len(changed), len(removed))
}

func flatten(ts *testscript.TestScript, ref string) *flat.Tree {
	img, err := flat.Read(open(ts, ref))
	ts.Check(err)
	return img.Tree
}

func layersCommand(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 || neg {
		ts.Fatalf("usage: layers IMAGE")
	}
	layers, err := open(ts, args[0]).Layers()
	ts.Check(err)
	for i, l := range layers {
		ts.Check(flat.List(l, func(line string) { fmt.Fprintln(ts.Stdout(), i+1, line) }))
	}
}

func validateCommand(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 || neg {
		ts.Fatalf("usage: validate IMAGE")
	}
	top, err := find(ts, args[0])
	ts.Check(err)
	if idx, ok := top.(v1.ImageIndex); ok {
		ts.Check(validate.Index(idx))
		return
	}
	ts.Check(validate.Image(open(ts, args[0])))
}

// specialCommand makes files that a txtar archive cannot hold:
// fifo NAME | sparse NAME SIZE | random NAME SIZE.
func specialCommand(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 || neg {
		ts.Fatalf("usage: special fifo|sparse|random NAME [SIZE]")
	}
	name := ts.MkAbs(args[1])
	switch args[0] {
	case "fifo":
		ts.Check(ts.Exec("mkfifo", name))
	case "sparse":
		size, err := strconv.ParseInt(args[2], 10, 64)
		ts.Check(err)
		f, err := os.Create(name)
		ts.Check(err)
		ts.Check(f.Truncate(size))
		ts.Check(f.Close())
	case "random":
		ts.Check(ts.Exec("sh", "-c", "head -c "+args[2]+" /dev/urandom > "+name))
	default:
		ts.Fatalf("special: no %s", args[0])
	}
}
