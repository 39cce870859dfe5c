package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/rig"
)

// TestReadme runs the commands that README shows: every line of its sh blocks,
// against a registry of our own in place of registry.example.com. Of make test
// and what it consists of it only sees that make knows them.
func TestReadme(t *testing.T) {
	bin := binaries(t)
	commands := readmeCommands(t)
	if len(commands) < 6 {
		t.Fatalf("README has few commands: %q", commands)
	}
	registry, err := rig.StartRegistry(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer registry.Stop()
	dir := t.TempDir()
	put(t, filepath.Join(dir, "Dockerfile"), "FROM scratch\nCOPY Dockerfile /\n")
	config := t.TempDir()
	put(t, filepath.Join(config, "config.json"), "{}")
	for _, line := range commands {
		t.Run(line, func(t *testing.T) {
			cmd := exec.Command("sh", "-ec", strings.ReplaceAll(line, "registry.example.com", registry.Host))
			cmd.Dir = dir
			cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "DOCKER_CONFIG="+config)
			if !strings.HasPrefix(line, "make") { // Go's own cache lies there too
				cmd.Env = append(cmd.Env, "XDG_CACHE_HOME="+config)
			}
			switch name, rest, _ := strings.Cut(line, " "); {
			case line == "make demo":
				cmd.Dir = ".."
			case name == "make":
				cmd = exec.Command("make", append([]string{"-C", "..", "-n"}, strings.Fields(rest)...)...)
			case strings.HasPrefix(name, "bin/"):
				cmd.Dir = ".."
			}
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// readmeCommands are the lines of README's sh blocks, without their comments.
func readmeCommands(t *testing.T) []string {
	data, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	var commands []string
	in := false
	for line := range strings.Lines(string(data)) {
		switch line = strings.TrimSpace(line); {
		case strings.HasPrefix(line, "```"):
			in = line == "```sh"
		case in:
			command, _, _ := strings.Cut(line, " #")
			commands = append(commands, strings.TrimSpace(command))
		}
	}
	return commands
}
