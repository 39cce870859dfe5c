package executor

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/distribution/reference"
	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/buildcontext"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/dockerfile"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/layer"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/plan"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/registry"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/rootfs"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/step"
)

// fetcher fetches and unpacks contexts into the workspace.
type fetcher struct {
	in    *Inputs
	req   *request.Build
	space *rootfs.Space
	tools Tools
	steps *Steps
	// out takes what is fetched, for a role that follows; nil: there is none.
	out request.Outlet
	// times are those of contexts that an earlier role fetched.
	times map[string]time.Time
}

// fetched is a context that was fetched.
type fetched struct {
	dir  string
	text string    // a file that is no archive, or empty; then dir is, too
	file string    // what came, if that was a file
	time time.Time // of the commit, or what the server says; zero: unknown
}

// date notes the time of a context, or where to find it: an archive has that of
// its newest file, which is looked for when it is asked for.
func (in *Inputs) date(name string, f fetched) {
	switch {
	case !f.time.IsZero():
		in.Times[name] = f.time
	case f.text == "":
		in.unpacked[name] = f.dir
	}
}

// mainContext finds the directory of the build context. text is the file that
// came in its place, if that is none: the Dockerfile of an empty context.
func (f fetcher) mainContext(ctx context.Context, in *Inputs) (root, text string, err error) {
	src := f.req.Source
	switch {
	case src != (request.Source{}):
	case f.req.Context != "":
		return string(f.req.Context), "", nil
	case f.req.Call == request.CallWarm: // of no step is anything done
		root, err = f.space.Mkdir()
		return root, "", err
	}
	var got fetched
	err = f.steps.do(f.verb()+" build context"+from(src), func(*announced) error {
		if got, err = f.fetch(ctx, request.FetchedMain, src); err != nil {
			return err
		}
		if got.text != "" && (!src.Text || src.Dir != "") {
			return errors.New("not a tar archive")
		}
		if got.text != "" {
			got.dir, err = f.space.Mkdir()
			return err
		}
		got.dir, err = subdirectory(got.dir, src.Dir)
		return err
	})
	if err != nil {
		return "", "", failed("load build context"+from(src), err)
	}
	in.date("", got)
	return got.dir, got.text, nil
}

// verb is what is done to contexts: once they are loaded, only unpacked.
func (f fetcher) verb() string {
	if f.req.Role == request.RoleBuild {
		return "unpack"
	}
	return "load"
}

// failed puts an error of the network or of an archive into the user's terms;
// one that has a class keeps it.
func failed(what string, err error) error {
	var known *dockerfile.Error
	if errors.As(err, &known) || errors.Is(err, context.Canceled) || errors.Is(err, unix.ENOSPC) {
		return fmt.Errorf("%s: %w", what, err)
	}
	return dockerfile.Errorf(request.ClassResolve, nil, "%s: %w", what, err)
}

// from names a source in messages, without passwords.
func from(src request.Source) string {
	if src.URL == "" {
		return ""
	}
	return " from " + buildcontext.ShownText(src.URL)
}

// fetch fetches a source, a repository, a download or a file, and hands out what
// came from outside under a name.
func (f fetcher) fetch(ctx context.Context, name string, src request.Source) (got fetched, err error) {
	if src.Tar != "" {
		return f.local(ctx, name, string(src.Tar))
	}
	if f.req.Role == request.RoleBuild {
		return got, errors.New("it was not fetched")
	}
	r, err := repository(src, f.req)
	switch {
	case err != nil:
		return got, err
	case r != nil:
		got, err = f.checkout(ctx, *r)
	default:
		got, err = f.download(ctx, src.URL)
	}
	if err != nil {
		return got, err
	}
	if err := f.handOut(ctx, name, got); err != nil {
		return got, err
	}
	if got.file != "" && got.text == "" {
		err = os.Remove(got.file)
	}
	return got, err
}

// local unpacks a file that is there.
func (f fetcher) local(ctx context.Context, name, file string) (fetched, error) {
	got, err := f.unpack(ctx, file)
	got.time = f.times[name]
	// In a pod standard input was kept in the workspace.
	if below, rerr := filepath.Rel(string(f.req.Workspace), file); err == nil && rerr == nil && filepath.IsLocal(below) && got.text == "" {
		err = os.Remove(file)
	}
	return got, err
}

