package executor

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// Fetch hands out the contexts that are no files of the caller's, and Build finds
// them in the store: an archive or a text as it came, a checkout of a repository
// as a tar of its tree.

// contextsDir is where they lie in the store.
const contextsDir = "contexts"

// useFetched makes the request say that what was fetched is files, and returns
// the times of those that have one, by request.Fetched.Name.
func (p *player) useFetched(list []request.Fetched) (map[string]time.Time, error) {
	req := *p.req
	req.Contexts = slices.Clone(req.Contexts)
	times := map[string]time.Time{}
	for _, f := range list {
		path := request.GuestPath(filepath.Join(string(req.Store), contextsDir, f.Name))
		n, err := strconv.Atoi(f.Name)
		switch {
		case f.Name == request.FetchedDockerfile:
			req.Dockerfile, req.DockerfileURL = path, ""
		case f.Name == request.FetchedMain:
			req.Source = fetchedSource(req.Source, path)
		case err == nil && n >= 0 && n < len(req.Contexts):
			req.Contexts[n].Source = fetchedSource(req.Contexts[n].Source, path)
		default:
			return nil, fmt.Errorf("a context called %q was fetched that nobody asked for", f.Name)
		}
		if !f.Time.IsZero() {
			times[f.Name] = f.Time
		}
	}
	p.req = &req
	return times, nil
}

// fetchedSource is src when it lies in a file. Which directory of a repository is
// wanted was said by its URL, and only that is in the file.
func fetchedSource(src request.Source, file request.GuestPath) request.Source {
	return request.Source{Tar: file, Dir: src.Dir, Text: src.Text}
}

// handOut hands out a context that was fetched.
func (f fetcher) handOut(ctx context.Context, name string, got fetched) error {
	if f.out == nil {
		return nil
	}
	w, err := f.out.Open(request.Output{Kind: request.OutputContext, Name: name})
	if err != nil {
		return fmt.Errorf("hand out: %w", err)
	}
	defer w.Close()
	if got.file != "" {
		err = copyFile(w, got.file)
	} else {
		err = writeTree(ctx, w, got.dir)
	}
	if err == nil {
		err = w.Commit("")
	}
	if err != nil {
		return fmt.Errorf("hand out: %w", err)
	}
	f.in.Fetched = append(f.in.Fetched, request.Fetched{Name: name, Time: got.time, Text: got.text != ""})
	return nil
}

// handOutDockerfile hands out a Dockerfile that was downloaded.
func (f fetcher) handOutDockerfile(data []byte) error {
	if f.out == nil {
		return nil
	}
	what := request.Output{Kind: request.OutputContext, Name: request.FetchedDockerfile, Size: int64(len(data))}
	if err := send(f.out, what, bytes.NewReader(data)); err != nil {
		return fmt.Errorf("hand out: %w", err)
	}
	f.in.Fetched = append(f.in.Fetched, request.Fetched{Name: request.FetchedDockerfile})
	return nil
}

func copyFile(w io.Writer, path string) error {
	r, err := os.Open(path)
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.CopyBuffer(struct{ io.Writer }{w}, r, make([]byte, copySize))
	return err
}

// copySize is how much is copied at once, in bytes.
const copySize = 256 << 10

// writeTree writes the files below dir as a tar: regular files, directories and
// symbolic links, as root's. A checkout has no others.
func writeTree(ctx context.Context, w io.Writer, dir string) error {
	t := tar.NewWriter(w)
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err = errors.Join(err, ctx.Err()); err != nil || path == dir {
			return err
		}
		return writeEntry(t, dir, path, e)
	})
	return errors.Join(err, t.Close())
}

func writeEntry(t *tar.Writer, dir, path string, e fs.DirEntry) (err error) {
	info, err := e.Info()
	if err != nil {
		return err
	}
	target := ""
	switch info.Mode().Type() {
	case 0, fs.ModeDir:
	case fs.ModeSymlink:
		if target, err = os.Readlink(path); err != nil {
			return err
		}
	default:
		return fmt.Errorf("%s: %v is no file of a checkout", path, info.Mode())
	}
	h, err := tar.FileInfoHeader(info, target)
	if err != nil {
		return err
	}
	if h.Name, err = filepath.Rel(dir, path); err != nil {
		return err
	}
	if info.IsDir() {
		h.Name += "/"
	}
	h.Uid, h.Gid, h.Uname, h.Gname = 0, 0, "", ""
	h.AccessTime, h.ChangeTime, h.Format = time.Time{}, time.Time{}, tar.FormatPAX
	if err := t.WriteHeader(h); err != nil || !info.Mode().IsRegular() {
		return err
	}
	return copyFile(t, path)
}
