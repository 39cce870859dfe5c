package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/sandbox/gateway"
)

// auditLog is the file of --audit-log: a line of JSON for each record, and one
// with the counts of all sandboxes at the end. A line that cannot be written
// fails the build. It is safe for concurrent use.
type auditLog struct {
	mu   sync.Mutex
	file *os.File
	fail func(error) // ends the build
	err  error       // the first
	sum  auditSum
}

// auditLine is one flow, or one question to a name server.
type auditLine struct {
	Time     time.Time `json:"time"` // of its begin
	Role     string    `json:"role,omitempty"`
	Steps    []string  `json:"steps,omitempty"` // that ran when it began
	Protocol string    `json:"protocol"`
	Name     string    `json:"name,omitempty"`
	Type     string    `json:"type,omitempty"`    // of a question
	Code     string    `json:"rcode,omitempty"`   // of a question: the answer's, none if there was none
	Address  string    `json:"address,omitempty"` // of a question: the name server's
	Port     uint16    `json:"port,omitempty"`
	BytesIn  int64     `json:"bytesIn"` // to the sandbox
	BytesOut int64     `json:"bytesOut"`
	Seconds  float64   `json:"seconds"`
	Verdict  string    `json:"verdict"`
	Reason   string    `json:"reason"`
}

// auditEnd is the last line.
type auditEnd struct {
	Time    time.Time `json:"time"`
	Summary auditSum  `json:"summary"`
}

// auditSum counts. Where nothing is lost, Lines, Records and Flows are equal.
type auditSum struct {
	Lines   uint64 `json:"lines"`   // written
	Flows   uint64 `json:"flows"`   // that were judged, questions included
	Records uint64 `json:"records"` // that the gateways gave
	Denied  uint64 `json:"denied"`
	Shed    uint64 `json:"shed"`   // attempts over a limit, dropped without a judgement
	Strays  uint64 `json:"strays"` // frames that no honest sandbox sends
}

// openAudit opens the log; "": there is none. When it cannot be written any
// longer, fail is called.
func openAudit(path string, fail func(error)) (*auditLog, error) {
	if path == "" {
		return nil, nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return nil, fmt.Errorf("audit log: %w", err)
	}
	return &auditLog{file: f, fail: fail}, nil
}

// record writes the line of r.
func (l *auditLog) record(r gateway.Record) {
	if l == nil {
		return
	}
	line := auditLine{
		Time: r.Time, Role: r.Role, Steps: r.Steps, Protocol: r.Protocol, Name: r.Name, Type: r.Type, Code: r.Code,
		Port: r.Port, BytesIn: r.In, BytesOut: r.Out, Seconds: r.Took.Seconds(), Verdict: string(r.Verdict), Reason: r.Reason,
	}
	if r.Address != (netip.Addr{}) {
		line.Address = r.Address.String()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.write(line)
	l.sum.Lines++
}

// closed adds the counts of a sandbox that has ended.
func (l *auditLog) closed(_ request.Role, c gateway.Counters) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sum.Flows += c.Flows
	l.sum.Records += c.Records
	l.sum.Denied += c.Denied
	l.sum.Shed += c.Shed
	l.sum.Strays += c.Strays
}

// write writes a line at once: what ends the launcher loses none before it.
func (l *auditLog) write(v any) {
	if l.err != nil {
		return
	}
	b, err := json.Marshal(v)
	if err == nil {
		_, err = l.file.Write(append(b, '\n'))
	}
	if err != nil {
		l.err = fmt.Errorf("audit log: %w", err)
		l.fail(l.err)
	}
}

// close writes the counts and returns the first error of all.
func (l *auditLog) close() error {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.write(auditEnd{time.Now(), l.sum})
	if err := l.file.Close(); err != nil && l.err == nil {
		l.err = fmt.Errorf("audit log: %w", err)
	}
	if l.err == nil && (l.sum.Lines != l.sum.Records || l.sum.Records != l.sum.Flows) {
		l.err = errors.New("audit log: records were lost")
	}
	return l.err
}
