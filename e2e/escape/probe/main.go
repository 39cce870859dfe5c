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

// try tries something: an outcome and what was seen.
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
	for _, some := range []map[string]try{runtimeTries(), searchTries()} {
		maps.Copy(all, some)
	}
	return all
}

func main() {
	if len(os.Args) < 3 {
		fail("usage: probe ID NAME ARGS...")
	}
	f := tries()[os.Args[2]]
	if f == nil {
		fail("no probe " + os.Args[2])
	}
	nonce, err := os.ReadFile("/nonce")
	if err != nil {
		fail(err.Error())
	}
	outcome, details := f(os.Args[3:])
	id := strings.TrimLeft(os.Args[1], "0")
	fmt.Printf("probe %s %s %s: %s\n", id, nonce, outcome, strings.ReplaceAll(details, "\n", " | "))
}

func fail(text string) {
	fmt.Println("probe:", text)
	os.Exit(1)
}
