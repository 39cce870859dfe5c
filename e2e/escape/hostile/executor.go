package hostile

import (
	"bytes"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Executor builds an executor that was taken over, as file: it works as the real
// one does, and does beside that what the script says, see package executor
// below.
func Executor(t testing.TB, file, real, script string) {
	t.Helper()
	program := filepath.Join(filepath.Dir(file), "hostile-executor")
	const source = "github.com/kbuild-sandbox/kbuild-sandbox/e2e/escape/hostile/executor"
	cmd := exec.Command("go", "build", "-o", program, source)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	defer os.Remove(program)
	var all bytes.Buffer
	for _, f := range []string{program, real} {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(b)
	}
	info, err := os.Stat(real)
	if err != nil {
		t.Fatal(err)
	}
	all.WriteString(script)
	sizes := []uint64{uint64(info.Size()), uint64(len(script))}
	if err := binary.Write(&all, binary.LittleEndian, sizes); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, all.Bytes(), 0o755); err != nil {
		t.Fatal(err)
	}
}
