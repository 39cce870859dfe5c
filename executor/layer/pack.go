package layer

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"runtime"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"
	"github.com/klauspost/pgzip"
	"golang.org/x/sync/errgroup"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/store"
)

// Media are the two families of media types that layers are named by.
const (
	Docker = "docker"
	OCI    = "oci"
)

// PackOptions say what a layer becomes. The zero value is a gzip layer with an
// OCI media type.
type PackOptions struct {
	Compression request.Compression
	// Media is Docker or OCI; empty: OCI. There is no zstd under Docker's names.
	Media string
	// ClampTo is the latest modification time that a file may have; later ones
	// are brought down to it. nil: times stay.
	ClampTo *time.Time
	// Root writes an entry for the root itself. A layer of an image has none.
	Root bool
	// Lowers are the directories of the layers below, lowest first. Whiteouts
	// and opaque markers that hide nothing of them are left out. Empty: all
	// are written.
	Lowers []string
	// Tee gets the tar as it comes; nil: nobody does. What it fails with is Pack's
	// error.
	Tee io.Writer
}

// Blob is a layer in the store.
type Blob struct {
	Digest    v1.Hash // of the compressed bytes
	DiffID    v1.Hash // of the tar
	Size      int64   // compressed, bytes
	TarSize   int64   // bytes
	MediaType types.MediaType
	Entries   int
}

// Pack writes the upper directory of an overlay as a layer into the store. The
// same contents give the same bytes, whatever the number of processors. Reading,
// hashing, compressing and storing go on at once, in less than 64 MiB of memory.
func Pack(ctx context.Context, upper string, st *store.Store, opt PackOptions) (Blob, error) {
	media, err := mediaType(opt)
	if err != nil {
		return Blob{}, fmt.Errorf("pack layer: %w", err)
	}
	blob, err := st.Create()
	if err != nil {
		return Blob{}, fmt.Errorf("pack layer: %w", err)
	}
	defer blob.Close()
	z, err := compressor(blob, opt.Compression)
	if err != nil {
		return Blob{}, fmt.Errorf("pack layer: %w", err)
	}
	b, err := tarred(ctx, upper, opt, func(ctx context.Context, in <-chan []byte, free chan<- []byte) error {
		return compressChunks(ctx, z, in, free)
	})
	if err != nil {
		z.Close()
		return Blob{}, fmt.Errorf("pack layer: %w", err)
	}
	b.MediaType = media
	if b.Digest, b.Size, err = blob.Commit(); err != nil {
		return Blob{}, fmt.Errorf("pack layer: %w", err)
	}
	return b, nil
}

// PackTar writes the upper directory of an overlay as the tar of a layer, to opt.Tee
// alone: the blob has neither digest nor size.
func PackTar(ctx context.Context, upper string, opt PackOptions) (Blob, error) {
	b, err := tarred(ctx, upper, opt, func(_ context.Context, in <-chan []byte, free chan<- []byte) error {
		for c := range in {
			free <- c[:cap(c)]
		}
		return nil
	})
	if err != nil {
		return Blob{}, fmt.Errorf("pack layer: %w", err)
	}
	return b, nil
}

// tarred makes the tar of a layer, hashes it, and leaves its chunks to take, which
// gives them back.
func tarred(ctx context.Context, upper string, opt PackOptions, take func(context.Context, <-chan []byte, chan<- []byte) error) (b Blob, err error) {
	sum := sha256.New()
	g, ctx := errgroup.WithContext(ctx)
	p := newChunkWriter(ctx)
	g.Go(func() error {
		defer close(p.out)
		var err error
		if b.Entries, err = writeTar(ctx, upper, p, opt); err != nil {
			return err
		}
		return p.flush()
	})
	hashed := make(chan []byte, chunkCount)
	g.Go(func() error { return hashChunks(p.out, hashed, io.MultiWriter(writers(sum, opt.Tee)...), &b.TarSize) })
	g.Go(func() error { return take(ctx, hashed, p.free) })
	if err := g.Wait(); err != nil {
		return Blob{}, err
	}
	b.DiffID = sumHash(sum)
	return b, nil
}

