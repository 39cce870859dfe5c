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

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/store"
)

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

// An application: 20,000 small files, 127 MB; a file of 1 GB that does not
// compress.
func BenchmarkPack(b *testing.B) {
	blob, small := manyFiles(b, 20000, 6350)
	many := tmpfs(b)
	if _, err := Unpack(context.Background(), bytes.NewReader(blob), many, UnpackOptions{}); err != nil {
		b.Fatal(err)
	}
	one := tmpfs(b)
	f, err := os.Create(one + "/random")
	if err != nil {
		b.Fatal(err)
	}
	io.CopyN(f, rand.NewChaCha8([32]byte{}), 1e9)
	f.Close()
	for _, c := range []struct {
		name string
		dir  string
		size int64
		how  request.Compression
	}{
		{"files", many, small, request.Compression{}},
		{"files-gzip5", many, small, request.Compression{Level: 5}},
		{"files-zstd", many, small, request.Compression{Algorithm: "zstd"}},
		{"random", one, 1e9, request.Compression{}},
		{"random-zstd", one, 1e9, request.Compression{Algorithm: "zstd"}},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(c.size)
			for b.Loop() {
				dir := tmpfs(b)
				st, err := store.Open(dir)
				if err != nil {
					b.Fatal(err)
				}
				blob, err := Pack(context.Background(), c.dir, st, PackOptions{Compression: c.how})
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(blob.Size)/1e6, "MB-packed")
				os.RemoveAll(dir)
			}
		})
	}
	b.Run("tar", func(b *testing.B) {
		b.SetBytes(small)
		for b.Loop() {
			if _, err := WriteTar(context.Background(), many, io.Discard); err != nil {
				b.Fatal(err)
			}
		}
	})
}
