package executor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/buildcontext"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/dockerfile"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/plan"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/step"
)

// Inputs are the files that a build reads beside its images.
type Inputs struct {
	// Dockerfile is its content.
	Dockerfile []byte
	// Context is the build context, Ignore the patterns of what is not in it.
	Context step.Source
	Ignore  []string
	// Named are the named contexts that are trees of files.
	Named map[string]step.Source
	// Contexts are all named contexts, as plans want them; Layouts are those
	// that are OCI layouts, by the image that Contexts has for them.
	Contexts []plan.NamedContext
	Layouts  layouts
	// Times are those of contexts that have one, by name, the build context's
	// under the empty one: a commit's, or what the server says.
	Times map[string]time.Time
	// Epochs finds the times of sources; nil: none has one.
	Epochs plan.Epochs
	// Fetched are the contexts that were handed out.
	Fetched []request.Fetched
	// unpacked are the directories of contexts that came as archives.
	unpacked map[string]string
	// materials are what the contexts that were fetched are.
	materials []request.Material
}

// planWith adds the inputs to the options of a plan.
func (in *Inputs) planWith(opt *plan.Options) {
	opt.Contexts, opt.Ignore, opt.Epochs = in.Contexts, in.Ignore, in.Epochs
}

// read finds the inputs, and fetches what has to be fetched. f says what else
// there is to do with that.
func (p *player) read(ctx context.Context, f fetcher) error {
	defer p.steps.span("read inputs")()
	f.in, f.req, f.space, f.tools, f.steps = &p.in, p.req, p.space, p.tools, p.steps
	if err := p.in.open(ctx, f); err != nil {
		return err
	}
	p.in.Epochs = &epochs{in: &p.in, space: p.space, tools: p.tools}
	p.result.Fetched = p.in.Fetched
	return nil
}

// open finds the inputs of a request.
func (in *Inputs) open(ctx context.Context, f fetcher) error {
	req := f.req
	in.Times, in.unpacked = map[string]time.Time{}, map[string]string{}
	root, text, err := f.mainContext(ctx, in)
	if err != nil {
		return err
	}
	at, err := in.findDockerfile(ctx, f, root, text)
	if err != nil {
		return err
	}
	if in.Context, in.Ignore, err = openContext(root, ignoreOf(req, root, at)); err != nil {
		return fmt.Errorf("open context: %w", err)
	}
	return in.openNamed(ctx, f)
}

// findDockerfile reads the Dockerfile: a file that the caller laid out, one that
// is downloaded, the text that came in place of a context, or a file of the
// context below root, whose path there it returns.
func (in *Inputs) findDockerfile(ctx context.Context, f fetcher, root, text string) (at string, err error) {
	name := string(f.req.Dockerfile)
	switch {
	case text != "" && (name != "" || f.req.DockerfileURL != ""):
		return "", dockerfile.Errorf(request.ClassParse, nil,
			"the context is no archive but a text, and there is another Dockerfile: %s", f.req.DockerfileName)
	case text != "":
		in.Dockerfile, err = readDockerfile(os.Open(text))
	case f.req.DockerfileURL != "":
		in.Dockerfile, err = f.dockerfile(ctx)
	case filepath.IsAbs(name):
		in.Dockerfile, err = readDockerfile(os.Open(name))
	default:
		at, in.Dockerfile, err = dockerfileIn(root, name)
	}
	return at, err
}

// dockerfileIn reads the Dockerfile called name, or Dockerfile if that is empty,
// of a context that was fetched. Like BuildKit it takes one in lower case.
func dockerfileIn(root, name string) (at string, data []byte, err error) {
	if name == "" {
		name = "Dockerfile"
	}
	data, err = readDockerfile(openBelow(root, name))
	dir, base := filepath.Split(name)
	if errors.Is(err, fs.ErrNotExist) && base == "Dockerfile" {
		if data, lower := readDockerfile(openBelow(root, dir+"dockerfile")); lower == nil {
			return dir + "dockerfile", data, nil
		}
	}
	if err != nil {
		return "", nil, dockerfile.Errorf(request.ClassParse, nil, "failed to read dockerfile: %w", err)
	}
	return name, data, nil
}

// readDockerfile takes the result of an open.
func readDockerfile(f *os.File, err error) ([]byte, error) {
	if err != nil {
		return nil, fmt.Errorf("read dockerfile: %w", err)
	}
	defer f.Close()
	// One byte more than is allowed lets Parse say so.
	return io.ReadAll(io.LimitReader(f, dockerfile.MaxSize+1))
}

// ignoreOf is the ignore file that applies: one that the caller laid out, else,
// in a context that was fetched, the one beside the Dockerfile at, else the
// context's own.
func ignoreOf(req *request.Build, root, at string) string {
	if req.Ignore != "" || req.Context != "" {
		return string(req.Ignore)
	}
	if at != "" && existsBelow(root, at+ignoreName) {
		return filepath.Join(root, at+ignoreName)
	}
	return ownIgnore(root)
}

const ignoreName = ".dockerignore"

// ownIgnore is the ignore file in the root of a context, or empty.
func ownIgnore(root string) string {
	if existsBelow(root, ignoreName) {
		return filepath.Join(root, ignoreName)
	}
	return ""
}

// openContext opens a context with its ignore file; empty: there is none.
func openContext(root, ignore string) (step.Source, []string, error) {
	files, err := buildcontext.Open(root, ignore)
	if err != nil && ignore != "" {
		err = dockerfile.Errorf(request.ClassParse, nil, "%w", err) // patterns are the user's
	}
	if err != nil {
		return step.Source{}, nil, err
	}
	return step.Source{Root: files.Root, Excluded: files.Excluded, Patterns: files.Patterns}, files.Patterns, nil
}

// openBelow opens a regular file below root. Links are followed below root only.
func openBelow(root, name string) (*os.File, error) {
	fd, err := openat2(root, name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), name)
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: name, Err: errors.New("not a regular file")}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func existsBelow(root, name string) bool {
	fd, err := openat2(root, name, unix.O_PATH)
	if err == nil {
		unix.Close(fd)
	}
	return !errors.Is(err, fs.ErrNotExist)
}

// openat2 opens what name leads to below root. os.Root would not do: gVisor
// follows links where that relies on O_NOFOLLOW.
func openat2(root, name string, flags uint64) (int, error) {
	dir, err := os.Open(root)
	if err != nil {
		return -1, err
	}
	defer dir.Close()
	fd, err := unix.Openat2(int(dir.Fd()), name, &unix.OpenHow{
		Flags: flags | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS,
	})
	if errors.Is(err, unix.EXDEV) {
		err = errors.New("leads out of the context")
	}
	if err != nil {
		return -1, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return fd, nil
}