// repository is the git repository that a source means, or nil.
func repository(src request.Source, req *request.Build) (*buildcontext.Repository, error) {
	if g := src.Git; g != nil {
		return &buildcontext.Repository{
			URL: src.URL, Ref: g.Ref, KeepGitDir: g.KeepGitDir, NoSubmodules: !g.Submodules,
		}, nil
	}
	g, err := plan.ParseGitContext(src.URL)
	if err != nil || g == nil {
		return nil, err
	}
	r := buildcontext.Repository(g.Repository)
	r.KeepGitDir = g.KeepGitDir != nil && *g.KeepGitDir
	for _, a := range req.Args {
		switch a.Key {
		case "BUILDKIT_CONTEXT_KEEP_GIT_DIR":
			keep, err := strconv.ParseBool(a.Value)
			r.KeepGitDir = r.KeepGitDir || err == nil && keep
		case "SOURCE_DATE_EPOCH":
			r.CommitTime = r.CommitTime || a.Value != ""
		}
	}
	return &r, nil
}

func (f fetcher) checkout(ctx context.Context, r buildcontext.Repository) (fetched, error) {
	if f.tools.Git == nil {
		return fetched{}, dockerfile.Errorf(request.ClassUnsupported, nil, "contexts from git are not supported in this build")
	}
	dir, err := f.space.Mkdir()
	if err != nil {
		return fetched{}, err
	}
	c, err := f.tools.Git.Checkout(ctx, r, dir)
	if err != nil {
		return fetched{}, err
	}
	f.in.materials = append(f.in.materials, gitMaterial(r, c.Commit))
	return fetched{dir: dir, time: c.Time}, nil
}

// download fetches a URL and unpacks it if it is an archive.
func (f fetcher) download(ctx context.Context, rawURL string) (fetched, error) {
	if !strings.HasPrefix(rawURL, "http://") && !strings.HasPrefix(rawURL, "https://") {
		return fetched{}, dockerfile.Errorf(request.ClassUnsupported, nil, "%s: contexts of this kind are not supported", buildcontext.ShownText(rawURL))
	}
	dir, err := f.space.Mkdir()
	if err != nil {
		return fetched{}, err
	}
	file := filepath.Join(dir, textName)
	modified, err := f.save(ctx, rawURL, file)
	if err != nil {
		return fetched{}, err
	}
	got, err := f.unpack(ctx, file)
	got.file, got.time = file, modified
	return got, err
}

// textName is what BuildKit calls a file that is all of a named context.
const textName = "context"

func (f fetcher) save(ctx context.Context, rawURL, file string) (modified time.Time, err error) {
	w, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return modified, err
	}
	sum := sha256.New()
	modified, err = f.tools.Download.Download(ctx, rawURL, io.MultiWriter(w, sum))
	if err = errors.Join(err, w.Close()); err != nil {
		return modified, err
	}
	f.in.materials = append(f.in.materials, httpMaterial(rawURL, "sha256:"+hex.EncodeToString(sum.Sum(nil))))
	return modified, setTime(file, modified)
}

// setTime gives a file its time, if that is known.
func setTime(file string, t time.Time) error {
	if t.IsZero() {
		return nil
	}
	return os.Chtimes(file, t, t)
}

// newestBelow is the time of the newest regular file below a directory; nil:
// there is none.
func newestBelow(dir string) (*time.Time, error) {
	var latest *time.Time
	err := filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		if t := info.ModTime(); latest == nil || t.After(*latest) {
			latest = &t
		}
		return nil
	})
	return latest, err
}

// unpack unpacks a file into a new directory. All that comes out of it is
// root's, as everything in a context is.
func (f fetcher) unpack(ctx context.Context, file string) (fetched, error) {
	r, err := os.Open(file)
	if err != nil {
		return fetched{}, err
	}
	defer r.Close()
	kind, err := look(r)
	if err != nil || kind == isText {
		return fetched{text: file}, err
	}
	dir, err := f.space.Mkdir()
	if err != nil {
		return fetched{}, err
	}
	root := [2]uint32{}
	err = layer.Extract(ctx, r, dir, "/", layer.ExtractOptions{Owner: &root, Nodes: f.tools.Nodes})
	return fetched{dir: dir}, err
}

type content int

const (
	isText content = iota
	isArchive
)

// look says what a file is by its beginning, and goes back there.
func look(r io.ReadSeeker) (content, error) {
	head := make([]byte, 512)
	n, err := io.ReadFull(r, head)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return isText, err
	}
	if n == 0 {
		return isText, errors.New("it is empty")
	}
	_, err = r.Seek(0, io.SeekStart)
	if err != nil || layer.Sniff(head[:n]) == layer.Unknown {
		return isText, err
	}
	if !layer.IsArchive(r) {
		return isText, errors.New("it is compressed, but no tar archive")
	}
	_, err = r.Seek(0, io.SeekStart)
	return isArchive, err
}

