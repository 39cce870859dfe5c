package main

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/stream"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/rig"
)

// scaleCases are builds that grow in one thing. The cost should be that of what
// changes, and not of what it stands on. Nothing is compared.
func scaleCases() (all []benchCase) {
	add := func(scale string, n int, what, dockerfile string, context func(context.Context, string) error) {
		all = append(all, benchCase{
			name: fmt.Sprintf("%s %d", scale, n), what: fmt.Sprintf(what, n),
			dockerfile: dockerfile, context: context, scale: scale,
		})
	}
	const small = "COPY mark /mark\nRUN cat /mark > /copy\n"
	for _, n := range []int{100, 500, 1000, 5000} {
		add("size", n, "base of %d MB in ten layers, one small COPY and RUN", fmt.Sprintf("FROM %s%d:1\n", sizedBase, n)+small, mark)
	}
	for _, n := range []int{1_000, 10_000, 100_000, 500_000} {
		add("files", n, "base of %d files of 2 kB, one small COPY and RUN", fmt.Sprintf("FROM %s%d:1\n", filesBase, n)+small, mark)
	}
	for _, n := range []int{1_000, 10_000, 100_000, 500_000} {
		add("copies", n, "COPY of %d files of 2 kB", "FROM busybox:1\nCOPY files/ /files/\nRUN cat /files/d0/f0 > /copy\n", manyFiles(n))
	}
	for _, n := range []int{1, 10, 50, 200} {
		add("steps", n, "%d RUN", "FROM busybox:1\n"+manyRuns(n-1)+small, mark)
	}
	for _, n := range []int{1, 5, 20} {
		add("stages", n, "%d stages of three RUN each, one COPY --from each", manyStages(n), mark)
	}
	for _, n := range []int{1, 2, 4, 8} {
		add("builds", n, "%d builds at once, with one cache directory: five RUN on Debian",
			"FROM debian:1\nARG WHO\nRUN echo $WHO\n"+manyRuns(4)+small, mark)
		all[len(all)-1].together = n
	}
	for _, n := range []int{1, 10} {
		add("memory", n, "%d layers of 1 GB by RUN, in 1 GiB of memory", "FROM busybox:1\n"+bigRuns(n)+small, mark)
		all[len(all)-1].flags = []string{"--memory", "1g"}
	}
	for i := range all {
		all[i].changed = "mark"
		if all[i].scale == "copies" {
			all[i].changed = "files/d0/f0"
		}
	}
	return all
}

func manyStages(n int) string {
	var s, end strings.Builder
	for i := range n {
		fmt.Fprintf(&s, "FROM busybox:1 AS s%d\nRUN mkdir /out\nRUN echo %d > /out/s%d\nRUN sleep 0.2\n", i, i, i)
		fmt.Fprintf(&end, "COPY --from=s%d /out/ /out/\n", i)
	}
	return s.String() + "FROM busybox:1\n" + end.String() + "COPY mark /mark\nRUN cat /mark > /copy\n"
}

func bigRuns(n int) string {
	var s strings.Builder
	for i := range n {
		fmt.Fprintf(&s, "RUN head -c 1000000000 /dev/urandom > /big%d\n", i)
	}
	return s.String()
}

// mark is a context of one small file.
func mark(_ context.Context, dir string) error {
	return os.WriteFile(filepath.Join(dir, "mark"), []byte("0\n"), 0o644)
}

const (
	fileSize     = 2000
	filesInADir  = 500
	layersOfBase = 10

	sizedBase = "sized-" // and megabytes
	filesBase = "files-" // and how many
)

func manyFiles(n int) func(context.Context, string) error {
	return func(_ context.Context, dir string) error {
		random := rand.New(rand.NewPCG(1, uint64(n)))
		for i := range n {
			name := filepath.Join(dir, "files", fmt.Sprintf("d%d", i/filesInADir), fmt.Sprintf("f%d", i))
			if i%filesInADir == 0 {
				if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
					return err
				}
			}
			if err := os.WriteFile(name, text(random), 0o644); err != nil {
				return err
			}
		}
		return nil
	}
}

// text is what small files have: a third of it compresses away.
func text(random *rand.Rand) []byte {
	b := make([]byte, 0, fileSize+16)
	for len(b) < fileSize {
		b = strconv.AppendUint(b, random.Uint64(), 36)
	}
	return b[:fileSize]
}

