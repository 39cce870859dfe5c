package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/klauspost/compress/gzip"
	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/store"
)

// cpu reports the processor time that an operation took, which other work on
// the machine changes little.
func cpu(b *testing.B) func() {
	used := func() float64 {
		var u unix.Rusage
		unix.Getrusage(unix.RUSAGE_SELF, &u)
		return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
	}
	before := used()
	return func() { b.ReportMetric((used()-before)/float64(b.N), "cpu-s/op") }
}

// prose fills b with words, which compress about as well as programs do.
func prose(r *rand.Rand, b []byte) {
	var words [600]string
	for i := range words {
		words[i] = fmt.Sprintf("%x ", r.Uint32()>>(r.IntN(24)))
	}
	for n := 0; n < len(b); {
		n += copy(b[n:], words[int(r.ExpFloat64()*80)%len(words)])
	}
}

// manyFiles writes a gzip layer: files in a tenth as many directories, of size
// bytes on average.
func manyFiles(b *testing.B, files, size int) (blob []byte, total int64) {
	b.Helper()
	r := rand.New(rand.NewPCG(1, 2))
	text := make([]byte, 8<<20)
	prose(r, text)
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	w := tar.NewWriter(z)
	for i := range files {
		dir := fmt.Sprintf("app/d%d/s%d", i/100, i/10)
		if i%10 == 0 {
			d := directory(dir+"/", 0o755)
			w.WriteHeader(&d.Header)
		}
		n := size/2 + r.IntN(size)
		e := file(fmt.Sprintf("%s/f%d.js", dir, i), "")
		e.Size = int64(n)
		w.WriteHeader(&e.Header)
		at := r.IntN(len(text) - n)
		w.Write(text[at : at+n])
		total += int64(n)
	}
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
	z.Close()
	return out.Bytes(), total
}

// A Go toolchain: 23,000 files, 250 MB.
func BenchmarkUnpack(b *testing.B) {
	blob, total := manyFiles(b, 23000, 10800)
	b.SetBytes(total)
	defer cpu(b)()
	for b.Loop() {
		b.StopTimer()
		dir := tmpfs(b)
		b.StartTimer()
		if _, err := Unpack(context.Background(), bytes.NewReader(blob), dir, UnpackOptions{}); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		os.RemoveAll(dir)
		b.StartTimer()
	}
}

// An application: 20,000 small files, 127 MB.
func BenchmarkPackFiles(b *testing.B) {
	dir, size := application(b)
	for name, how := range map[string]request.Compression{
		"gzip": {}, "gzip5": {Level: 5}, "zstd": {Algorithm: "zstd"},
	} {
		b.Run(name, func(b *testing.B) { pack(b, dir, size, how) })
	}
}

func application(b *testing.B) (dir string, size int64) {
	blob, size := manyFiles(b, 20000, 6350)
	dir = tmpfs(b)
	if _, err := Unpack(context.Background(), bytes.NewReader(blob), dir, UnpackOptions{}); err != nil {
		b.Fatal(err)
	}
	return dir, size
}

// A file of 1 GB that does not compress.
func BenchmarkPackRandom(b *testing.B) {
	dir := tmpfs(b)
	f, err := os.Create(dir + "/random")
	if err != nil {
		b.Fatal(err)
	}
	if _, err := io.CopyN(f, rand.NewChaCha8([32]byte{}), 1e9); err != nil {
		b.Fatal(err)
	}
	f.Close()
	for name, how := range map[string]request.Compression{"gzip": {}, "gzip5": {Level: 5}, "zstd": {Algorithm: "zstd"}} {
		b.Run(name, func(b *testing.B) { pack(b, dir, 1e9, how) })
	}
}

func pack(b *testing.B, dir string, size int64, how request.Compression) {
	b.SetBytes(size)
	defer cpu(b)()
	for b.Loop() {
		out := tmpfs(b)
		st, err := store.Open(out)
		if err != nil {
			b.Fatal(err)
		}
		blob, err := Pack(context.Background(), dir, st, PackOptions{Compression: how})
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(blob.Size)/1e6, "MB-packed")
		os.RemoveAll(out)
	}
}

func BenchmarkWriteTar(b *testing.B) {
	dir, size := application(b)
	b.SetBytes(size)
	defer cpu(b)()
	for b.Loop() {
		if _, err := WriteTar(context.Background(), dir, io.Discard); err != nil {
			b.Fatal(err)
		}
	}
}
