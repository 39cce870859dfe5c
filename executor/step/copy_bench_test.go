package step

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/plan"
)

// guestContext is where a sandbox has the context. If it is there, as in a
// bundle made by hand, it is what is copied; else some small files.
const guestContext = "/context"

func BenchmarkCopy(b *testing.B) {
	from := guestContext
	if _, err := os.Stat(from); err != nil {
		from = b.TempDir()
		smallFiles(b, from, 2000)
	}
	for b.Loop() {
		b.StopTimer()
		s := newStages(b, "")
		s.env.Context = Source{Root: from}
		b.StartTimer()
		op := plan.Copy{Paths: []string{"."}, Dest: "/app/"}
		if _, err := Do(b.Context(), &op, s.tree, s.env); err != nil {
			b.Fatal(err)
		}
	}
}

// smallFiles makes n files of 6 KiB in directories of 100.
func smallFiles(t testing.TB, dir string, n int) {
	t.Helper()
	data := make([]byte, 6<<10)
	for i := range n {
		sub := filepath.Join(dir, fmt.Sprintf("d%d", i/100))
		if i%100 == 0 {
			must(t, os.Mkdir(sub, 0o755))
		}
		must(t, os.WriteFile(filepath.Join(sub, fmt.Sprintf("f%d", i)), data, 0o644))
	}
}
