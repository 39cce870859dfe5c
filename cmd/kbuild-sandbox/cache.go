package main

import (
	"encoding/json"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/kbuild-sandbox/kbuild-sandbox/cmd/flags"
	"github.com/kbuild-sandbox/kbuild-sandbox/sandbox"
)

const cacheDirUsage = "the cache `directory` (default: kbuild-sandbox in $XDG_CACHE_HOME or ~/.cache)"

func (a *app) cacheCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "cache COMMAND",
		Short: "Look at what is kept between builds, remove it, or fetch it ahead",
		Args:  noArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(a.cacheListCommand(), a.pruneCommand(), a.warmCommand())
	return c
}

const cacheListLong = `List what builds have left in the cache directory, the most recently used first:

  base        the layer of a base image, as it is mounted
  step        a layer that a step has made, as it is mounted
  blob        such a layer, as it is pushed
  step-note   what is known of a step
  build-note  which layers a build needed last time
  mount       a cache mount of RUN
  context     digests of a context's files

Sizes are in bytes with --json.`

func (a *app) cacheListCommand() *cobra.Command {
	var dir string
	var asJSON bool
	c := &cobra.Command{Use: "ls [flags]", Aliases: []string{"list", "du"}, Short: "List what is kept", Long: cacheListLong, Args: noArgs}
	c.Flags().StringVar(&dir, "cache-dir", "", cacheDirUsage)
	c.Flags().BoolVar(&asJSON, "json", false, "print a line of JSON for each")
	c.RunE = func(c *cobra.Command, _ []string) error {
		where, err := a.cacheDir(dir, c.Flags().Changed("cache-dir"))
		if err != nil {
			return err
		}
		list, err := sandbox.ListCaches(where)
		if err != nil {
			return err
		}
		if asJSON {
			return a.listJSON(list)
		}
		return a.listTable(list)
	}
	return c
}

// cacheDir is the cache directory that a command is about.
func (a *app) cacheDir(named string, changed bool) (string, error) {
	from, err := a.from(nil)
	if err != nil {
		return "", err
	}
	where := from.CacheDir
	if changed {
		if where, err = flags.CacheDir(named, from.Dir); err != nil {
			return "", err
		}
	}
	if where == "" {
		return "", &flags.Error{Msg: "no cache directory: there is no home directory", Hint: "name it with --cache-dir"}
	}
	return where, nil
}

func (a *app) listJSON(list []sandbox.Cached) error {
	enc := json.NewEncoder(a.stdout)
	for _, c := range list {
		if err := enc.Encode(c); err != nil {
			return err
		}
	}
	return nil
}

// shownID is how much of an id is shown to people: enough to tell two apart.
const shownID = 24

func (a *app) listTable(list []sandbox.Cached) error {
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "KIND\tID\tSIZE\tLAST USED")
	var total int64
	for _, c := range list {
		total += c.Size
		used := "never"
		if !c.Used.IsZero() {
			used = c.Used.Local().Format(time.DateTime)
		}
		fmt.Fprintf(w, "%s\t%s\t%.1f MB\t%s\n", c.Kind, c.ID[:min(len(c.ID), shownID)], float64(c.Size)/1e6, used)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(a.stdout, "%d, %.1f MB\n", len(list), float64(total)/1e6)
	return err
}
