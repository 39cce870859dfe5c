package git

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

const (
	// maxGreeting bounds what a server says of itself and of its refs, in bytes.
	maxGreeting = 64 << 20
	maxRefs     = 1 << 20
	// maxCaps bounds what a server can, maxAnswer what it says beside a pack, in
	// bytes.
	maxCaps   = 1 << 20
	maxAnswer = 64 << 20
)

// errTooMuch is an answer without an end.
var errTooMuch = errors.New("the server says too much beside the pack")

// conn carries requests to git-upload-pack.
type conn interface {
	// greet returns what the server says first.
	greet(ctx context.Context) (*lines, error)
	// ask sends a request and returns the answer.
	ask(ctx context.Context, request []byte) (*lines, error)
	// close ends it and returns what the server said beside the protocol.
	close() string
}

// remote is a repository on a server, in a conversation by version 2 of git's
// protocol, or by version 0 with servers that know no other.
type remote struct {
	conn   conn
	agent  string
	format format
	v2     bool
	caps   map[string]string // capabilities and their values
	refs   []ref             // version 0: all of them
}

// ref is a name of a commit or tag.
type ref struct {
	name   string
	id     id
	peeled id     // what an annotated tag stands for, else zero
	target string // the ref that HEAD is
}

func greet(ctx context.Context, c conn, agent string) (*remote, error) {
	l, err := c.greet(ctx)
	if err != nil {
		return nil, err
	}
	r := &remote{conn: c, agent: agent, caps: map[string]string{}}
	first, m, err := l.text()
	if err == nil && strings.HasPrefix(first, "# service=") {
		if _, _, err = l.text(); err == nil { // a flush
			first, m, err = l.text()
		}
	}
	if err == nil && first == "version 1" {
		first, m, err = l.text()
	}
	if err != nil {
		return nil, err
	}
	if first == "version 2" {
		r.v2 = true
		return r, r.readCaps(l)
	}
	return r, r.readRefs(l, first, m)
}

func (r *remote) readCaps(l *lines) (err error) {
	for size := 0; ; {
		s, m, err := l.text()
		if err != nil {
			return err
		}
		if m != dataLine {
			break
		}
		if size += headSize + len(s); size > maxCaps {
			return errors.New("the server has too many capabilities")
		}
		key, value, _ := strings.Cut(s, "=")
		r.caps[key] = value
	}
	r.format, err = formatOf(r.caps["object-format"])
	return err
}

// readRefs reads the refs of version 0, the first of which has the capabilities
// with it.
func (r *remote) readRefs(l *lines, line string, m mark) (err error) {
	size := 0
	for first := true; m == dataLine; first = false {
		var caps string
		line, caps, _ = strings.Cut(line, "\x00")
		if first {
			if err := r.setCaps(caps); err != nil {
				return err
			}
		}
		if size += len(line); size > maxGreeting {
			return errors.New("the server has too many refs")
		}
		if err := r.addRef(line); err != nil {
			return err
		}
		if line, m, err = l.text(); err != nil {
			return err
		}
	}
	if head := r.ref("HEAD"); head != nil {
		head.target = r.caps["symref HEAD"]
	}
	return nil
}

func (r *remote) setCaps(caps string) (err error) {
	for c := range strings.FieldsSeq(caps) {
		key, value, _ := strings.Cut(c, "=")
		if from, to, ok := strings.Cut(value, ":"); ok && key == "symref" {
			key, value = "symref "+from, to
		}
		r.caps[key] = value
	}
	r.format, err = formatOf(r.caps["object-format"])
	return err
}

// addRef takes in "hash name", or for what a tag stands for "hash name^{}".
func (r *remote) addRef(line string) error {
	hash, name, _ := strings.Cut(line, " ")
	if hash == "shallow" || name == "capabilities^{}" {
		return nil
	}
	i, err := r.format.parse(hash)
	if err != nil {
		return fmt.Errorf("the server does not speak git's protocol: %w", err)
	}
	if tag, ok := strings.CutSuffix(name, "^{}"); ok {
		if n := len(r.refs); n > 0 && r.refs[n-1].name == tag {
			r.refs[n-1].peeled = i
		}
		return nil
	}
	r.refs = append(r.refs, ref{name: name, id: i})
	return nil
}

// ref returns the ref of a name, or nil.
func (r *remote) ref(name string) *ref {
	i := slices.IndexFunc(r.refs, func(x ref) bool { return x.name == name })
	if i < 0 {
		return nil
	}
	return &r.refs[i]
}

// list makes the refs known whose names begin with one of the prefixes.
func (r *remote) list(ctx context.Context, prefixes ...string) error {
	if !r.v2 {
		return nil // they are
	}
	var q message
	r.command(&q, "ls-refs")
	q.line("peel")
	q.line("symrefs")
	for _, p := range prefixes {
		q.line("ref-prefix %s", p)
	}
	q.flush()
	l, err := r.conn.ask(ctx, q.Bytes())
	if err != nil {
		return err
	}
	r.refs = nil
	for size := 0; ; {
		s, m, err := l.text()
		if err != nil {
			return err
		}
		if m != dataLine {
			return nil
		}
		if size += headSize + len(s); size > maxGreeting || len(r.refs) >= maxRefs {
			return errors.New("the server has too many refs")
		}
		if err := r.addRefV2(s); err != nil {
			return err
		}
	}
}

