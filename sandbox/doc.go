// Package sandbox runs a build inside gVisor: request and policy become up to
// three bundles, the bundles running sandboxes, their frames one result.
//
//	fetch ──blobs, contexts──▶ store ──▶ build ──blobs──▶ store ──▶ push
//	pull credentials                     none                       push credentials
//
// The three roles start side by side, each behind a gateway of its own, and each
// waits for what it needs. The store between them is a directory that only the
// launcher writes, from what fetch and build hand out over their channels, with
// digests that it has computed itself; build and push see it read-only. What a
// role is not to know is not in its request (Config.playing), and what it may not
// ask for or hand out ends the build (mayAsk, handsOut).
//
// It may make and remove its own work directory and a control group, keep the cache
// directory, read local contexts, write the outputs that were asked for, start runsc and
// read /proc about it. It parses nothing that an attacker wrote but frames of bounded
// size and names of files (law 1: no Dockerfile parser, no archive format, no HTTP, no
// TLS, no registry in its graph; the gateway's packets are its own room's). It prints
// nothing and reads no environment.
//
// The sandbox on the other side of a channel is taken for hostile: what it
// sends is bounded in size and number, an output is checked against its digest
// before it gets its name, and no string from it becomes a path, a flag, a mount
// or an annotation, but for paths below a local context that it sees itself.
//
// What a sandbox has mounted it has from its start. So build is started with the
// images of layers that its like needed last time, and anew if fetch says otherwise,
// unless what is missing is unpacked faster than that.
//
// A build of which all is cached gets that sandbox as well, with layers mounted that it
// never reads: whether it is one, fetch knows when build has long been ready. To wait for
// that would cost every other build the third of a second that a start takes.
//
// With a layer cache it answers what a copy takes of a local context (contents.go): the
// one thing of a build's own that it looks at, by executor/take's walk, which opens
// files only to hash them. Beyond its bounds it does not know, and nobody needs it to.
// After a copy that was done, build tells it what was taken: it hashes those files beside
// the steps, so that the next build, which will ask, need not wait for that.
//
// Two things are otherwise than the architecture draws them. Fetch sees the
// local contexts too, read-only: only so a COPY of what is not there is told
// before anything is pulled. And the gateways live in the launcher's process: a
// process of their own would hold the same sockets with the same rights.
package sandbox
