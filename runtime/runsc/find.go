package runsc

import (
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// Name is the file name of gVisor's program.
const Name = "runsc"

// MinDate is the day of the oldest gVisor that will do, YYYYMMDD: openat2, on
// which the executor's path safety rests, is there since September 2026
// (rule R14).
const MinDate = "20260901"

// gvisorModule is where a runsc that was built with the go command comes from.
const gvisorModule = "gvisor.dev/gvisor"

// versionTimeout bounds `runsc --version`.
const versionTimeout = 20 * time.Second

// Runsc is a program file that was found and is new enough.
type Runsc struct {
	Path    string // absolute
	Version Version
}

// Version is what a runsc says of itself.
type Version struct {
	Text string // as the program or its build information has it
	Date string // YYYYMMDD of the sources; empty: unknown
}

// Error says why there is no usable runsc, and what to do about it.
type Error struct {
	Msg  string
	Hint string
}

func (e *Error) Error() string { return e.Msg }

// Find returns the runsc to use: the explicit path if there is one, else the
// one in directory beside (where the launcher's own file is), else the one in
// PATH. The error is an *Error if none is usable.
func Find(ctx context.Context, explicit, beside string) (*Runsc, error) {
	path, err := locate(explicit, beside)
	if err != nil {
		return nil, err
	}
	v, err := readVersion(ctx, path)
	if err != nil {
		return nil, &Error{
			Msg:  fmt.Sprintf("%s does not say which gVisor it is: %v", path, err),
			Hint: "name a working runsc with --runsc",
		}
	}
	if v.Date < MinDate {
		return nil, tooOld(path, v)
	}
	return &Runsc{Path: path, Version: v}, nil
}

func tooOld(path string, v Version) *Error {
	what := "of " + v.Date
	if v.Date == "" {
		what = "of unknown age"
	}
	return &Error{
		Msg:  fmt.Sprintf("%s is gVisor %s, %s; %s or newer is needed", path, v.Text, what, MinDate),
		Hint: "install a current gVisor release, or name one with --runsc",
	}
}

func locate(explicit, beside string) (string, error) {
	if explicit != "" {
		return program(explicit)
	}
	if beside != "" {
		path, err := program(filepath.Join(beside, Name))
		if err == nil {
			return path, nil
		}
		// A file that is there but cannot run is a fault to tell, not a reason
		// to take another one silently.
		if _, statErr := os.Stat(filepath.Join(beside, Name)); !errors.Is(statErr, fs.ErrNotExist) {
			return "", err
		}
	}
	path, err := exec.LookPath(Name)
	if err != nil {
		where := "in PATH"
		if beside != "" {
			where = fmt.Sprintf("in %s or in PATH", beside)
		}
		return "", &Error{
			Msg:  "gVisor's runsc was not found " + where,
			Hint: "put runsc beside kbuild-sandbox, or name it with --runsc",
		}
	}
	return program(path)
}

// program makes path absolute and checks that it can be started.
func program(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("path of runsc: %w", err)
	}
	if _, err := exec.LookPath(abs); err != nil {
		return "", &Error{
			Msg:  fmt.Sprintf("runsc cannot be started: %v", err),
			Hint: "put runsc beside kbuild-sandbox, or name it with --runsc",
		}
	}
	return abs, nil
}

// readVersion takes the version from the file's build information where gVisor
// was built with the go command (1 ms), else from the program itself: releases
// are built with another tool, but always stamped.
func readVersion(ctx context.Context, path string) (Version, error) {
	if info, err := buildinfo.ReadFile(path); err == nil {
		if v := moduleVersion(info); v.Date != "" {
			return v, nil
		}
	}
	ctx, cancel := context.WithTimeout(ctx, versionTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "--version")
	cmd.Env = []string{}
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	if err != nil {
		return Version{}, fmt.Errorf("run --version: %w", err)
	}
	return parseVersion(string(out))
}

func moduleVersion(info *buildinfo.BuildInfo) Version {
	if info.Main.Path == gvisorModule {
		return Version{Text: info.Main.Version, Date: dateOf(info.Main.Version)}
	}
	for _, d := range info.Deps {
		if d.Path == gvisorModule {
			return Version{Text: d.Version, Date: dateOf(d.Version)}
		}
	}
	return Version{}
}

// parseVersion reads the output of `runsc --version`, whose first line is
// "runsc version release-20260914.0" or the like.
func parseVersion(out string) (Version, error) {
	line, _, _ := strings.Cut(out, "\n")
	text, ok := strings.CutPrefix(line, "runsc version ")
	if !ok || text == "" {
		return Version{}, fmt.Errorf("unexpected output %.80q", line)
	}
	return Version{Text: text, Date: dateOf(text)}, nil
}

// dateOf finds the day in a release's name (release-20260914.0, also with a
// commit behind it) or in a module's pseudo-version
// (v0.0.0-20260905035102-160fafc42237).
func dateOf(version string) string {
	m := regexp.MustCompile(`-(20[0-9]{6})(?:[0-9]{6})?(?:[.-]|$)`).FindStringSubmatch(version)
	if m == nil {
		return ""
	}
	return m[1]
}
