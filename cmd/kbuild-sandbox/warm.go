package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/kbuild-sandbox/kbuild-sandbox/cmd/flags"
	"github.com/kbuild-sandbox/kbuild-sandbox/cmd/progress"
	"github.com/kbuild-sandbox/kbuild-sandbox/cmd/secrets"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/sandbox"
)

const warmLong = `Pull images, or the base images of a Dockerfile, and leave their layers in the cache
directory in the form in which a build mounts them: the next build on them asks for
manifests, and pulls and unpacks nothing. The flags are those of Kaniko's warmer.

`

// warmCommand is "cache warm": a build that ends when all is fetched.
func (a *app) warmCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "warm [flags] [IMAGE...]",
		Short:   "Fetch the layers of images ahead",
		Long:    warmLong + exitHelp,
		Example: "  kbuild-sandbox cache warm debian:12 registry.example.com/team/base:1\n  kbuild-sandbox cache warm --dockerfile Dockerfile --cache-dir /cache",
	}
	n := flags.RegisterNetwork(c.Flags())
	w := flags.RegisterWarm(c.Flags())
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
		req, dockerfile, err := w.Request(from)
		if err != nil {
			return err
		}
		if req.Caches == "" {
			return &flags.Error{Msg: "no cache directory: there is no home directory", Hint: "name it with --cache-dir"}
		}
		net, err := newNetwork(n, req, from)
		if err != nil {
			return err
		}
		traced, err := l.Trace(from.Dir, "")
		if err != nil {
			return err
		}
		caches := sandbox.Caches{Dir: string(req.Caches), Limit: req.CacheSize, LayerLimit: w.LayerLimit(), Renew: w.Force}
		none := func(sink request.Sink) (*secrets.Store, error) { return secrets.Open(secrets.Lent{}, a.env, sink) }
		return a.build(c.Context(), job{req: req, net: net, keep: caches, lend: none, host: h, show: show, trace: traced, notes: w.Warnings(), dockerfile: dockerfile})
	}
	return c
}

// warmed tells which images have been fetched.
func (a *app) warmed(res request.Result) error {
	for _, m := range res.Materials {
		if m.Kind != request.MaterialImage {
			continue
		}
		if _, err := fmt.Fprintf(a.stdout, "%s@%s\n", progress.Clean(m.URI), progress.Clean(m.Digest)); err != nil {
			return err
		}
	}
	return nil
}
