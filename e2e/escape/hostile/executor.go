package hostile

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// Executor makes an executor that was taken over, as file: it works as the real
// one does, and does beside that what the script says, see package executor
// below.
func Executor(t testing.TB, file, real, script string) {
	t.Helper()
	own, err := program()
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := os.ReadFile(real)
	if err != nil {
		t.Fatal(err)
	}
	var end bytes.Buffer
	end.WriteString(script)
	sizes := []uint64{uint64(len(theirs)), uint64(len(script))}
	if err := binary.Write(&end, binary.LittleEndian, sizes); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, bytes.Join([][]byte{own, theirs, end.Bytes()}, nil), 0o755); err != nil {
		t.Fatal(err)
	}
}

// program is what stands before the real executor. It is built once.
var program = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "hostile-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "executor")
	cmd := exec.Command("go", "build", "-ldflags", "-s -w", "-o", file, "github.com/kbuild-sandbox/kbuild-sandbox/e2e/escape/hostile/executor")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the hostile executor: %w: %s", err, out)
	}
	return os.ReadFile(file)
})
