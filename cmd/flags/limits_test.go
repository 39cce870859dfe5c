package flags

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// parseMachine parses a command line of the launcher.
func parseMachine(t *testing.T, line string) (*Machine, request.Limits, error) {
	t.Helper()
	dir := tree(t, map[string]string{"Dockerfile": ""})
	fs := pflag.NewFlagSet("build", pflag.ContinueOnError)
	m := RegisterMachine(fs)
	b := Register(fs)
	if err := fs.Parse(strings.Fields("--no-push " + line)); err != nil {
		return m, request.Limits{}, ParseError(fs, err)
	}
	r, _, err := b.Request(From{Dir: dir, Context: ".", Env: func(string) (string, bool) { return "", false }})
	return m, r.Limits, errors.Join(err, m.Check())
}

func TestLimits(t *testing.T) {
	for _, tt := range []struct {
		line    string
		machine Machine // but for set and cpus
		limits  request.Limits
	}{
		{line: ""},
		{line: "--timeout 1h30m --step-timeout=90s", limits: request.Limits{Timeout: 90 * time.Minute, StepTimeout: 90 * time.Second}},
		{line: "--pids-limit 100 --log-limit 2m --jobs 3", limits: request.Limits{PIDs: 100, Log: 2 << 20, Jobs: 3}},
		{line: "-m 512m", machine: Machine{Memory: 512 << 20}},
		{line: "--memory 2g --memory-swap 3g", machine: Machine{Memory: 2 << 30, MemorySwap: 3 << 30}},
		{line: "--memory 2g --memory-swap -1", machine: Machine{Memory: 2 << 30, MemorySwap: -1}},
		{line: "--cpus 1.5", machine: Machine{CPUQuota: 150000, CPUPeriod: 100000}},
		{line: "--cpu-quota 5000 --cpu-period 10000", machine: Machine{CPUQuota: 5000, CPUPeriod: 10000}},
		{line: "--cpu-shares 512 --cgroup-parent /ci/job", machine: Machine{CPUShares: 512, CgroupParent: "/ci/job"}},
		{line: "--work-size 20g", machine: Machine{WorkSize: 20 << 30}},
	} {
		m, limits, err := parseMachine(t, tt.line)
		if err != nil {
			t.Errorf("%s: %v", tt.line, err)
			continue
		}
		m.set, m.cpus = nil, 0
		if *m != tt.machine || limits != tt.limits {
			t.Errorf("%s: %+v, %+v", tt.line, *m, limits)
		}
	}
}

func TestWrongLimits(t *testing.T) {
	for line, want := range map[string]string{
		"--timeout 0s":                       "want a time such as",
		"--timeout 10":                       "want a time such as",
		"--step-timeout -1s":                 "want a time such as",
		"--pids-limit 0":                     "want a number above 0",
		"--log-limit x":                      "want a size such as",
		"--memory 1k":                        "at least 6m",
		"--memory -1":                        "want a size such as",
		"--memory-swap 1g":                   "--memory-swap needs --memory",
		"--memory 2g --memory-swap 1g":       "less than --memory",
		"--cpus 0":                           "want a number of CPUs",
		"--cpus NaN":                         "want a number of CPUs",
		"--cpus 1 --cpu-quota 1000":          "--cpus cannot be used with",
		"--cpu-period 1000":                  "--cpu-period needs --cpu-quota",
		"--cpu-quota 5000 --cpu-period 5":    "--cpu-period: 5",
		"--cpu-quota 5":                      "at least 1000",
		"--cpu-shares 1":                     "want 2 to 262144",
		"--work-size 1m":                     "at least 64m",
		"--cpuset-cpus 0":                    "--cpuset-cpus: not supported",
		"--ulimit nofile=5":                  "--ulimit: not supported",
		"--cpu-quota 1000 --cpu-period 1e99": "want a number above 0",
	} {
		_, _, err := parseMachine(t, line)
		var e *Error
		if !errors.As(err, &e) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", line, err, want)
		}
	}
}

// In a pod, which does not register them, the launcher's flags are refused by
// name.
func TestPodRefusesMachineLimits(t *testing.T) {
	dir := tree(t, map[string]string{"Dockerfile": ""})
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	RegisterMachine(fs)
	fs.VisitAll(func(f *pflag.Flag) {
		_, _, err := parse(t, dir, nil, "--no-push --"+f.Name+"=1g")
		if err == nil || !strings.Contains(err.Error(), "--"+f.Name+": not supported") {
			t.Errorf("%s: %v", f.Name, err)
		}
	})
}
