// Command probe is what an attack's RUN step runs: it tries what a shell cannot,
// and says what became of it.
//
//	probe ID NAME ARGS...
//
// prints what it sees, and at the end one line
//
//	probe ID NONCE OUTCOME: details
//
// with the nonce of the file /nonce, which shows that it ran. OUTCOME is CONTAINED,
// REJECTED, INERT, LIMITED or ESCAPED. Its status is 0 unless it could not even
// try.
package main

import (
	"fmt"
	"maps"
	"os"
	"strings"
)

// try tries something: an outcome, none if it only prepares, and what was seen.
type try func(args []string) (outcome, details string)

const (
	contained = "CONTAINED"
	rejected  = "REJECTED"
	inert     = "INERT"
	limited   = "LIMITED"
	escaped   = "ESCAPED"
)

func tries() map[string]try {
	all := map[string]try{}
	for _, some := range []map[string]attempt{runtimeTries(), rightsTries(), networkTries(), surfaceTries()} {
		for name, a := range some {
			all[name] = a.try
		}
	}
	maps.Copy(all, searchTries())
	maps.Copy(all, exhaustTries())
	return all
}

// attempt is a try that notes what it sees. It returns the outcome that is right;
// what must not be it reports with escape.
type attempt func(p *probe, args []string) (outcome string)

// probe is a run of an attempt.
type probe struct {
	id, nonce string
	seen      []string
	out       []string // what must not be
}

func (p *probe) see(format string, args ...any) {
	p.seen = append(p.seen, fmt.Sprintf(format, args...))
}

// escape says that something is possible that must not be.
func (p *probe) escape(format string, args ...any) {
	p.out = append(p.out, fmt.Sprintf(format, args...))
}

func (a attempt) try(args []string) (outcome, details string) {
	p := &probe{id: id(), nonce: nonce()}
	outcome = a(p, args)
	if len(p.out) > 0 {
		return escaped, strings.Join(p.out, "; ")
	}
	return outcome, strings.Join(p.seen, "; ")
}

// id is the row's number, nonce that of the attack; outside of a step $NONCE has
// it.
func id() string { return strings.TrimLeft(os.Args[1], "0") }

func nonce() string {
	if word := os.Getenv("NONCE"); word != "" {
		return word
	}
	b, err := os.ReadFile("/nonce")
	must(err)
	return strings.TrimSpace(string(b))
}

func main() {
	if len(os.Args) < 3 {
		fail("usage: probe ID NAME ARGS...")
	}
	f := tries()[os.Args[2]]
	if f == nil {
		fail("no probe " + os.Args[2])
	}
	word := nonce() // before the attempt, which may do anything
	outcome, details := f(os.Args[3:])
	if outcome != "" {
		fmt.Printf("probe %s %s %s: %s\n", id(), word, outcome, strings.ReplaceAll(details, "\n", " | "))
	}
}

func fail(text string) {
	fmt.Println("probe:", text)
	os.Exit(1)
}

func must(err error) {
	if err != nil {
		fail(err.Error())
	}
}
