package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kbuild-sandbox/kbuild-sandbox/sandbox/gateway"
)

// The line of a question says what the answer was; that of a flow has no such
// field.
func TestAuditTellsCode(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit")
	l, err := openAudit(path, func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	l.record(gateway.Record{Protocol: gateway.ProtocolDNS, Name: "a.example", Type: "A", Code: "NXDOMAIN", Verdict: gateway.Denied})
	l.record(gateway.Record{Protocol: "tcp", Verdict: gateway.Allowed})
	l.closed("build", gateway.Counters{Flows: 2, Records: 2, Denied: 1})
	if err := l.close(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	if !strings.Contains(lines[0], `"type":"A","rcode":"NXDOMAIN",`) || strings.Contains(lines[1], "rcode") {
		t.Errorf("%q", lines)
	}
}
