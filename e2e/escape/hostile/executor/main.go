// Command executor stands for an executor that was taken over. It carries the
// real one with it, as hostile.Executor puts it together, starts it, and stands
// between it and the launcher: all that is asked of it is done, but its script
// says what it does beside that, a line an act, the role first:
//
//	push ask pull registry.example.com a/b
//	build result {"digest":"sha256:…"}
package main

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

const channelFd = 3

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "hostile executor:", err)
		os.Exit(1)
	}
}

func run() error {
	real, script, err := cargo()
	if err != nil {
		return err
	}
	unix.CloseOnExec(channelFd)
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	inner, outer := os.NewFile(uintptr(fds[0]), "inner"), os.NewFile(uintptr(channelFd), "channel")
	theirs := os.NewFile(uintptr(fds[1]), "theirs")
	cmd := exec.Command(real, os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = os.Stdin, os.Stdout, os.Stderr, []*os.File{theirs}
	if err := cmd.Start(); err != nil {
		return err
	}
	theirs.Close()
	m := &middle{up: request.NewWriter(outer), down: request.NewWriter(inner), acts: actsOf(script, role())}
	go m.relayDown(request.NewReader(outer))
	err = m.relayUp(request.NewReader(inner))
	return errors.Join(err, cmd.Wait())
}

// trailer is the end of the program's file: the sizes of what lies before it, the
// real executor and the script, in bytes, little endian.
type trailer struct{ Executor, Script uint64 }

// cargo unpacks what the program carries.
func cargo() (executor, script string, err error) {
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		return "", "", err
	}
	defer f.Close()
	var end trailer
	at, err := f.Seek(-int64(binary.Size(end)), io.SeekEnd)
	if err != nil {
		return "", "", err
	}
	if err := binary.Read(f, binary.LittleEndian, &end); err != nil {
		return "", "", err
	}
	text := make([]byte, end.Script)
	at -= int64(end.Script)
	if _, err := f.ReadAt(text, at); err != nil {
		return "", "", err
	}
	executor = filepath.Join("/tmp", "executor")
	out, err := os.OpenFile(executor, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return "", "", err
	}
	_, err = io.Copy(out, io.NewSectionReader(f, at-int64(end.Executor), int64(end.Executor)))
	return executor, string(text), errors.Join(err, out.Close())
}

// role is the request's; all where there is but one executor.
func role() string {
	var r struct{ Role string }
	if b, err := os.ReadFile("/in/request.json"); err == nil {
		_ = json.Unmarshal(b, &r) // the real executor complains
	}
	return r.Role
}

// act is a line of the script.
type act struct {
	word string
	rest string
}

// actsOf are the acts of a role; an executor without one has all.
func actsOf(script, role string) []act {
	var out []act
	for line := range strings.Lines(script) {
		who, what, _ := strings.Cut(strings.TrimSpace(line), " ")
		if who != role && role != "" && who != "any" {
			continue
		}
		word, rest, _ := strings.Cut(what, " ")
		out = append(out, act{word, rest})
	}
	return out
}

// middle stands between the launcher and the real executor.
type middle struct {
	up, down *request.Writer
	acts     []act
}

// relayDown passes on what the launcher says; when it lets the executor begin,
// the acts come first.
func (m *middle) relayDown(r *request.Reader) {
	for {
		kind, payload, err := r.Next()
		if err != nil {
			os.Exit(0) // the launcher has gone
		}
		if kind == request.FrameAnswer && m.stolen(payload) {
			continue
		}
		if kind == request.FrameGo {
			for _, a := range m.acts {
				m.before(a)
			}
		}
		if m.down.Write(kind, payload) != nil {
			return
		}
	}
}

// relayUp passes on what the real executor says, and bends its result.
func (m *middle) relayUp(r *request.Reader) error {
	for {
		kind, payload, err := r.Next()
		if errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) {
			return nil
		}
		if err != nil {
			return err
		}
		switch kind {
		case request.FrameHello:
			payload, err = lie(payload)
		case request.FrameResult:
			payload, err = m.bend(payload)
		}
		if err != nil {
			return err
		}
		if err := m.up.Write(kind, payload); err != nil {
			return err
		}
	}
}

// lie makes the real executor's measurement that of the one process that there
// should be: what an executor says of itself is a claim.
func lie(payload []byte) ([]byte, error) {
	var p request.Posture
	if err := json.Unmarshal(payload, &p); err != nil {
		return nil, err
	}
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return nil, err
	}
	defer self.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, self); err != nil {
		return nil, err
	}
	p.PID, p.Processes, p.Digest = 1, 0, fmt.Sprintf("sha256:%x", sum.Sum(nil))
	return json.Marshal(p)
}

// bend changes fields of the result: those that "result" acts say, as JSON.
func (m *middle) bend(payload []byte) ([]byte, error) {
	var result map[string]any
	if err := json.Unmarshal(payload, &result); err != nil {
		return nil, err
	}
	for _, a := range m.acts {
		switch a.word {
		case "result":
			if err := json.Unmarshal([]byte(a.rest), &result); err != nil {
				return nil, err
			}
		case "never":
			m.say("does not end")
			time.Sleep(time.Hour)
		}
	}
	return json.Marshal(result)
}

// say tells the user, through the launcher.
func (m *middle) say(format string, args ...any) {
	_ = m.up.WriteJSON(request.FrameEvent, request.Event{
		Time: time.Now(), Kind: request.EventInfo, Text: "hostile: " + fmt.Sprintf(format, args...),
	}) // a launcher that has gone hears nothing
}
