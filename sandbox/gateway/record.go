package gateway

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Record is what is known about one flow, or one question to a name server,
// when it has ended.
type Record struct {
	Time time.Time // of its begin
	Took time.Duration
	Role string // of the sandbox: fetch, build, push
	// Steps are those that ran when it began, see Gateway.SetSteps. The slice is
	// shared between records.
	Steps []string

	Protocol string // tcp, udp, icmp, ProtocolDNS, or ip/N for another number
	// Name is the name that was asked for; of a flow, one that its address was
	// resolved from, or "". The sandbox chose it: quote it where it is shown.
	Name string
	// Type is the question's type, like AAAA.
	Type string
	// Code is that of the answer to a question, like NXDOMAIN; "": it got none.
	Code string
	// Address and Port are the destination, as it was judged: 127.0.0.1 where
	// the sandbox dialled the gateway. Of a question, the server that was asked.
	Address netip.Addr
	Port    uint16

	In, Out int64 // payload bytes to and from the sandbox
	Verdict Verdict
	// Reason says which rule or range decided, or how the flow failed.
	Reason string
}

// Verdict is what became of a flow.
type Verdict string

// The verdicts.
const (
	Allowed Verdict = "allowed" // and connected
	Denied  Verdict = "denied"  // by the policy
	Failed  Verdict = "failed"  // allowed, but the host could not connect
)

// Counters count since the gateway began.
type Counters struct {
	Flows   uint64 // that were judged, questions included
	Records uint64 // that the sink has taken; equal to Flows after Close
	Denied  uint64 // of Flows
	// Shed counts packets that would have begun a flow over a limit. They were
	// dropped, not judged: the sandbox may send them again.
	Shed uint64
	// Strays counts frames that no honest sandbox sends: another source address,
	// another protocol than IP, too short.
	Strays uint64
}

// recorder hands records to the sink one at a time. When the sink is slow the
// queue fills, and then whoever has a record to give waits: no record is lost.
type recorder struct {
	queue chan Record
	done  sync.WaitGroup
	taken atomic.Uint64
}

const recordQueue = 1024

func newRecorder(sink func(Record)) *recorder {
	r := &recorder{queue: make(chan Record, recordQueue)}
	r.done.Go(func() {
		for rec := range r.queue {
			sink(rec)
			r.taken.Add(1)
		}
	})
	return r
}

func (r *recorder) put(rec Record) { r.queue <- rec }

// close waits until the sink has everything.
func (r *recorder) close() {
	close(r.queue)
	r.done.Wait()
}
