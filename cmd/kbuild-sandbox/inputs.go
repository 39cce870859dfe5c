package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/term"

	"github.com/kbuild-sandbox/kbuild-sandbox/cmd/flags"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/sandbox"
)

// maxDockerfile bounds a Dockerfile from standard input, in bytes (rule R18).
const maxDockerfile = 8 << 20

// inputs hands the paths of the request over to the sandbox, which gives them
// other names inside.
func (a *app) inputs(cfg *sandbox.Config, req request.Build) error {
	cfg.Request = req
	cfg.Context, cfg.Ignore = string(req.Context), string(req.Ignore)
	cfg.Request.Context, cfg.Request.Ignore = "", ""
	for _, n := range req.Contexts {
		cfg.Contexts = append(cfg.Contexts, string(n.Dir+n.Layout)) // one of them at most
	}
	for _, from := range req.CacheFrom {
		cfg.CacheFrom = append(cfg.CacheFrom, string(from.Layout))
	}
	for _, to := range req.CacheTo {
		cfg.CacheTo = append(cfg.CacheTo, string(to.Layout))
	}
	if req.Source.Tar == flags.Stdin {
		if err := a.checkStdin(); err != nil {
			return err
		}
		cfg.Stdin = a.stdin
	} else {
		cfg.Archive = string(req.Source.Tar)
	}
	switch {
	case req.Dockerfile == flags.Stdin:
		cfg.Request.Dockerfile = ""
		return a.readDockerfile(cfg)
	case filepath.IsAbs(string(req.Dockerfile)):
		cfg.Dockerfile, cfg.Request.Dockerfile = string(req.Dockerfile), ""
	}
	return nil
}

// checkStdin refuses to wait for a context that nobody will type.
func (a *app) checkStdin() error {
	if f, ok := a.stdin.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return &flags.Error{Msg: "no context on standard input: it is a terminal", Hint: "pipe an archive or a Dockerfile into it"}
	}
	return nil
}

func (a *app) readDockerfile(cfg *sandbox.Config) error {
	data, err := io.ReadAll(io.LimitReader(a.stdin, maxDockerfile+1))
	if err != nil {
		return fmt.Errorf("read the Dockerfile from standard input: %w", err)
	}
	if len(data) > maxDockerfile {
		return &flags.Error{Msg: fmt.Sprintf("the Dockerfile on standard input is larger than %d bytes", maxDockerfile), Input: true}
	}
	if data == nil {
		data = []byte{}
	}
	cfg.DockerfileData = data
	return nil
}
