package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/rig"
)

// auditFlows is how many flows a RUN step tries.
const auditFlows = 10_000

// TestAuditCountsEveryFlow is the counting oracle from end to end: a RUN step in
// gVisor tries flows of every kind, allowed and denied at once, and the audit log
// has a line for each, and none else.
func TestAuditCountsEveryFlow(t *testing.T) {
	bin := binaries(t)
	flows, err := rig.StartFlows()
	if err != nil {
		t.Fatal(err)
	}
	defer flows.Stop()
	dir, log := t.TempDir(), filepath.Join(t.TempDir(), "audit")
	if err := rig.FlowClient(filepath.Join(dir, "flowclient")); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(dir, "Dockerfile"), fmt.Sprintf("FROM scratch\nCOPY flowclient /\nRUN [\"/flowclient\", \"count\", \"host\", \"%d\", \"%d\", \"%d\"]\n",
		flows.TCP, flows.UDP, auditFlows))
	cmd := exec.Command(filepath.Join(bin, "kbuild-sandbox"), "build", "--no-push", "--progress", "plain", "--cache-dir", "",
		"--work-dir", t.TempDir(), "--add-host", "host:host-gateway", "--deny-net", "bad.example", "--audit-log", log,
		"--allow-net", fmt.Sprintf("127.0.0.1:%d", flows.TCP), "--allow-net", fmt.Sprintf("127.0.0.1:%d", flows.UDP), dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	got, sum := readAudit(t, log)
	want := map[string]int{
		"tcp allowed": 4000, "tcp denied": 4000, "udp allowed": 300, "udp denied": 700, "dns allowed": 500, "dns denied": 500,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("lines (-tried +logged):\n%s", d)
	}
	if sum.Lines != auditFlows || sum.Flows != auditFlows || sum.Records != auditFlows || sum.Denied != auditFlows/2+200 {
		t.Errorf("summary %+v", sum)
	}
	t.Logf("%+v\n%s", sum, out)
}

// auditSum is the last line of an audit log.
type auditSum struct{ Lines, Flows, Records, Denied, Shed, Strays int }

// readAudit counts the lines of an audit log by protocol and verdict.
func readAudit(t *testing.T, file string) (map[string]int, auditSum) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var line struct {
		Role, Protocol, Verdict string
		Steps                   []string
		Summary                 *auditSum
	}
	counts := map[string]int{}
	for s := bufio.NewScanner(f); s.Scan(); {
		if line.Summary != nil {
			t.Error("a line after the summary")
		}
		line.Steps = nil
		if err := json.Unmarshal(s.Bytes(), &line); err != nil {
			t.Fatalf("%q: %v", s.Bytes(), err)
		}
		if line.Summary != nil {
			continue
		}
		counts[line.Protocol+" "+line.Verdict]++
		if line.Role != "build" || len(line.Steps) != 1 || !strings.Contains(line.Steps[0], "RUN [\"/flowclient\"") {
			t.Errorf("%s", s.Bytes())
		}
	}
	if line.Summary == nil {
		t.Fatal("the log has no summary at its end")
	}
	return counts, *line.Summary
}
