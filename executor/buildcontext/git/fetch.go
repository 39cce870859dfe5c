package git

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/buildcontext"
)

// found is a commit with all that it has, on this side.
type found struct {
	pack    *pack
	commit  id
	tree    id
	time    time.Time
	name    string   // the ref as the remote calls it; empty: a commit was asked for
	tip     id       // of name: an annotated tag, or the commit
	shallow []string // commits whose parents were left out
}

// want is what is to be fetched.
type want struct {
	name string // full name of a ref; empty: none
	tip  id
	hash bool // tip was asked for by its hash
}

// fetch brings what r names here.
func (v *visit) fetch(ctx context.Context, u *url.URL, r buildcontext.Repository) (f *found, err error) {
	if err := checkWish(r); err != nil {
		return nil, err
	}
	rem, err := v.talk(ctx, u)
	if err != nil {
		return nil, err
	}
	defer func() { err = aside(err, rem.conn.close()) }()
	w, err := choose(ctx, rem, r)
	if err != nil {
		return nil, err
	}
	f, err = v.shallow(ctx, rem, w)
	if refused(err) && w.hash {
		// The server gives commits only with the branches and tags that have them.
		f, err = v.everything(ctx, u, w)
	}
	if err != nil {
		return nil, err
	}
	if err := f.look(r); err != nil {
		return nil, errors.Join(err, f.pack.close())
	}
	return f, nil
}

// aside adds what a server said beside the protocol to an error.
func aside(err error, text string) error {
	if err == nil || text == "" {
		return err
	}
	return fmt.Errorf("%w: %s", err, text)
}

func (v *visit) talk(ctx context.Context, u *url.URL) (*remote, error) {
	c, err := v.connect(ctx, u)
	if err != nil {
		return nil, err
	}
	r, err := greet(ctx, c, v.cfg.HTTP.UserAgent)
	if err != nil {
		return nil, aside(err, c.close())
	}
	return r, nil
}

// checkWish checks what needs no server, in BuildKit's words.
func checkWish(r buildcontext.Repository) error {
	switch {
	case strings.HasPrefix(r.Ref, "-"):
		return fmt.Errorf("invalid git ref %q", r.Ref)
	case r.Commit != "" && !isHex(r.Commit, "0123456789abcdefABCDEF"):
		return fmt.Errorf("invalid checksum %s for Git URL, expected hex commit hash", r.Commit)
	case isCommitHash(r.Ref) && !strings.HasPrefix(r.Ref, r.Commit):
		return fmt.Errorf("expected checksum to match %s, got %s", r.Commit, r.Ref)
	case strings.ContainsAny(r.Ref, " \n\x00"):
		return fmt.Errorf("invalid git ref %q", r.Ref)
	}
	return nil
}

// choose finds what r names on the server. A name is looked for as a full ref,
// then as a branch, then as a tag.
func choose(ctx context.Context, rem *remote, r buildcontext.Repository) (w want, err error) {
	if isCommitHash(r.Ref) {
		w.tip, err = rem.format.parse(r.Ref)
		w.hash = true
		return w, err
	}
	if r.FetchByCommit {
		return byCommit(rem, r)
	}
	name := r.Ref
	if name == "" {
		if err := rem.list(ctx, "HEAD"); err != nil {
			return w, err
		}
		head := rem.ref("HEAD")
		branch, ok := "", false
		if head != nil {
			branch, ok = strings.CutPrefix(head.target, "refs/heads/")
		}
		if !ok {
			return w, errors.New("could not find default branch for repository")
		}
		name = branch
	}
	names := []string{
		"refs/" + strings.TrimPrefix(name, "refs/"),
		"refs/heads/" + strings.TrimPrefix(name, "refs/heads/"),
		"refs/tags/" + strings.TrimPrefix(name, "refs/tags/"),
	}
	if err := rem.list(ctx, names...); err != nil {
		return w, err
	}
	for _, n := range names {
		x := rem.ref(n)
		if x == nil {
			continue
		}
		hash, peeled := rem.format.hex(x.id), rem.format.hex(x.peeled)
		if strings.HasPrefix(hash, r.Commit) || x.peeled != (id{}) && strings.HasPrefix(peeled, r.Commit) {
			return want{name: n, tip: x.id}, nil
		}
		if x.peeled != (id{}) {
			hash += " or " + peeled
		}
		return w, fmt.Errorf("expected checksum to match %s, got %s", r.Commit, hash)
	}
	return w, fmt.Errorf("repository does not contain ref %s", name)
}