// scaleBase makes a base image by its name: busybox, and layers on it that are
// made while they are pushed, so that no image needs room twice.
func scaleBase(ctx context.Context, name string) (v1.Image, error) {
	busybox, err := rig.Busybox(ctx)
	if err != nil {
		return nil, err
	}
	write, n := writeFiles, 0
	number, ok := strings.CutPrefix(name, filesBase)
	if !ok {
		number, write = strings.TrimPrefix(name, sizedBase), writeData
	}
	if n, err = strconv.Atoi(number); err != nil {
		return nil, fmt.Errorf("base %s: %w", name, err)
	}
	var layers []v1.Layer
	for i := range layersOfBase {
		r, w := io.Pipe()
		go func() {
			out := tar.NewWriter(w)
			err := write(out, i, n/layersOfBase)
			if err == nil {
				err = out.Close()
			}
			w.CloseWithError(err)
		}()
		layers = append(layers, stream.NewLayer(r, stream.WithCompressionLevel(1)))
	}
	return mutate.AppendLayers(busybox, layers...)
}

// writeData writes so many megabytes, half of which compress.
func writeData(out *tar.Writer, layer, megabytes int) error {
	random := rand.NewChaCha8([32]byte{byte(layer)})
	data := make([]byte, 1_000_000)
	if err := writeDirs(out, "data/"); err != nil {
		return err
	}
	for i := range megabytes {
		random.Read(data[:len(data)/2])
		if err := writeFile(out, fmt.Sprintf("data/l%d-%d", layer, i), data); err != nil {
			return err
		}
	}
	return nil
}

func writeFiles(out *tar.Writer, layer, n int) error {
	random := rand.New(rand.NewPCG(uint64(layer), uint64(n)))
	if err := writeDirs(out, "files/", fmt.Sprintf("files/l%d/", layer)); err != nil {
		return err
	}
	for i := range n {
		if i%filesInADir == 0 {
			if err := writeDirs(out, fmt.Sprintf("files/l%d/d%d/", layer, i/filesInADir)); err != nil {
				return err
			}
		}
		if err := writeFile(out, fmt.Sprintf("files/l%d/d%d/f%d", layer, i/filesInADir, i), text(random)); err != nil {
			return err
		}
	}
	return nil
}

// writeDirs writes entries for directories, as most tools do.
func writeDirs(out *tar.Writer, names ...string) error {
	for _, name := range names {
		if err := out.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755}); err != nil {
			return err
		}
	}
	return nil
}

func writeFile(out *tar.Writer, name string, data []byte) error {
	if err := out.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(data))}); err != nil {
		return err
	}
	_, err := out.Write(data)
	return err
}

// atOnce starts as many builds together, each for somebody else; the time is
// that of all, and so is the memory.
func (b *bench) atOnce(ctx context.Context, n int, o order) (all sample, err error) {
	samples := make([]sample, n)
	g, ctx := errgroup.WithContext(ctx)
	for i := range n {
		g.Go(func() (err error) {
			one := o
			one.dest = strings.TrimSuffix(o.dest, ":1") + fmt.Sprintf("-%d:1", i)
			one.flags = append([]string{"--build-arg", fmt.Sprintf("WHO=%d", i)}, o.flags...)
			samples[i], err = b.ours(ctx, one)
			return err
		})
	}
	err = g.Wait()
	for _, s := range samples {
		all = sample{wall: max(all.wall, s.wall), memory: max(all.memory, s.memory), disk: max(all.disk, s.disk), spent: s.spent}
	}
	return all, err
}

// diskUsed is what the file system of dir has in use beside the registry's storage,
// in bytes.
func (b *bench) diskUsed() int64 {
	var fsys unix.Statfs_t
	if err := unix.Statfs(b.tmp, &fsys); err != nil {
		return 0
	}
	used := int64(fsys.Blocks-fsys.Bfree) * fsys.Bsize
	filepath.WalkDir(b.registry.Dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if info, err := d.Info(); err == nil {
				used -= info.Sys().(*syscall.Stat_t).Blocks * 512
			}
		}
		return nil // files go while they are looked at
	})
	return used
}

// scaleReport is a table of what grew with what.
func scaleReport(results []result) string {
	rows := [][]string{{"case", "mode", "s", "MiB of memory", "MiB on disk", "s until the first step", "steps s", "none of the parts s"}}
	var names []string
	for _, r := range results {
		names = append(names, "- "+r.name+": "+r.what)
		for _, m := range allModes {
			if s := r.ours(m); s.wall > 0 {
				rows = append(rows, []string{r.name, string(m), seconds(s.wall), fmt.Sprint(s.memory >> 20), fmt.Sprint(s.disk >> 20), seconds(s.first),
					seconds(s.spent[partSteps]), seconds(max(0, s.wall-s.spent[partAny]))})
			}
		}
	}
	return strings.Join(names, "\n") + "\n\nWhat is on disk is the most that was more in use than before the build, without the registry's storage:\n\n" + table(rows)
}
