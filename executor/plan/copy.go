package plan

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/dockerfile"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
)

// copy is COPY.
func (m *maker) copy(d *draft, c command, i *instructions.CopyCommand, lint *linter.Linter) error {
	op := &Copy{Chown: i.Chown, Chmod: i.Chmod, Link: i.Link, Parents: i.Parents, Exclude: i.ExcludePatterns}
	if i.From != "" {
		op.From.Kind = FromScratch
		if src := c.sources[0]; src != nil {
			if !src.done {
				return fmt.Errorf("cannot copy from stage %q, it needs to be defined before current stage %q", i.From, d.Name)
			}
			op.From = src.from()
		}
	}
	for _, src := range i.SourcePaths {
		switch git, err := ParseGit(src); {
		case err != nil:
			return err
		case git != nil:
			return errors.New("source can't be a git ref for COPY")
		case isHTTP(src):
			return errors.New("source can't be a URL for COPY")
		}
		if i.From == "" {
			m.checks.ignored("Copy", src, i.Location(), lint)
		}
		op.Paths = append(op.Paths, src)
	}
	return m.files(d, c, op, &i.SourcesAndDest)
}

// add is ADD.
func (m *maker) add(d *draft, c command, i *instructions.AddCommand, lint *linter.Linter) error {
	op := &Copy{Add: true, Unpack: i.Unpack, Chown: i.Chown, Chmod: i.Chmod, Link: i.Link, Exclude: i.ExcludePatterns}
	if err := checkChecksum(i); err != nil {
		return err
	}
	for _, src := range i.SourcePaths {
		remote, err := newRemote(i, src)
		switch {
		case err != nil:
			return err
		case remote != nil:
			remote.After = len(op.Paths)
			op.Remotes = append(op.Remotes, *remote)
		default:
			m.checks.ignored("Add", src, i.Location(), lint)
			op.Paths = append(op.Paths, src)
		}
	}
	return m.files(d, c, op, &i.SourcesAndDest)
}

// files is what COPY and ADD have in common.
func (m *maker) files(d *draft, c command, op *Copy, i *instructions.SourcesAndDest) error {
	op.Dest = resolveDest(d.cwd(), i.DestPath)
	if op.Link && ownerByName(op.Chown) {
		return fmt.Errorf("--chown=%s: user and group names can't be resolved when used with --link, use numeric uid[:gid] instead", op.Chown)
	}
	if d.isEmpty() && ownerByName(op.Chown) {
		return noNames("--chown=" + op.Chown)
	}
	if err := checkMode(op.Chmod); err != nil {
		return err
	}
	words := []string{"COPY"}
	if op.Add {
		words[0] = "ADD"
	}
	if op.Parents {
		words = append(words, "--parents")
	}
	if op.Chown != "" {
		words = append(words, "--chown="+op.Chown)
	}
	if op.Chmod != "" {
		words = append(words, "--chmod="+op.Chmod)
	}
	words = append(words, i.SourcePaths...)
	for _, f := range i.SourceContents {
		if err := checkFileName(f.Path); err != nil {
			return err
		}
		words = append(words, "<<"+f.Path)
		op.Files = append(op.Files, File{Name: f.Path, Data: []byte(f.Data), Mode: 0o644})
	}
	words = append(words, i.DestPath)
	if err := m.step(d, c, op, withoutLogins(m.shown(d, fmt.Sprint(c.Command)))); err != nil {
		return err
	}
	return m.record(d, withoutLogins(strings.Join(words, " "))+" # buildkit", true)
}

// ownerByName says whether an owner is given by a name that only the passwd and
// group files of the stage can resolve. root is 0 everywhere.
func ownerByName(chown string) bool {
	user, group, _ := strings.Cut(chown, ":")
	return user != "" && !isID(user) || group != "" && !isID(group)
}

// isEmpty says whether the stage has no files at all yet.
func (d *draft) isEmpty() bool {
	for ; d != nil; d = d.base {
		if len(d.Steps) > 0 || d.base == nil && !d.isScratch() {
			return false
		}
	}
	return true
}

// noNames refuses an owner by name in a stage without files: there is no passwd
// file that could know it, and to take root instead would be a surprise.
func noNames(what string) error {
	e := dockerfile.Errorf(request.ClassCopy, nil, "%s: user and group names can't be resolved in an empty stage", what)
	e.Hint = "use a numeric uid[:gid]"
	return e
}

func isID(s string) bool {
	_, err := strconv.ParseInt(s, 10, 32)
	return err == nil || s == "root"
}

// checkMode refuses what is neither an octal nor a symbolic mode.
func checkMode(mode string) error {
	if mode == "" {
		return nil
	}
	n, err := strconv.ParseUint(mode, 8, 32)
	if err == nil && n <= 0o7777 {
		return nil
	}
	if err == nil || mode[0] >= '0' && mode[0] <= '9' {
		return fmt.Errorf("invalid chmod parameter: '%v'. it should be octal string and between 0 and 07777", mode)
	}
	if !isSymbolicMode(mode) {
		return fmt.Errorf("invalid chmod parameter: '%v'. it should be an octal string or a symbolic mode such as u=rwX,go=rX", mode)
	}
	return nil
}

// isSymbolicMode checks chmod's grammar: clauses, separated by commas, of
// [ugoa]* and one or more of [-+=] with [rwxXstugo]*.
func isSymbolicMode(mode string) bool {
	for clause := range strings.SplitSeq(mode, ",") {
		actions := strings.TrimLeft(clause, "ugoa")
		if actions == "" || !strings.ContainsRune("+-=", rune(actions[0])) {
			return false
		}
		if strings.Trim(actions, "+-=rwxXstugo") != "" {
			return false
		}
	}
	return true
}
