package escape

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

const surfaceGolden = "testdata/surface.golden"

// systemCalls compares what system calls answer in a step with what they did when
// somebody last looked: go test ./e2e/escape -run Attacks/017 -update.
func systemCalls(t *Target) Outcome {
	r := t.Build(Build{Dockerfile: "FROM $BUSYBOX\nCOPY probe nonce /\nRUN /probe 17 surface\n"})
	r.Done()
	names := callNames(t)
	var lines []string
	for _, m := range regexp.MustCompile(`\d surface (\S+) (\S+)`).FindAllStringSubmatch(r.Output, -1) {
		name := m[1]
		if n := names[name]; n != "" {
			name += " " + n
		} else if name[0] >= '0' && name[0] <= '9' && m[2] == "ENOSYS" {
			continue // a number without a call
		}
		lines = append(lines, name+" "+m[2]+"\n")
	}
	got := strings.Join(lines, "")
	if t.Update {
		must(t, os.WriteFile(surfaceGolden, []byte(got), 0o644))
	}
	want, err := os.ReadFile(surfaceGolden)
	must(t, err)
	if string(want) != got {
		t.Errorf("system calls answer otherwise than in %s:\n%s", surfaceGolden, lineDifference(string(want), got))
	}
	return t.Verdict(r.Output)
}

// callNames are the names of system calls by number, from the source of the
// package that has them as constants.
func callNames(t *Target) map[string]string {
	t.Helper()
	dir, err := exec.Command("go", "list", "-f", "{{.Dir}}", "golang.org/x/sys/unix").Output()
	must(t, err)
	source, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), "zsysnum_linux_amd64.go"))
	must(t, err)
	names := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^\s+SYS_(\w+)\s+= (\d+)$`).FindAllStringSubmatch(string(source), -1) {
		names[m[2]] = strings.ToLower(m[1])
	}
	return names
}

// lineDifference lists the lines that only one of two texts has.
func lineDifference(want, got string) string {
	count := map[string]int{}
	for line := range strings.Lines(want) {
		count[line]--
	}
	for line := range strings.Lines(got) {
		count[line]++
	}
	var b strings.Builder
	for _, text := range []string{want, got} {
		for line := range strings.Lines(text) {
			if n := count[line]; n != 0 {
				fmt.Fprintf(&b, "%+d %s", n, line)
				delete(count, line)
			}
		}
	}
	return b.String()
}