// byCommit trusts the checksum. The ref is a name for it here; a short one is a
// branch.
func byCommit(rem *remote, r buildcontext.Repository) (w want, err error) {
	switch {
	case r.Commit == "":
		return w, errors.New("fetch-by-commit requires a checksum or a commit SHA ref")
	case !isCommitHash(r.Commit):
		return w, fmt.Errorf("fetch-by-commit requires a full commit SHA checksum, got %q", r.Commit)
	case r.Ref != "" && !strings.HasPrefix(r.Ref, "refs/"):
		w.name = "refs/heads/" + r.Ref
	default:
		w.name = r.Ref
	}
	w.hash = true
	w.tip, err = rem.format.parse(r.Commit)
	return w, err
}

// shallow fetches without history.
func (v *visit) shallow(ctx context.Context, rem *remote, w want) (*found, error) {
	if !rem.takes(w.tip) {
		return nil, &remoteError{"not our ref " + rem.format.hex(w.tip)}
	}
	return v.receive(ctx, rem, w, []id{w.tip}, false)
}

// everything fetches all branches and tags with their history.
func (v *visit) everything(ctx context.Context, u *url.URL, w want) (f *found, err error) {
	rem, err := v.talk(ctx, u)
	if err != nil {
		return nil, err
	}
	defer func() { err = aside(err, rem.conn.close()) }()
	if err := rem.list(ctx, "refs/heads/", "refs/tags/"); err != nil {
		return nil, err
	}
	var wants []id
	for _, x := range rem.refs {
		if strings.HasPrefix(x.name, "refs/heads/") || strings.HasPrefix(x.name, "refs/tags/") {
			wants = append(wants, x.id)
		}
	}
	slices.SortFunc(wants, func(a, b id) int { return slices.Compare(a[:], b[:]) })
	wants = slices.Compact(wants)
	if len(wants) == 0 {
		return nil, errors.New("the repository is empty")
	}
	return v.receive(ctx, rem, w, wants, true)
}

func (v *visit) receive(ctx context.Context, rem *remote, w want, wants []id, history bool) (*found, error) {
	in, shallow, err := rem.fetch(ctx, wants, history)
	if err != nil {
		return nil, err
	}
	p, err := newPack(v.cfg.Dir, rem.format)
	if err != nil {
		return nil, err
	}
	if err := p.receive(in, v.limits); err != nil {
		return nil, errors.Join(err, p.close())
	}
	return &found{pack: p, name: w.name, tip: w.tip, shallow: shallow}, nil
}

// refused says whether a server did not want to hand out an object.
func refused(err error) bool {
	var e *remoteError
	return errors.As(err, &e) && (strings.Contains(e.text, "not our ref") || strings.Contains(e.text, "unadvertised object"))
}

// look finds the commit and checks its hash.
func (f *found) look(r buildcontext.Repository) error {
	var err error
	if f.commit, err = f.pack.peel(f.tip); err != nil {
		return err
	}
	tip, hash := f.pack.format.hex(f.tip), f.pack.format.hex(f.commit)
	if !strings.HasPrefix(tip, r.Commit) && !strings.HasPrefix(hash, r.Commit) {
		if tip != hash {
			hash = tip + " or " + hash
		}
		return fmt.Errorf("expected checksum to match %s, got %s", r.Commit, hash)
	}
	c, err := f.pack.readCommit(f.commit)
	f.tree, f.time = c.tree, c.time
	return err
}
