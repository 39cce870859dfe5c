package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/kbuild-sandbox/kbuild-sandbox/cmd/flags"
	"github.com/kbuild-sandbox/kbuild-sandbox/sandbox"
)

// unused is how long a cache mount is kept that no build uses.
const unused = 7 * 24 * time.Hour

const pruneLong = `Remove cache mounts (RUN --mount=type=cache) and layers that no build has used for
a week, and say what that freed. A build that is using one is not disturbed.`

func (a *app) pruneCommand() *cobra.Command {
	var dir string
	var all bool
	c := &cobra.Command{
		Use:   "prune [flags]",
		Short: "Remove cache mounts and layers of earlier builds",
		Long:  pruneLong,
		Args:  noArgs,
	}
	c.Flags().StringVar(&dir, "cache-dir", "", "the cache `directory` (default: kbuild-sandbox in $XDG_CACHE_HOME or ~/.cache)")
	c.Flags().BoolVar(&all, "all", false, "remove all of them")
	c.RunE = func(c *cobra.Command, _ []string) error {
		from, err := a.from(nil)
		if err != nil {
			return err
		}
		where := from.CacheDir
		if c.Flags().Changed("cache-dir") {
			if where, err = flags.CacheDir(dir, from.Dir); err != nil {
				return err
			}
		}
		if where == "" {
			return &flags.Error{Msg: "no cache directory: there is no home directory", Hint: "name it with --cache-dir"}
		}
		return a.prune(where, all)
	}
	return c
}

func (a *app) prune(dir string, all bool) error {
	before := time.Now().Add(-unused)
	if all {
		before = time.Time{}
	}
	r, err := sandbox.PruneCaches(dir, before)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.stdout, "removed %d cache mounts and %d layers, %.1f MB\n", r.Mounts, r.Layers, float64(r.Bytes)/1e6)
	return err
}