// addRefV2 takes in "hash name [symref-target:ref] [peeled:hash]".
func (r *remote) addRefV2(line string) (err error) {
	fields := strings.Split(line, " ")
	if fields[0] == "unborn" || len(fields) < 2 {
		return nil
	}
	x := ref{name: fields[1]}
	if x.id, err = r.format.parse(fields[0]); err != nil {
		return err
	}
	for _, attr := range fields[2:] {
		if v, ok := strings.CutPrefix(attr, "symref-target:"); ok {
			x.target = v
		}
		if v, ok := strings.CutPrefix(attr, "peeled:"); ok {
			if x.peeled, err = r.format.parse(v); err != nil {
				return err
			}
		}
	}
	r.refs = append(r.refs, x)
	return nil
}

// command begins a request of version 2.
func (r *remote) command(q *message, name string) {
	q.line("command=%s", name)
	if _, ok := r.caps["agent"]; ok {
		q.line("agent=%s", r.agent)
	}
	if v, ok := r.caps["object-format"]; ok {
		q.line("object-format=%s", v)
	}
	q.delim()
}

// fetch asks for objects with all that belongs to them: with the whole history,
// or without. It returns the pack, and the commits whose parents are left out.
func (r *remote) fetch(ctx context.Context, wants []id, history bool) (pack io.Reader, shallow []string, err error) {
	if r.v2 {
		return r.fetchV2(ctx, wants, history)
	}
	return r.fetchV0(ctx, wants, history)
}

func (r *remote) fetchV2(ctx context.Context, wants []id, history bool) (pack io.Reader, shallow []string, err error) {
	var q message
	r.command(&q, "fetch")
	q.line("ofs-delta")
	q.line("no-progress")
	for _, w := range wants {
		q.line("want %s", r.format.hex(w))
	}
	if !history && slices.Contains(strings.Fields(r.caps["fetch"]), "shallow") {
		q.line("deepen 1")
	}
	q.line("done")
	q.flush()
	l, err := r.conn.ask(ctx, q.Bytes())
	if err != nil {
		return nil, nil, err
	}
	for size := 0; ; {
		s, m, err := l.text()
		if err != nil {
			return nil, nil, err
		}
		if m == flushLine {
			return nil, nil, errors.New("the server sent no pack")
		}
		if size += headSize + len(s); size > maxAnswer {
			return nil, nil, errTooMuch
		}
		if commit, ok := strings.CutPrefix(s, "shallow "); ok && len(shallow) < maxRefs {
			shallow = append(shallow, commit)
		}
		if s == "packfile" {
			return &band{l: l}, shallow, nil
		}
	}
}

func (r *remote) fetchV0(ctx context.Context, wants []id, history bool) (pack io.Reader, shallow []string, err error) {
	var caps []string
	for _, c := range []string{"side-band-64k", "ofs-delta", "no-progress"} {
		if _, ok := r.caps[c]; ok {
			caps = append(caps, c)
		}
	}
	if _, ok := r.caps["agent"]; ok {
		caps = append(caps, "agent="+r.agent)
	}
	if v, ok := r.caps["object-format"]; ok {
		caps = append(caps, "object-format="+v)
	}
	_, deepen := r.caps["shallow"]
	deepen = deepen && !history
	if deepen {
		caps = append(caps, "shallow")
	}
	var q message
	for i, w := range wants {
		if i == 0 {
			q.line("want %s %s", r.format.hex(w), strings.Join(caps, " "))
			continue
		}
		q.line("want %s", r.format.hex(w))
	}
	if deepen {
		q.line("deepen 1")
	}
	q.flush()
	q.line("done")
	l, err := r.conn.ask(ctx, q.Bytes())
	if err != nil {
		return nil, nil, err
	}
	if shallow, err = readV0(l, deepen); err != nil {
		return nil, nil, err
	}
	if slices.Contains(caps, "side-band-64k") {
		return &band{l: l}, shallow, nil
	}
	return l.r, shallow, nil
}

// readV0 reads what comes before the pack: the shallow commits and a flush if
// they were asked for, then NAK, since nothing was offered.
func readV0(l *lines, deepen bool) (shallow []string, err error) {
	for size := 0; ; {
		s, m, err := l.text()
		if err != nil {
			return nil, err
		}
		if size += headSize + len(s); size > maxAnswer {
			return nil, errTooMuch
		}
		commit, ok := strings.CutPrefix(s, "shallow ")
		switch {
		case m == flushLine && deepen:
			deepen = false
		case ok && deepen && len(shallow) < maxRefs:
			shallow = append(shallow, commit)
		case s == "NAK" && !deepen:
			return shallow, nil
		default:
			return nil, fmt.Errorf("unexpected answer %q", printable([]byte(s)))
		}
	}
}

// takes says whether the server hands out a commit that no ref names.
func (r *remote) takes(commit id) bool {
	if r.v2 {
		return true
	}
	_, reachable := r.caps["allow-reachable-sha1-in-want"]
	_, tip := r.caps["allow-tip-sha1-in-want"]
	return reachable || tip || slices.ContainsFunc(r.refs, func(x ref) bool {
		return bytes.Equal(x.id[:], commit[:])
	})
}
