package flags

import (
	"errors"
	"math"
	"strconv"
	"time"

	"github.com/spf13/pflag"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// limits are the bounds that the executor itself keeps, here and in a pod.
type limits struct {
	timeout, step time.Duration
	pids          int64
	log           int64
	jobs          int64
}

func (b *Build) registerLimits() {
	fs, l := b.set, &b.limits
	fs.Var(durationValue{&l.timeout}, "timeout", "end the build after this `time`, such as 30m or 1h30m; status 124")
	fs.Var(durationValue{&l.step}, "step-timeout", "end a RUN, COPY or ADD after this `time`, which fails the build; status 124")
	fs.Var(countValue{&l.pids}, "pids-limit", "processes and threads that all RUN steps may have at once, a `number` (default "+strconv.Itoa(request.DefaultPIDs)+"); where it is given, a launcher needs a control group")
	fs.Var(sizeValue{&l.log}, "log-limit", "show this much of the output of each step, a `size` (default 16m)")
	fs.Var(countValue{&l.jobs}, "jobs", "run up to this `number` of steps of independent stages at once (default: one for each CPU)")
	group(fs, groupLimits, "timeout", "step-timeout", "pids-limit", "log-limit", "jobs")
}

// limitOptions puts them into the request.
func (b *Build) limitOptions(r *request.Build, _ From) error {
	r.Limits = request.Limits{Timeout: b.limits.timeout, StepTimeout: b.limits.step, PIDs: b.limits.pids, Log: b.limits.log, Jobs: int(b.limits.jobs)}
	return nil
}

// Machine are the bounds that a launcher keeps from outside. In a pod Kubernetes
// does, and the flags are refused. Zero is no bound.
type Machine struct {
	set *pflag.FlagSet

	Memory int64 // bytes
	// MemorySwap bounds memory and swap together, in bytes; -1: no bound; 0:
	// twice Memory.
	MemorySwap int64
	// CPUQuota is the time on all CPUs together in each CPUPeriod, in
	// microseconds.
	CPUQuota, CPUPeriod int64
	CPUShares           int64
	// CgroupParent is the control group to make the build's below.
	CgroupParent string
	// WorkSize bounds what a build unpacks and makes, in bytes.
	WorkSize int64

	cpus float64
}

// RegisterMachine adds the flags of a launcher. It must come before Register,
// which refuses them else.
func RegisterMachine(fs *pflag.FlagSet) *Machine {
	m := &Machine{set: fs}
	fs.VarP(sizeValue{&m.Memory}, "memory", "m", "memory of the whole build, gVisor's own too, a `size` such as 2g; needs a control group")
	fs.Var(swapValue{sizeValue{&m.MemorySwap}}, "memory-swap", "the same with swap, a `size`; -1: any amount of swap (default: twice --memory)")
	fs.Var(cpusValue{&m.cpus}, "cpus", "CPUs of the whole build, a `number` such as 1.5; needs a control group")
	fs.Var(countValue{&m.CPUQuota}, "cpu-quota", "time on CPUs in each --cpu-period, in `microseconds`: another form of --cpus")
	fs.Var(countValue{&m.CPUPeriod}, "cpu-period", "see --cpu-quota, in `microseconds` (default 100000)")
	fs.Var(countValue{&m.CPUShares}, "cpu-shares", "`weight` against other groups when CPUs are scarce; 1024 is usual")
	fs.StringVar(&m.CgroupParent, "cgroup-parent", "", "make the build's control group below this one, a `path` that is there (default: this process's own)")
	fs.Var(sizeValue{&m.WorkSize}, "work-size", "room in --work-dir for the files of all steps and sandboxes, what is fetched and outputs on the same disk together, a `size` (default: what is free, less 256 MiB, which always stay free)")
	group(fs, groupLimits, "memory", "memory-swap", "cpus", "cpu-quota", "cpu-period", "cpu-shares", "cgroup-parent", "work-size")
	return m
}

// Limits of what the kernel takes, see its Documentation/admin-guide/cgroup-v2.rst
// and scheduler/sched-bwc.rst; the smallest memory is docker's.
const (
	minMemory            = 6 << 20
	minPeriod, maxPeriod = 1000, 1_000_000
	minShares, maxShares = 2, 262_144
	minWork              = 64 << 20
)

// Check settles the flags against each other. Errors are of type *Error.
func (m *Machine) Check() error {
	switch {
	case m.Memory != 0 && m.Memory < minMemory:
		return usagef("a build takes some hundred megabytes", "--memory: %d bytes: at least 6m", m.Memory)
	case m.MemorySwap != 0 && m.Memory == 0:
		return usagef("", "--memory-swap needs --memory")
	case m.MemorySwap > 0 && m.MemorySwap < m.Memory:
		return usagef("it counts memory and swap together", "--memory-swap: less than --memory")
	case m.cpus != 0 && (m.CPUQuota != 0 || m.CPUPeriod != 0):
		return usagef("leave --cpus or the others out", "--cpus cannot be used with --cpu-quota or --cpu-period")
	case m.CPUPeriod != 0 && m.CPUQuota == 0:
		return usagef("", "--cpu-period needs --cpu-quota")
	case m.CPUPeriod != 0 && (m.CPUPeriod < minPeriod || m.CPUPeriod > maxPeriod):
		return usagef("", "--cpu-period: %d: want %d to %d microseconds", m.CPUPeriod, minPeriod, maxPeriod)
	case m.CPUQuota != 0 && m.CPUQuota < minPeriod:
		return usagef("", "--cpu-quota: %d: want at least %d microseconds", m.CPUQuota, minPeriod)
	case m.CPUShares != 0 && (m.CPUShares < minShares || m.CPUShares > maxShares):
		return usagef("", "--cpu-shares: %d: want %d to %d", m.CPUShares, minShares, maxShares)
	case m.WorkSize != 0 && m.WorkSize < minWork:
		return usagef("", "--work-size: %d bytes: at least 64m", m.WorkSize)
	}
	if m.cpus != 0 {
		m.CPUPeriod = 100_000
		m.CPUQuota = int64(math.Round(m.cpus * float64(m.CPUPeriod)))
	}
	return nil
}

// durationValue is a time that is not zero.
type durationValue struct{ to *time.Duration }

func (v durationValue) String() string { return "" }

func (v durationValue) Set(s string) error {
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		return errors.New("want a time such as 90s, 30m or 1h30m")
	}
	*v.to = d
	return nil
}