// subdirectory is a directory below root; links are followed below root only.
func subdirectory(root, dir string) (string, error) {
	if dir == "" || dir == "." {
		return root, nil
	}
	fd, err := openat2(root, dir, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	return os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
}

// dockerfile downloads the Dockerfile.
func (f fetcher) dockerfile(ctx context.Context) (data []byte, err error) {
	what := "load Dockerfile from " + buildcontext.ShownText(f.req.DockerfileURL)
	err = f.steps.do(what, func(*announced) error {
		w := &bounded{left: dockerfile.MaxSize}
		if _, err := f.tools.Download.Download(ctx, f.req.DockerfileURL, w); err != nil {
			return err
		}
		data = w.Bytes()
		return f.handOutDockerfile(data)
	})
	if err != nil {
		return nil, failed(what, err)
	}
	f.in.materials = append(f.in.materials, httpMaterial(f.req.DockerfileURL, fmt.Sprintf("sha256:%x", sha256.Sum256(data))))
	return data, nil
}

// bounded is a buffer that takes no more than left bytes.
type bounded struct {
	bytes.Buffer
	left int
}

func (b *bounded) Write(p []byte) (int, error) {
	if b.left -= len(p); b.left < 0 {
		return 0, fmt.Errorf("more than %d bytes are too many for a Dockerfile", dockerfile.MaxSize)
	}
	return b.Buffer.Write(p)
}

// openNamed opens the named contexts. Where only a question about the
// Dockerfile is to be answered, none is fetched.
func (in *Inputs) openNamed(ctx context.Context, f fetcher) error {
	in.Named, in.Layouts = map[string]step.Source{}, layouts{}
	for i, n := range f.req.Contexts {
		named := plan.NamedContext{Name: n.Name}
		var err error
		switch {
		case n.Image != "":
			named.Image, err = fullName(n.Image)
		case n.Layout != "":
			named.Image = layoutImage(n)
			if f.req.Role != request.RoleBuild { // which has the image from the store
				err = in.Layouts.open(n)
			}
		case n.Dir != "":
			in.Named[n.Name], _, err = openContext(string(n.Dir), ownIgnore(string(n.Dir)))
		case f.req.Call == "":
			err = in.fetchNamed(ctx, f, i)
		}
		if err != nil {
			return failed("context "+n.Name, err)
		}
		in.Contexts = append(in.Contexts, named)
	}
	return nil
}

// fetchNamed fetches a named context. What is no archive is there as a file
// called context, as in BuildKit.
func (in *Inputs) fetchNamed(ctx context.Context, f fetcher, i int) error {
	n := f.req.Contexts[i]
	var got fetched
	var err error
	err = f.steps.do("[context "+n.Name+"] "+f.verb()+from(n.Source), func(*announced) error {
		if got, err = f.fetch(ctx, strconv.Itoa(i), n.Source); err != nil {
			return err
		}
		if got.text != "" {
			if got.dir, err = f.alone(got); err != nil {
				return err
			}
		}
		got.dir, err = subdirectory(got.dir, n.Source.Dir)
		return err
	})
	if err != nil {
		return err
	}
	in.date(n.Name, got)
	in.Named[n.Name] = step.Source{Root: got.dir}
	return nil
}

// alone is a directory with a text alone in it.
func (f fetcher) alone(got fetched) (dir string, err error) {
	if got.file == got.text {
		return filepath.Dir(got.file), nil
	}
	if dir, err = f.space.Mkdir(); err != nil {
		return "", err
	}
	file := filepath.Join(dir, textName)
	w, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", err
	}
	if err := errors.Join(copyFile(w, got.text), w.Close()); err != nil {
		return "", err
	}
	return dir, setTime(file, got.time)
}

// fullName normalizes the reference of an image.
func fullName(ref string) (string, error) {
	if ref == plan.EmptyImage {
		return ref, nil
	}
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return "", err
	}
	return reference.TagNameOnly(named).String(), nil
}

// layouts are OCI layouts by the images that they stand for, which are called
// in a way that no reference is.
type layouts map[string]fromLayout

// fromLayout is an image in a layout.
type fromLayout struct {
	*registry.Layout
	ref string
}

// layoutImage is what the image of a layout is called.
func layoutImage(n request.NamedContext) string { return "oci-layout://" + n.Name }

func (l layouts) open(n request.NamedContext) error {
	in, err := registry.OpenLayout(string(n.Layout))
	l[layoutImage(n)] = fromLayout{in, n.Ref}
	return err
}
