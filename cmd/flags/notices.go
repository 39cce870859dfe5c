package flags

import (
	"fmt"

	"github.com/spf13/pflag"
)

// needless is a flag that changes nothing about the image here. It is taken,
// because command lines have it, and a warning says what happens instead.
type needless struct {
	name string
	// alone says that the flag may stand without a value, so that it does not
	// take the next word.
	alone bool
	// silent is the value that says what is done anyway: no warning then.
	silent string
	says   string
}

const (
	streamed   = "cached layers are those of the image, and none stands in memory"
	needsCache = "nothing is cached without --cache"
	ownFiles   = "a build never touches the files around it"
	noScan     = "what a step changed is known, nothing is scanned"
	ownLayers  = "the image gets a layer for each step that changes a file"
	noDaemon   = "there is no daemon: this machine builds"
)

// needlessFlags are Kaniko's, then docker's.
func needlessFlags() []needless {
	return []needless{
		{"cleanup", true, "false", ownFiles},
		{"compressed-caching", true, "true", streamed},
		{"force", true, "false", "a build brings its own sandbox"},
		{"force-build-metadata", true, "false", "instructions that change no file make no layer"},
		{"ignore-path", false, "", "nothing is left out: what a step leaves there is in the image"},
		{"ignore-var-run", true, "false", "/var/run is a directory like others: what a step leaves there is in the image"},
		{"kaniko-dir", false, "", "the build's own files do not lie among those of a step; --work-dir says where they lie"},
		{"materialize", true, "false", "files are made where a step needs them"},
		{"pre-cleanup", true, "false", ownFiles},
		{"preserve-context", true, "false", ownFiles},
		{"single-snapshot", true, "false", ownLayers},
		{"skip-unused-stages", true, "true", "stages that the target does not need are never built"},
		{"snapshot-mode", false, "", noScan},
		{"snapshotMode", false, "", noScan},
		{"use-new-run", true, "false", noScan},
		{"whitelist-var-run", true, "false", "/var/run is a directory like others: what a step leaves there is in the image"},

		{"builder", false, "", noDaemon},
		{"compress", true, "false", noDaemon},
		{"force-rm", true, "true", "a step leaves nothing behind"},
		{"layers", true, "true", ownLayers},
		{"rm", true, "true", "a step leaves nothing behind"},
	}
}

// notice is a needless flag that was given.
type notice struct{ name, text string }

// registerNotices adds the needless flags that fs does not have, hidden.
func registerNotices(fs *pflag.FlagSet, given *[]notice) {
	for _, n := range needlessFlags() {
		if fs.Lookup(n.name) != nil {
			continue
		}
		f := fs.VarPF(needlessValue{n, given}, n.name, "", n.says)
		f.Hidden = true
		if n.alone {
			f.NoOptDefVal = "true"
		}
	}
}

// needlessValue takes any value and remembers that the flag was given.
type needlessValue struct {
	flag  needless
	given *[]notice
}

func (v needlessValue) String() string { return "" }

func (v needlessValue) Set(s string) error {
	if v.flag.silent == "" || s != v.flag.silent {
		*v.given = append(*v.given, notice{v.flag.name, v.flag.says})
	}
	return nil
}

func (v needlessValue) Type() string { return "value" }

// Warnings are lines about flags that were taken and change nothing, each flag
// once, in the order of the command line.
func (b *Build) Warnings() []string {
	var lines []string
	seen := map[string]bool{}
	for _, n := range b.compat.ignored {
		if !seen[n.name] {
			seen[n.name] = true
			lines = append(lines, fmt.Sprintf("--%s has no effect: %s", n.name, n.text))
		}
	}
	return lines
}

var _ pflag.Value = needlessValue{}
