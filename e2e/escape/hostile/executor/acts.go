package main

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

const (
	// stolenID and stolenStream are numbers that the real executor does not use.
	stolenID     = 1 << 40
	stolenStream = 1 << 31
	dialTime     = 3 * time.Second
	stealTime    = 10 * time.Second
	grace        = 300 * time.Millisecond
)

// before carries out an act before the real executor begins.
func (m *middle) before(a act) {
	words := strings.Fields(a.rest)
	switch a.word {
	case "dial":
		for _, address := range words {
			m.dial(address)
		}
	case "write":
		for _, path := range words {
			err := os.WriteFile(path, []byte("x"), 0o644)
			m.say("write %s: %v", path, outcome(err))
		}
	case "ask":
		m.ask(words)
	case "output":
		m.output(a.rest)
	case "event":
		m.event(a.rest)
	case "frame":
		kind, payload, _ := strings.Cut(a.rest, " ")
		m.say("sends frame %s", kind)
		_ = m.up.Write(request.FrameKind(kind[0]), []byte(payload))
		time.Sleep(stealTime)
	}
}

func outcome(err error) string {
	if err != nil {
		return err.Error()
	}
	return "DONE"
}

// dial tries to reach an address that is not this role's to reach.
func (m *middle) dial(address string) {
	conn, err := net.DialTimeout("tcp", address, dialTime)
	if err == nil {
		// A gateway may take a connection before it has judged it.
		_ = conn.SetDeadline(time.Now().Add(dialTime))
		_, _ = conn.Write([]byte("GET / HTTP/1.0\r\n\r\n"))
		var n int
		if n, err = conn.Read(make([]byte, 100)); n > 0 {
			err = nil
		}
		conn.Close()
	}
	m.say("dial %s: %v", address, outcome(err))
}

// ask asks for what is another's: scope, host and repository, or scope and name.
func (m *middle) ask(words []string) {
	q := request.Ask{ID: stolenID, Scope: request.Scope(words[0])}
	switch q.Scope {
	case request.Secret, request.Agent:
		q.Name = words[1]
	default:
		q.Host, q.Repository = words[1], words[2]
	}
	m.say("asks for %s", strings.Join(words, " "))
	_ = m.up.WriteJSON(request.FrameAsk, q)
	time.Sleep(grace) // an answer is not waited for: there may be none
}

// stolen tells of an answer that the real executor did not ask for.
func (m *middle) stolen(payload []byte) bool {
	var a request.Answer
	if json.Unmarshal(payload, &a) != nil || a.ID != stolenID {
		return false
	}
	m.say("got the answer %+v", a)
	return true
}

// output hands out something: the Output as JSON, then its bytes after a bar.
// The digest is added where the Output has "digest":"right".
func (m *middle) output(text string) {
	head, data, _ := strings.Cut(text, " | ")
	var o request.Output
	if err := json.Unmarshal([]byte(head), &o); err != nil {
		panic(err)
	}
	o.Stream = stolenStream
	if o.Digest == "right" {
		o.Digest, o.Size = fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(data))), int64(len(data))
	}
	m.say("hands out %s %s", o.Kind, o.Name+o.Digest)
	_ = m.up.WriteJSON(request.FrameOutput, o)
	_ = m.up.WriteChunk(o.Stream, []byte(data))
	_ = m.up.WriteJSON(request.FrameEnd, request.OutputEnd{Stream: o.Stream})
	time.Sleep(grace) // the launcher ends it, if it does
}

// event sends an event, as JSON.
func (m *middle) event(text string) {
	var e request.Event
	if err := json.Unmarshal([]byte(text), &e); err != nil {
		panic(err)
	}
	e.Time = time.Now()
	_ = m.up.WriteJSON(request.FrameEvent, e)
}
