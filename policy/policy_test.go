package policy

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// TestGolden pins the tables: a change of policy has to be seen in a diff.
func TestGolden(t *testing.T) {
	for name, table := range map[string]Table{"run": RunTable(), "executor": ExecutorTable()} {
		golden(t, name, format(table))
	}
	golden(t, "capabilities", fmt.Sprintf("run %s\nexecutor %s\n",
		strings.Join(RunCapabilities(), " "), strings.Join(ExecutorCapabilities(), " ")))
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got), go test ./policy -update:\n%s", file, diff)
	}
}

// format writes one line a system call and rule, sorted.
func format(t Table) string {
	lines := []string{fmt.Sprintf("* errno %d", t.Default)}
	for _, r := range t.Rules {
		outcome := "allow"
		if r.Errno != 0 {
			outcome = fmt.Sprintf("errno %d", r.Errno)
		}
		if r.Nothing {
			outcome = "nothing"
		}
		for _, a := range r.Args {
			op := "=="
			if a.Not {
				op = "!="
			}
			outcome += fmt.Sprintf(" if arg%d & %#x %s %#x", a.Index, a.Mask, op, a.Value)
		}
		for _, n := range r.Names {
			lines = append(lines, fmt.Sprintf("%s %s # %s", n, outcome, r.For))
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n") + "\n"
}

func TestRulesDoNotOverlap(t *testing.T) {
	for name, table := range map[string]Table{"run": RunTable(), "executor": ExecutorTable()} {
		whole := map[string]bool{} // named by a rule without arguments
		any := map[string]bool{}
		for _, r := range table.Rules {
			if r.For == "" || len(r.Names) == 0 {
				t.Errorf("%s: a rule without purpose or names: %+v", name, r)
			}
			for _, n := range r.Names {
				if whole[n] || (len(r.Args) == 0 && any[n]) {
					t.Errorf("%s: %s: two rules", name, n)
				}
				any[n] = true
				whole[n] = whole[n] || len(r.Args) == 0
			}
		}
	}
}

// TestExecutorTable: filter 1 holds for RUN steps too, so it must allow what
// filter 2 allows, and the OCI form cannot say more than allow and EPERM.
func TestExecutorTable(t *testing.T) {
	table := ExecutorTable()
	if table.Default != 0 {
		t.Errorf("Default = %d, which the OCI form cannot say", table.Default)
	}
	allowed := map[string]bool{}
	for _, r := range table.Rules {
		if r.Errno != 0 || r.Nothing {
			t.Errorf("%v: errno %d, which the OCI form cannot say", r.Names, r.Errno)
		}
		for _, n := range r.Names {
			allowed[n] = true
		}
	}
	for _, r := range RunTable().Rules {
		for _, n := range r.Names {
			if r.Errno == 0 && !allowed[n] {
				t.Errorf("%s: allowed by filter 2, refused by filter 1", n)
			}
		}
	}
}

// TestRunTableDenies lists rule R5 by name, apart from the tables.
func TestRunTableDenies(t *testing.T) {
	denied := map[string]uint{"clone3": ENOSYS}
	for _, n := range strings.Fields(`unshare setns mount umount2 pivot_root open_tree move_mount
		fsopen fsconfig fsmount mount_setattr ptrace process_vm_readv process_vm_writev pidfd_getfd
		bpf keyctl add_key request_key perf_event_open io_uring_setup io_uring_enter
		io_uring_register userfaultfd name_to_handle_at open_by_handle_at quotactl swapon swapoff
		reboot kexec_load kexec_file_load init_module finit_module delete_module settimeofday
		clock_settime`) {
		denied[n] = EPERM
	}
	for _, r := range RunTable().Rules {
		for _, n := range r.Names {
			want, ok := denied[n]
			if ok && (r.Errno != want || len(r.Args) > 0) {
				t.Errorf("%s: %+v, want errno %d always", n, r, want)
			}
			if ok {
				delete(denied, n)
			}
		}
	}
	for n := range denied {
		t.Errorf("%s: not named", n)
	}
}

// TestCapabilities compares with the mask that container runtimes show.
func TestCapabilities(t *testing.T) {
	numbers := map[string]int{
		"CAP_CHOWN": 0, "CAP_DAC_OVERRIDE": 1, "CAP_FOWNER": 3, "CAP_FSETID": 4, "CAP_KILL": 5,
		"CAP_SETGID": 6, "CAP_SETUID": 7, "CAP_SETPCAP": 8, "CAP_NET_BIND_SERVICE": 10,
		"CAP_NET_RAW": 13, "CAP_SYS_CHROOT": 18, "CAP_SYS_ADMIN": 21, "CAP_MKNOD": 27,
		"CAP_AUDIT_WRITE": 29, "CAP_SETFCAP": 31,
	}
	mask := func(names []string) (m uint64) {
		for _, n := range names {
			bit, ok := numbers[n]
			if !ok {
				t.Fatalf("%s: not expected", n)
			}
			m |= 1 << bit
		}
		return m
	}
	if got := mask(RunCapabilities()); got != 0xa80425fb {
		t.Errorf("RUN: %#x, want 0xa80425fb", got)
	}
	if got := mask(ExecutorCapabilities()); got != 0xa82425fb {
		t.Errorf("executor: %#x, want 0xa82425fb", got)
	}
}
