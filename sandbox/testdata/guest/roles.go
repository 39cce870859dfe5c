package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// tags hands out index.json of the store.
func (g *guest) tags() {
	g.hello()
	for range g.arg {
		g.output(request.Output{Kind: request.OutputTags}, []byte("{}"))
	}
	g.done(nil)
}

// forge names an image that it did not hand out.
func (g *guest) forge() {
	g.hello()
	res := request.Result{Version: request.Version, Digest: digest([]byte("other")), Size: 5}
	check(g.w.WriteJSON(request.FrameResult, res))
}

// give fills the store.
func (g *guest) give() {
	g.hello()
	g.output(request.Output{Kind: request.OutputStored}, []byte("blob"))
	g.output(request.Output{Kind: request.OutputTags}, []byte("{}"))
	g.output(request.Output{Kind: request.OutputContext, Name: request.FetchedMain}, []byte("context"))
	res := request.Result{Version: request.Version, Fetched: []request.Fetched{{Name: request.FetchedMain}}}
	check(g.w.WriteJSON(request.FrameResult, res))
}

// find tells what is in the store.
func (g *guest) find() {
	g.hello()
	list := func(dir string) string {
		entries, err := os.ReadDir(string(g.req.Store) + "/" + dir)
		check(err)
		var names []string
		for _, e := range entries {
			names = append(names, e.Name())
		}
		return strings.Join(names, " ")
	}
	index, err := os.ReadFile(string(g.req.Store) + "/index.json")
	check(err)
	var fetched []string
	for _, f := range g.start.Fetched {
		fetched = append(fetched, f.Name)
	}
	_, err = os.Create(string(g.req.Store) + "/x")
	_, why, _ := strings.Cut(err.Error(), ": ")
	g.say(fmt.Sprintf("%s: blobs %s, contexts %s, index %s, fetched %v, write: %s",
		g.req.Role, list("blobs/sha256"), list("contexts"), index, fetched, why))
	g.done(nil)
}

// pushed tells what it is to push, with what of it is in the store.
func (g *guest) pushed() {
	g.hello()
	list := []request.Attached{{Descriptor: g.image.Descriptor, Tag: "image"}}
	for _, a := range append(list, g.image.Attached...) {
		b, err := os.ReadFile(string(g.req.Store) + "/blobs/sha256/" + strings.TrimPrefix(a.Digest, "sha256:"))
		check(err)
		g.say(fmt.Sprintf("%s: %s %d %s", a.Tag, b, a.Size, a.MediaType))
	}
	g.done(nil)
}

// claim tells of an image and of what it is made from. Of the image, and of its
// platform's, one is forged if the second word says so.
func (g *guest) claim() {
	g.hello()
	image, forged := []byte("image"), request.Descriptor{Digest: digest([]byte("other")), Size: 5, MediaType: "m"}
	g.output(request.Output{Kind: request.OutputStored}, image)
	mine := request.Descriptor{Digest: digest(image), Size: int64(len(image)), MediaType: "m"}
	res := request.Result{
		Version: request.Version, Digest: mine.Digest, Size: mine.Size, Media: mine.MediaType,
		Images:    []request.Image{{Descriptor: mine, Platform: "linux/amd64"}},
		Materials: []request.Material{{Kind: request.MaterialImage, URI: "trusted/base", Digest: mine.Digest}},
	}
	switch g.arg[1] {
	case "image":
		res.Images[0].Descriptor = forged
	case "size":
		res.Size++
	case "config":
		res.Config = forged.Digest
	}
	check(g.w.WriteJSON(request.FrameResult, res))
}

// nothing ends before it has anything to do.
func (g *guest) nothing() {
	g.hello()
	g.done(nil)
}

// ready says so, once more.
func (g *guest) ready() {
	g.hello()
	check(g.w.Write(request.FrameReady, nil))
	forever()
}