func (v durationValue) Type() string { return "time" }

// sizeValue is a size in bytes, in docker's form.
type sizeValue struct{ to *int64 }

func (v sizeValue) String() string { return "" }

func (v sizeValue) Set(s string) error {
	n, err := parseSize(s)
	if err != nil {
		return errors.New("want a size such as 512m or 2g")
	}
	*v.to = n
	return nil
}

func (v sizeValue) Type() string { return "size" }

// swapValue is a size or -1.
type swapValue struct{ sizeValue }

func (v swapValue) Set(s string) error {
	if s == "-1" {
		*v.to = -1
		return nil
	}
	return v.sizeValue.Set(s)
}

// countValue is a number above zero.
type countValue struct{ to *int64 }

func (v countValue) String() string { return "" }

func (v countValue) Set(s string) error {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n <= 0 {
		return errors.New("want a number above 0")
	}
	*v.to = n
	return nil
}

func (v countValue) Type() string { return "number" }

// cpusValue is a number of CPUs.
type cpusValue struct{ to *float64 }

func (v cpusValue) String() string { return "" }

func (v cpusValue) Set(s string) error {
	n, err := strconv.ParseFloat(s, 64)
	// The kernel takes no less than a millisecond of a period of 100.
	if err != nil || !(n >= 0.01 && n <= 1<<20) {
		return errors.New("want a number of CPUs such as 1.5, at least 0.01")
	}
	*v.to = n
	return nil
}

func (v cpusValue) Type() string { return "number" }
