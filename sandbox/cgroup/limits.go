package cgroup

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Limits are what a group is held to; zero: not limited.
type Limits struct {
	Memory int64 // bytes
	// MemorySwap bounds memory and swap together, in bytes; 0: twice Memory, as
	// docker has it; Unlimited: no bound.
	MemorySwap int64
	// CPUQuota is what all tasks together may use in each CPUPeriod, both in
	// microseconds; CPUPeriod 0: 100 ms.
	CPUQuota, CPUPeriod int64
	// CPUShares is the weight against other groups, as docker has it, 2 to
	// 262144; 1024 is an ordinary group's.
	CPUShares int64
	Tasks     int64 // processes and threads, those of gVisor among them
}

// Unlimited as MemorySwap is no bound.
const Unlimited = -1

// None tells whether nothing is limited.
func (l Limits) None() bool { return l == Limits{} }

const (
	memory = "memory"
	cpu    = "cpu"
	pids   = "pids"
)

// controllers are those that l needs, sorted.
func (l Limits) controllers() []string {
	var need []string
	if l.CPUQuota != 0 || l.CPUShares != 0 {
		need = append(need, cpu)
	}
	if l.Memory != 0 {
		need = append(need, memory)
	}
	if l.Tasks != 0 {
		need = append(need, pids)
	}
	return need
}

// setting is one file of a group and what goes in.
type setting struct {
	controller, file, value string
	// optional: where the kernel does not have the file it is left out.
	optional bool
}

// settings are the files for l, in the order in which they are written.
func (l Limits) settings(v2 bool) []setting {
	list := l.memorySettings(v2)
	period := l.CPUPeriod
	if period == 0 {
		period = 100_000
	}
	switch {
	case l.CPUQuota == 0:
	case v2:
		list = append(list, setting{cpu, "cpu.max", fmt.Sprintf("%d %d", l.CPUQuota, period), false})
	default:
		list = append(list, setting{cpu, "cpu.cfs_period_us", decimal(period), false},
			setting{cpu, "cpu.cfs_quota_us", decimal(l.CPUQuota), false})
	}
	switch {
	case l.CPUShares == 0:
	case v2:
		list = append(list, setting{cpu, "cpu.weight", decimal(weight(l.CPUShares)), false})
	default:
		list = append(list, setting{cpu, "cpu.shares", decimal(l.CPUShares), false})
	}
	if l.Tasks != 0 {
		list = append(list, setting{pids, "pids.max", decimal(l.Tasks), false})
	}
	return list
}

func (l Limits) memorySettings(v2 bool) []setting {
	if l.Memory == 0 {
		return nil
	}
	total := l.MemorySwap
	if total == 0 {
		total = 2 * l.Memory
		if l.Memory > math.MaxInt64/2 {
			total = Unlimited
		}
	}
	// Without accounting of swap there is no such file. Who named no bound of
	// swap gets none then.
	optional := l.MemorySwap == 0
	if !v2 {
		list := []setting{{memory, "memory.limit_in_bytes", decimal(l.Memory), false}}
		if total != Unlimited {
			list = append(list, setting{memory, "memory.memsw.limit_in_bytes", decimal(total), optional})
		}
		return list
	}
	list := []setting{
		{memory, "memory.max", decimal(l.Memory), false},
		// The sandboxes of a build are of no use one without the other.
		{memory, "memory.oom.group", "1", true},
	}
	if total != Unlimited {
		list = append(list, setting{memory, "memory.swap.max", decimal(total - l.Memory), optional})
	}
	return list
}

// weight is cpu.weight for docker's shares, as crun and runc convert them.
func weight(shares int64) int64 { return 1 + (shares-2)*9999/262142 }

func decimal(n int64) string { return strconv.FormatInt(n, 10) }

// holds tells whether what the kernel says in a file is what was written into
// it. It rounds memory down to pages.
func (s setting) holds(text string) bool {
	text = strings.TrimSpace(text)
	if text == s.value {
		return true
	}
	want, err1 := strconv.ParseInt(s.value, 10, 64)
	have, err2 := strconv.ParseInt(text, 10, 64)
	const page = 64 << 10 // the largest there is
	return s.controller == memory && err1 == nil && err2 == nil && have <= want && want-have < page
}

// missing are the words of need that have lacks.
func missing(need, have []string) []string {
	var out []string
	for _, n := range need {
		if !slices.Contains(have, n) {
			out = append(out, n)
		}
	}
	return out
}