func writers(sum hash.Hash, tee io.Writer) []io.Writer {
	if tee == nil {
		return []io.Writer{sum}
	}
	return []io.Writer{sum, tee}
}

func hashChunks(in <-chan []byte, out chan<- []byte, to io.Writer, size *int64) error {
	defer close(out)
	for c := range in {
		if _, err := to.Write(c); err != nil {
			return err
		}
		*size += int64(len(c))
		out <- c
	}
	return nil
}

func compressChunks(ctx context.Context, z io.WriteCloser, in <-chan []byte, free chan<- []byte) error {
	for c := range in {
		if _, err := z.Write(c); err != nil {
			return fmt.Errorf("compress: %w", err)
		}
		free <- c[:cap(c)]
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return fmt.Errorf("compress: %w", err)
	}
	return nil
}

// chunkWriter cuts what is written into chunks.
type chunkWriter struct {
	ctx  context.Context
	free chan []byte
	out  chan []byte
	cur  []byte // chunkSize
	n    int
}

func newChunkWriter(ctx context.Context) *chunkWriter {
	c := &chunkWriter{ctx: ctx, free: make(chan []byte, chunkCount), out: make(chan []byte, chunkCount)}
	for range chunkCount {
		c.free <- make([]byte, chunkSize)
	}
	return c
}

func (c *chunkWriter) Write(p []byte) (int, error) {
	total := len(p)
	for len(p) > 0 {
		if c.cur == nil {
			select {
			case c.cur = <-c.free:
			case <-c.ctx.Done():
				return 0, c.ctx.Err()
			}
		}
		n := copy(c.cur[c.n:], p)
		c.n, p = c.n+n, p[n:]
		if c.n == len(c.cur) {
			if err := c.flush(); err != nil {
				return 0, err
			}
		}
	}
	return total, nil
}

// flush hands the current chunk on.
func (c *chunkWriter) flush() error {
	if c.n > 0 {
		c.out <- c.cur[:c.n] // has room for all chunks
		c.cur, c.n = nil, 0
	}
	return nil
}

func mediaType(opt PackOptions) (types.MediaType, error) {
	isZstd := opt.Compression.Algorithm == "zstd"
	switch opt.Media {
	case Docker:
		if isZstd {
			return "", errors.New("zstd layers have no Docker media type; use the OCI image format")
		}
		return types.DockerLayer, nil
	case OCI, "":
		if isZstd {
			return types.OCILayerZStd, nil
		}
		return types.OCILayer, nil
	}
	return "", fmt.Errorf("image format %q is not supported", opt.Media)
}

const (
	// gzipBlock is what one goroutine compresses on its own. It is part of the
	// output, so it must not depend on the machine.
	gzipBlock = 1 << 20
	// zstdWorkers are the goroutines of one zstd stream, which uses no more.
	zstdWorkers = 4
)

// gzipWorkers is how many blocks are compressed at once: one for each processor, while
// all fit into the memory that Pack may have.
func gzipWorkers() int { return min(max(runtime.GOMAXPROCS(0), 4), 16) }

// compressor starts compressing into w. Neither format gets a time or a name in
// its header.
func compressor(w io.Writer, c request.Compression) (io.WriteCloser, error) {
	switch c.Algorithm {
	case "gzip", "":
		level := c.Level
		if level <= 0 {
			level = defaultGzip
		}
		z, err := pgzip.NewWriterLevel(w, level)
		if err != nil {
			return nil, fmt.Errorf("gzip compression level %d is not supported: use 1 to 9", c.Level)
		}
		z.ModTime = time.Unix(0, 0) // the header's 0; the zero Time would be 2042
		return z, z.SetConcurrency(gzipBlock, gzipWorkers())
	case "zstd":
		level := c.Level
		if level <= 0 {
			level = defaultZstd
		}
		return zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.EncoderLevelFromZstd(level)),
			zstd.WithEncoderConcurrency(zstdWorkers), zstd.WithLowerEncoderMem(true))
	}
	return nil, fmt.Errorf("compression %q is not supported", c.Algorithm)
}

// The default levels. gzip at 3 takes half the time of 5, the usual default of
// this library, and its layers are 8% larger: about the size of gzip -6 less 2%.
const (
	defaultGzip = 3
	defaultZstd = 3
)
