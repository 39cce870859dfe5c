package main

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kbuild-sandbox/kbuild-sandbox/cmd/flags"
	"github.com/kbuild-sandbox/kbuild-sandbox/sandbox"
)

// unused is how long a cache mount is kept that no build uses.
const unused = 7 * 24 * time.Hour

const pruneLong = `Remove cache mounts (RUN --mount=type=cache) and layers that no build has used for
a week, or what the flags say, and tell what that freed. A build that is using one is
not disturbed.`

// pruning is what prune removes: what was not used for a time, or has no room.
type pruning struct {
	all     bool
	filters []string
	keep    string
	storage string // the same, by docker's older name
}

func (a *app) pruneCommand() *cobra.Command {
	var p pruning
	var dir string
	c := &cobra.Command{
		Use:   "prune [flags]",
		Short: "Remove cache mounts and layers of earlier builds",
		Long:  pruneLong,
		Args:  noArgs,
	}
	fs := c.Flags()
	fs.StringVar(&dir, "cache-dir", "", cacheDirUsage)
	fs.BoolVarP(&p.all, "all", "a", false, "remove all of them")
	fs.StringArrayVar(&p.filters, "filter", nil, "remove what was not used for a time: `until=24h`")
	fs.StringVar(&p.keep, "max-used-space", "", "remove the least recently used until the rest has this `size`")
	fs.StringVar(&p.storage, "keep-storage", "", "the same as --max-used-space `size`")
	fs.BoolP("force", "f", false, "do not ask; nobody is asked anyway")
	c.RunE = func(c *cobra.Command, _ []string) error {
		where, err := a.cacheDir(dir, c.Flags().Changed("cache-dir"))
		if err != nil {
			return err
		}
		return a.prune(where, p)
	}
	return c
}

func (a *app) prune(dir string, p pruning) error {
	before, err := p.before(dir)
	if err != nil {
		return err
	}
	r, err := sandbox.PruneCaches(dir, before)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.stdout, "removed %d cache mounts and %d layers, %.1f MB\n", r.Mounts, r.Layers, float64(r.Bytes)/1e6)
	return err
}

// before is the time since which something has to have been used to stay; zero: all
// goes. What is given for both time and room stays where one of them lets it.
func (p pruning) before(dir string) (time.Time, error) {
	before, given := time.Now().Add(-unused), false
	for _, f := range p.filters {
		value, ok := strings.CutPrefix(f, "until=")
		age, err := time.ParseDuration(value)
		if !ok || err != nil || age < 0 {
			return before, &flags.Error{Msg: "--filter: " + f + ": not supported", Hint: "for example --filter until=24h"}
		}
		before, given = time.Now().Add(-age), true
	}
	if len(p.filters) > 1 {
		return before, &flags.Error{Msg: "--filter: given more than once"}
	}
	if p.keep != "" && p.storage != "" {
		return before, &flags.Error{Msg: "--max-used-space cannot be used together with --keep-storage"}
	}
	if room := cmp.Or(p.keep, p.storage); room != "" {
		keep, err := flags.Size(room)
		if err != nil {
			return before, &flags.Error{Msg: "room to keep: " + err.Error(), Hint: "for example --max-used-space 20g"}
		}
		list, err := sandbox.ListCaches(dir)
		if err != nil {
			return before, err
		}
		if room := sandbox.Beyond(list, keep); !given || room.Before(before) {
			before, given = room, true
		}
	}
	if p.all && !given {
		before = time.Time{}
	}
	return before, nil
}
