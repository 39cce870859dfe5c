package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/kbuild-sandbox/kbuild-sandbox/cmd/flags"
	"github.com/kbuild-sandbox/kbuild-sandbox/cmd/progress"
	"github.com/kbuild-sandbox/kbuild-sandbox/cmd/secrets"
	"github.com/kbuild-sandbox/kbuild-sandbox/cmd/trace"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/sandbox"
)

const buildLong = `Build an image from a Dockerfile and push it.

CONTEXT is the directory with the files that the Dockerfile copies, by default
the current one; or - for an archive or a lone Dockerfile on standard input, the
URL of an archive or of a git repository. Kaniko's flags work as they are.

Credentials for registries come from auths, credHelpers and credsStore of
$DOCKER_CONFIG/config.json (~/.docker/config.json), or from the same in
$DOCKER_AUTH_CONFIG. Names and digests of what was built go to standard output.

` + exitHelp

const buildExample = `  kbuild-sandbox build -t registry.example.com/team/app:1 .
  kbuild-sandbox build --no-push --tar-path app.tar --target test .
  kbuild-sandbox build --context . --dockerfile Dockerfile --destination registry.example.com/team/app:1`

// buildCommand is "build": the whole of what users come for.
func (a *app) buildCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "build [flags] [CONTEXT]",
		Short:   "Build an image and push it",
		Long:    buildLong,
		Example: buildExample,
	}
	n := flags.RegisterNetwork(c.Flags())
	m := flags.RegisterMachine(c.Flags())
	at := flags.RegisterAttest(c.Flags())
	b := flags.Register(c.Flags())
	b.Attests(at)
	l := flags.RegisterLog(c.Flags())
	var h host
	h.register(c.Flags())
	c.SetUsageFunc(groupedUsage)
	c.RunE = func(c *cobra.Command, args []string) error {
		show := a.display(l)
		from, err := a.from(args)
		if err != nil {
			return err
		}
		req, out, err := b.Request(from)
		if err != nil {
			return err
		}
		net, err := newNetwork(n, req, from)
		if err != nil {
			return err
		}
		traced, err := l.Trace(from.Dir, string(req.Context))
		if err != nil {
			return err
		}
		within, err := newBounds(m)
		if err != nil {
			return err
		}
		lend := func(sink request.Sink) (*secrets.Store, error) { return b.Lend(from, sink) }
		caches := sandbox.Caches{Dir: string(req.Caches), Limit: req.CacheSize, LayerLimit: b.LayerLimit(), Optional: !b.CacheDirGiven()}
		return a.build(c.Context(), job{req, out, b.Attestation(), net, within, caches, lend, h, show, traced, b.Warnings(), nil})
	}
	return c
}

// groupedUsage is the usage of a command whose flags stand in groups.
func groupedUsage(c *cobra.Command) error {
	_, err := fmt.Fprintf(c.OutOrStderr(), "Usage:\n  %s\n\nExamples:\n%s\n%s", c.UseLine(), c.Example, flags.Usages(c.Flags()))
	return err
}

// job is one build as it was asked for.
type job struct {
	req    request.Build
	out    flags.Outputs
	attest flags.Attestation
	net    network
	within bounds
	keep   sandbox.Caches
	lend   func(request.Sink) (*secrets.Store, error)
	host   host
	show   progress.Options
	trace  string // file, or empty
	// notes are what the command line deserves to be told about.
	notes []string
	// dockerfile is its text, where it is no file of the user's.
	dockerfile []byte
}

// build runs one build from the request to the files that report it.
func (a *app) build(ctx context.Context, j job) error {
	started := time.Now()
	if err := a.delegated(ctx, j.within, j.req.Limits); err != nil {
		return err
	}
	cfg, err := j.host.config(ctx)
	if err != nil {
		return err
	}
	cfg.Limits, cfg.Quota = j.within.Limits, j.within.work
	if err := a.inputs(&cfg, j.req); err != nil {
		return err
	}
	if j.dockerfile != nil {
		cfg.DockerfileData = j.dockerfile
	}
	cfg.Outputs = sandbox.Outputs{TarPath: j.out.Tar, LayoutDir: j.out.Layout}
	cfg.Caches = j.keep
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	audit, err := openAudit(j.net.audit, fail)
	if err != nil {
		return err
	}
	cfg.Network = j.net.told(audit)
	cfg.Network.Mask = a.mask.Text
	proof, err := a.attester(ctx, j, &cfg)
	if err != nil {
		return err
	}
	defer proof.close()

	display := progress.New(a.stderr, j.show)
	defer display.Close()
	for _, text := range j.notes {
		display.Emit(request.Event{Kind: request.EventWarning, Text: text})
	}
	if cfg.Answer, err = a.answering(j, display); err != nil {
		return err
	}
	a.mask.AddURLs(j.net.Proxy.HTTP, j.net.Proxy.HTTPS)
	traced, err := trace.Create(j.trace, display, a.mask.Text)
	if err != nil {
		return err
	}
	cfg.Sink = traced
	res, err := sandbox.Run(ctx, cfg)
	a.endSoon(ctx, res, err)
	display.Close()
	if e := errors.Join(audit.close(), traced.Close()); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	return a.finish(j, res, proof, time.Since(started))
}

