package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// recordFile keeps the results; make bench runs at the top of the module.
const recordFile = "e2e/bench/RESULTS.md"

const recordHead = `# Results of make bench

Newest first. ` + "`make bench WRITE=1`" + ` adds a section. The machines are shared and
noisy: compare ratios within a section, not times between sections. The modes and
goals are told at the top of main.go.
`

// record puts a section before those that are there.
func record(file, section string) error {
	old, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	_, sections, _ := strings.Cut(string(old), "\n## ")
	if sections != "" {
		sections = "\n## " + sections
	}
	return os.WriteFile(file, []byte(recordHead+"\n"+strings.TrimSpace(section)+"\n"+sections), 0o644)
}

// heading names when, where and of what the results are. Of the machine it has
// what the figures depend on, and nothing that tells whose it is.
func (b *bench) heading(ctx context.Context, now time.Time) string {
	lines := []string{
		"## " + now.UTC().Format("2006-01-02 15:04"), "",
		fmt.Sprintf("- machine: %d cores of %s, %s, Linux %s", runtime.NumCPU(), field("/proc/cpuinfo", "model name"), memorySize(), kernel()),
		"- versions: " + strings.Join([]string{
			version(ctx, b.launcher(), "version"),
			version(ctx, filepath.Join(b.bin, "runsc"), "--version"),
			version(ctx, "buildah", "--version"),
		}, "; "),
		fmt.Sprintf("- medians of %d", b.runs), "",
	}
	return strings.Join(lines, "\n")
}

// version is the first line that a program says about itself.
func version(ctx context.Context, program string, args ...string) string {
	out, err := exec.CommandContext(ctx, program, args...).Output()
	if err != nil {
		return filepath.Base(program) + ": unknown"
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimSpace(line)
}

// field is the first value of a name in a file of /proc.
func field(file, name string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(text)) {
		k, v, _ := strings.Cut(line, ":")
		if strings.TrimSpace(k) == name {
			return strings.TrimSpace(v)
		}
	}
	return "unknown"
}

func memorySize() string {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return "unknown memory"
	}
	return fmt.Sprintf("%.1f GiB", float64(info.Totalram)*float64(info.Unit)/(1<<30))
}

func kernel() string {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return "unknown"
	}
	return string(bytes.TrimRight(name.Release[:], "\x00"))
}
