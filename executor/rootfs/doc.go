// Package rootfs mounts: it stacks directories into a stage's filesystem, gives
// each step a fresh upper directory on top of it, and hands the upper out as the
// step's diff. Nothing is ever scanned or compared.
//
// A lower or upper is a directory in overlay form: a whiteout is a character
// device 0:0, an opaque directory carries the xattr user.overlay.opaque=y.
// An upper never changes again once it was committed, so it can be packed while
// the next step runs.
//
// The room touches its own workspace only, which must lie on a tmpfs of gVisor
// (an upper on the container's own root fails with EINVAL). It follows no
// path inside a stage and runs nothing. Beside the RUN child in executor/step it
// is the only code that mounts.
package rootfs
