package plan

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// defaultPath is the PATH of an image that has none.
const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// defaultShell runs commands in shell form unless SHELL says otherwise.
var defaultShell = [...]string{"/bin/sh", "-c"}

// scratchImage is the config that FROM scratch starts with.
func scratchImage(p ocispec.Platform) *Image {
	img := &Image{
		Architecture: p.Architecture,
		OS:           p.OS,
		OSVersion:    p.OSVersion,
		OSFeatures:   slices.Clone(p.OSFeatures),
		Variant:      p.Variant,
		RootFS:       RootFS{Type: "layers"},
	}
	img.Config.WorkingDir = "/"
	img.Config.Env = []string{defaultPath}
	return img
}

// decodeImage reads the config of a base image. Fields that are not in Image
// are dropped, as BuildKit does; the layers' digests and the time of creation do
// not carry over.
func decodeImage(base *Resolved) (*Image, error) {
	img := &Image{}
	if err := json.Unmarshal(base.Config, img); err != nil {
		return nil, fmt.Errorf("failed to parse image config: %w", err)
	}
	img.alignHistory(base.Ref)
	img.Created = nil
	img.RootFS = RootFS{Type: "layers"}
	return img, nil
}

// alignHistory gives a base image that some tool wrote without care as many
// entries with a layer as it has layers: what comes on top would else be taken
// for the history of others. Entries are added and marked empty at the end, as
// BuildKit's exporter does.
func (i *Image) alignHistory(ref string) {
	left := len(i.RootFS.DiffIDs)
	for n := range i.History {
		h := &i.History[n]
		switch {
		case h.EmptyLayer:
		case left == 0:
			h.EmptyLayer = true
		default:
			left--
		}
	}
	for ; left > 0; left-- {
		i.History = append(i.History, History{Created: i.Created, CreatedBy: "pulled from " + ref, Comment: exporterComment})
	}
}

// clone copies a config for a stage on top of another.
func (i *Image) clone() *Image {
	c := *i
	c.Config = i.Config.clone()
	c.OSFeatures = slices.Clone(i.OSFeatures)
	c.History = slices.Clone(i.History)
	return &c
}

// size is roughly what a clone costs, in bytes.
func (i *Image) size() int {
	c := &i.Config
	return 64*len(i.History) + 16*(len(c.Env)+len(c.OnBuild)) + 48*(len(c.ExposedPorts)+len(c.Volumes)+len(c.Labels))
}

func (c Config) clone() Config {
	c.Env = slices.Clone(c.Env)
	c.Cmd = slices.Clone(c.Cmd)
	c.Entrypoint = slices.Clone(c.Entrypoint)
	c.OnBuild = slices.Clone(c.OnBuild)
	c.Shell = slices.Clone(c.Shell)
	c.ExposedPorts = maps.Clone(c.ExposedPorts)
	c.Volumes = maps.Clone(c.Volumes)
	c.Labels = maps.Clone(c.Labels)
	if c.Healthcheck != nil {
		h := *c.Healthcheck
		h.Test = slices.Clone(h.Test)
		c.Healthcheck = &h
	}
	return c
}

// hasEnv says whether the config sets a variable. An entry without = is a name
// with an empty value, as BuildKit takes it.
func (c *Config) hasEnv(name string) bool {
	return slices.ContainsFunc(c.Env, func(e string) bool { return envName(e) == name })
}

// setEnv sets a variable where it stands, or at the end.
func (c *Config) setEnv(name, value string) {
	for i, e := range c.Env {
		if envName(e) == name {
			c.Env[i] = name + "=" + value
			return
		}
	}
	c.Env = append(c.Env, name+"="+value)
}

func envName(entry string) string {
	name, _, _ := strings.Cut(entry, "=")
	return name
}

// withShell makes the argument vector of a command in shell form.
func (c *Config) withShell(args []string) []string {
	argv := defaultShell[:]
	if len(c.Shell) > 0 {
		argv = c.Shell
	}
	return append(slices.Clone(argv), strings.Join(args, " "))
}