// finish tells how a build ended, without the values of secrets.
func (a *app) finish(j job, res request.Result, proof *attester, took time.Duration) error {
	res, err := a.hidden(res)
	if err != nil {
		return err
	}
	if err := a.results(j, res, proof); err != nil || j.req.Call != "" {
		return err
	}
	return a.success(j, res, took)
}

// results writes the files that report a build.
func (a *app) results(j job, res request.Result, proof *attester) error {
	switch {
	case res.Failure != nil:
		return &buildError{res}
	case j.req.Call == request.CallWarm:
		return a.warmed(res)
	case j.req.Call != "":
		return a.answer(res)
	}
	if err := j.out.Write(res); err != nil {
		return err
	}
	return proof.write()
}

// answering is what answers the executor of one build. What it may give away is
// masked from now on.
func (a *app) answering(j job, tell request.Sink) (answerFunc, error) {
	creds, err := newCredentials(a.env, pushedTo(j.req), func(text string) {
		tell.Emit(request.Event{Time: time.Now(), Kind: request.EventDebug, Text: text})
	})
	if err != nil {
		return nil, err
	}
	lent, err := j.lend(tell)
	if err != nil {
		return nil, err
	}
	lent.Mask(a.mask)
	return a.masked(answers(creds, lent)), nil
}

// pushedTo are all references that a build pushes to.
func pushedTo(r request.Build) (list []string) {
	if !r.NoPush {
		list = slices.Clone(r.Destinations)
	}
	for _, to := range r.CacheTo {
		if to.Layout == "" {
			list = append(list, to.Name())
		}
	}
	return list
}

// answerFunc answers the executor's questions; see sandbox.Config.
type answerFunc = func(context.Context, request.Ask) request.Answer

// answers sends each ask of the executor to who has the answer.
func answers(creds *credentials, lent *secrets.Store) answerFunc {
	return func(ctx context.Context, ask request.Ask) request.Answer {
		switch ask.Scope {
		case request.Secret, request.Agent:
			return lent.Answer(ctx, ask)
		}
		return creds.answer(ctx, ask)
	}
}

// masked has every credential masked before it is handed out. One that is too
// short is also too short to be told about.
func (a *app) masked(answer answerFunc) answerFunc {
	return func(ctx context.Context, ask request.Ask) request.Answer {
		given := answer(ctx, ask)
		for _, value := range []string{given.Password, given.IdentityToken, given.RegistryToken} {
			_ = a.mask.Add([]byte(value))
		}
		return given
	}
}

// display settles how the build and its errors are shown.
func (a *app) display(l *flags.Log) progress.Options {
	opt := l.Options(a.terminal, a.env)
	opt.Size, opt.Mask = terminalSize, a.mask
	a.json, a.color = opt.Mode == progress.JSON, opt.Color
	return opt
}

// terminalSize is the size of the terminal on standard error.
func terminalSize() (columns, rows int) {
	columns, rows, err := term.GetSize(int(os.Stderr.Fd()))
	if err != nil || columns <= 0 || rows <= 0 {
		return 80, 24
	}
	return columns, rows
}

// success tells what was built: a line for people, and on standard output the
// names that can be pulled, or the digest where nothing was pushed.
func (a *app) success(j job, res request.Result, took time.Duration) error {
	if a.json {
		line, err := progress.Line(ending{Time: time.Now(), Kind: "result", Result: &res})
		if err != nil {
			return err
		}
		a.stderr.Write(line)
	} else if j.show.Level >= progress.Normal {
		fmt.Fprintf(a.stderr, "built %s in %.1fs\n", progress.Clean(res.Digest), took.Seconds())
	}
	names := res.Pushed
	if len(names) == 0 {
		_, err := fmt.Fprintln(a.stdout, progress.Clean(res.Digest))
		return err
	}
	for _, name := range names {
		if _, err := fmt.Fprintf(a.stdout, "%s@%s\n", progress.Clean(name), progress.Clean(res.Digest)); err != nil {
			return err
		}
	}
	return nil
}

// buildError is a build that the executor ended with a failure.
type buildError struct{ result request.Result }

func (e *buildError) Error() string { return e.result.Failure.Message }
