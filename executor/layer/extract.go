package layer

import (
	"context"
	"fmt"
	"io"
	"strings"

	"golang.org/x/sys/unix"
)

// ExtractOptions are the flags of ADD that matter to an archive. --chmod does
// not: BuildKit ignores it for archives.
type ExtractOptions struct {
	// Owner, user and group, is given to everything that is extracted and to
	// the destination when it has to be made; nil: the archive's own owners,
	// and root for the destination. Directories that an archive only implies
	// belong to root in any case.
	Owner *[2]uint32
	// Limits bound what the archive may expand to.
	Limits Limits
	// Nodes makes devices; nil: mknodat(2).
	Nodes Nodes
}

// Extract unpacks an archive (tar, plain or compressed with gzip, bzip2, xz or
// zstd) into the directory dest below root, a stage's merged file system.
//
// dest is resolved within root, and made if it is missing. As in BuildKit, dest
// is then the root for everything in the archive: names cannot lead above it,
// and absolute links, those of the archive and those that were there, lead into
// it. A directory over a directory changes its attributes, anything else
// replaces what was there. An entry for dest itself is ignored. Names that begin
// with .wh. are ordinary here; such files cannot become part of a layer, which
// WriteTar reports. Symbolic links keep their target as it is. Directories that
// were there keep their modification time.
func Extract(ctx context.Context, r io.Reader, root, dest string, opt ExtractOptions) error {
	m := &meter{lim: opt.Limits.withDefaults()}
	in := &counted{r: r, m: m}
	d, _, err := Decompress(in)
	if err != nil {
		return fmt.Errorf("extract archive: %w", err)
	}
	defer d.Close()
	fd, err := openDest(root, dest, opt.Owner)
	if err != nil {
		return fmt.Errorf("extract archive: destination: %w", err)
	}
	a, err := newApplier(fd, m, opt.Nodes)
	if err != nil {
		return fmt.Errorf("extract archive: %w", err)
	}
	a.chown = opt.Owner
	src := readAhead(ctx, decoded{d, in}, nil, m.read)
	defer src.Close()
	err = a.all(ctx, src)
	if cerr := a.close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("extract archive: %w", err)
	}
	return nil
}

// openDest opens dest within root.
func openDest(root, dest string, owner *[2]uint32) (int, error) {
	fd, err := unix.Open(root, openDir, 0)
	if err != nil {
		return -1, err
	}
	t, err := newTree(fd, nil)
	if err != nil {
		return -1, err
	}
	if owner != nil {
		t.owner = *owner
	}
	d, err := t.parent(strings.Trim(dest, "/"))
	if err == nil {
		fd, err = unix.FcntlInt(uintptr(d.fd), unix.F_DUPFD_CLOEXEC, 3)
	}
	if cerr := t.close(); err == nil && cerr != nil {
		unix.Close(fd)
		err = cerr
	}
	return fd, err
}
