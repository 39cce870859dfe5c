package cgroup

import (
	"reflect"
	"strings"
	"testing"
)

// What machines say, as seen on them.
func TestParse(t *testing.T) {
	for _, tt := range []struct {
		name, mounts, groups string
		want                 []hierarchy
	}{
		{
			"v2, a session of systemd",
			"31 24 0:27 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n",
			"0::/user.slice/user-1000.slice/session-2.scope\n",
			[]hierarchy{{v2: true, top: "/sys/fs/cgroup", own: "/sys/fs/cgroup/user.slice/user-1000.slice/session-2.scope"}},
		},
		{
			"v2, a container with a namespace of its own",
			"725 724 0:27 / /sys/fs/cgroup ro,nosuid,nodev,noexec,relatime - cgroup2 cgroup rw\n",
			"0::/\n",
			[]hierarchy{{v2: true, top: "/sys/fs/cgroup", own: "/sys/fs/cgroup"}},
		},
		{
			"v1 in a container, whose mounts show its own part",
			"900 899 0:30 /docker/4fa /sys/fs/cgroup/memory ro,nosuid - cgroup cgroup rw,memory\n" +
				"901 899 0:31 /docker/4fa /sys/fs/cgroup/cpu,cpuacct ro,nosuid - cgroup cgroup rw,cpuacct,cpu\n",
			"11:memory:/docker/4fa\n5:cpu,cpuacct:/docker/4fa/inner\n1:name=systemd:/docker/4fa\n",
			[]hierarchy{
				{controllers: []string{"memory"}, top: "/sys/fs/cgroup/memory", own: "/sys/fs/cgroup/memory"},
				{controllers: []string{"cpu", "cpuacct"}, top: "/sys/fs/cgroup/cpu,cpuacct", own: "/sys/fs/cgroup/cpu,cpuacct/inner"},
			},
		},
		{
			"hybrid: v1 with an empty v2",
			"35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n" +
				"40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd\n" +
				"41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n",
			"4:memory:/a b\n9:name=systemd:/x\n0::/\n",
			[]hierarchy{
				{controllers: []string{"memory"}, top: "/sys/fs/cgroup/memory", own: "/sys/fs/cgroup/memory/a b"},
				{controllers: []string{"name=systemd"}, top: "/sys/fs/cgroup/systemd", own: "/sys/fs/cgroup/systemd/x"},
				{v2: true, top: "/sys/fs/cgroup/unified", own: "/sys/fs/cgroup/unified"},
			},
		},
		{
			"a mount of another part of the tree",
			"35 31 0:32 /other /mnt/c rw,relatime - cgroup2 cgroup2 rw\n",
			"0::/own\n", nil,
		},
		{
			"outside of the namespace's root",
			"35 31 0:32 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw\n",
			"0::/../own\n", nil,
		},
		{
			"mounted twice",
			"35 31 0:32 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n36 31 0:32 / /mnt/x\\040y rw - cgroup2 cgroup2 rw\n",
			"0::/own\n",
			[]hierarchy{{v2: true, top: "/sys/fs/cgroup", own: "/sys/fs/cgroup/own"}},
		},
		{"none", "24 1 8:1 / / rw - ext4 /dev/sda rw\n", "", nil},
		{"cut off", "24 1 8:1\n35 31 0:32 / /sys\n", "0:\n::\n", nil},
	} {
		if got := parse(tt.mounts, tt.groups); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s:\n got %+v\nwant %+v", tt.name, got, tt.want)
		}
	}
}

// What goes into which file, for both versions.
func TestSettings(t *testing.T) {
	for _, tt := range []struct {
		name   string
		l      Limits
		v1, v2 string
	}{
		{"nothing", Limits{}, "", ""},
		{
			"memory", Limits{Memory: 512 << 20},
			"memory.limit_in_bytes=536870912 memory.memsw.limit_in_bytes=1073741824?",
			"memory.max=536870912 memory.oom.group=1? memory.swap.max=536870912?",
		},
		{
			"memory without swap", Limits{Memory: 512 << 20, MemorySwap: 512 << 20},
			"memory.limit_in_bytes=536870912 memory.memsw.limit_in_bytes=536870912",
			"memory.max=536870912 memory.oom.group=1? memory.swap.max=0",
		},
		{
			"memory and any amount of swap", Limits{Memory: 512 << 20, MemorySwap: Unlimited},
			"memory.limit_in_bytes=536870912", "memory.max=536870912 memory.oom.group=1?",
		},
		{
			"CPUs", Limits{CPUQuota: 150000}, "cpu.cfs_period_us=100000 cpu.cfs_quota_us=150000", "cpu.max=150000 100000",
		},
		{
			"CPUs in a period", Limits{CPUQuota: 5000, CPUPeriod: 10000}, "cpu.cfs_period_us=10000 cpu.cfs_quota_us=5000", "cpu.max=5000 10000",
		},
		{"usual weight", Limits{CPUShares: 1024}, "cpu.shares=1024", "cpu.weight=39"},
		{"least weight", Limits{CPUShares: 2}, "cpu.shares=2", "cpu.weight=1"},
		{"largest weight", Limits{CPUShares: 262144}, "cpu.shares=262144", "cpu.weight=10000"},
		{"tasks", Limits{Tasks: 1000}, "pids.max=1000", "pids.max=1000"},
	} {
		for v2, want := range map[bool]string{false: tt.v1, true: tt.v2} {
			var got []string
			for _, s := range tt.l.settings(v2) {
				text := s.file + "=" + s.value
				if s.optional {
					text += "?"
				}
				got = append(got, text)
			}
			if have := strings.Join(got, " "); have != want {
				t.Errorf("%s, v2 %t:\n got %s\nwant %s", tt.name, v2, have, want)
			}
		}
	}
}

// The kernel may round memory down, and nothing else.
func TestHolds(t *testing.T) {
	for _, tt := range []struct {
		s    setting
		text string
		want bool
	}{
		{setting{memory, "memory.max", "10000000", false}, "9998336\n", true},
		{setting{memory, "memory.max", "10000000", false}, "10002432\n", false},
		{setting{memory, "memory.max", "10000000", false}, "max\n", false},
		{setting{memory, "memory.max", "10000000", false}, "4096\n", false},
		{setting{pids, "pids.max", "100", false}, "100\n", true},
		{setting{pids, "pids.max", "100", false}, "99\n", false},
		{setting{cpu, "cpu.max", "5000 10000", false}, "5000 10000\n", true},
		{setting{cpu, "cpu.max", "5000 10000", false}, "max 10000\n", false},
	} {
		if got := tt.s.holds(tt.text); got != tt.want {
			t.Errorf("%s %s holds %q: %t", tt.s.file, tt.s.value, tt.text, got)
		}
	}
}

func TestCommon(t *testing.T) {
	for _, tt := range [][3]string{
		{"/a/b/c", "/a/b/d", "/a/b"}, {"/a/b", "/a/b/c", "/a/b"}, {"/a/b", "/a/bc", "/a"}, {"/a", "/b", "/"}, {"/a", "/a", "/a"},
	} {
		if got := common(tt[0], tt[1]); got != tt[2] {
			t.Errorf("common(%s, %s) = %s", tt[0], tt[1], got)
		}
	}
}
