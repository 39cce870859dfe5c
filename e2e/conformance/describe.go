package main

import (
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/flat"
)

// describe fills an answer in with the image that a build left.
func (c *testCase) describe(w *want, p paths, bases string) error {
	img, err := flat.Open(p.layout, v1.Platform{})
	if err != nil {
		return err
	}
	w.OS, w.Architecture, w.Variant, w.Author = img.Config.OS, img.Config.Architecture, img.Config.Variant, img.Config.Author
	if c.Opts.SourceDateEpoch != nil {
		w.Created = img.Config.Created.UTC().Format(time.RFC3339)
	}
	w.Config = replaceAll(bare(img.Config.Config), p.back)
	asBase := *c
	asBase.Want = *w
	base, err := asBase.base(bases)
	if err != nil {
		return err
	}
	w.Layers = img.Layers - base.Layers
	w.History = img.Config.History[len(base.Config.History):]
	for i := range w.History {
		w.History[i].CreatedBy = p.back.Replace(w.History[i].CreatedBy)
	}
	o := flat.Options{LooseHardlinks: c.Opts.LooseHardlinks, PinMTime: c.Opts.PinMTime}
	w.Tree, w.Removed = flat.Diff(base.Tree.Entries(o), img.Tree.Entries(o))
	return nil
}
