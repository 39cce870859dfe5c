package step

import (
	"debug/elf"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/beneath"
)

// ForeignError is a command that is a program for another architecture.
type ForeignError struct {
	Program string // as seen in the stage
	Arch    string // as Go names it, or as ELF does
}

// Error says what is missing: on other machines the kernel's binfmt_misc hands
// such a program to an emulator.
func (e *ForeignError) Error() string {
	return fmt.Sprintf("%s is a program for %s, and this sandbox runs programs for %s only: gVisor has no binfmt_misc",
		e.Program, e.Arch, runtime.GOARCH)
}

const (
	// headerSize is how much of a program is read: the line of an interpreter
	// is no longer, an ELF header is shorter.
	headerSize = 256
	// maxInterpreters is how many interpreters are followed, as in Linux.
	maxInterpreters = 5
)

// foreign tells whether the kernel refused a program, file seen from directory
// cwd of a stage, since it or its interpreter is for another architecture. It
// returns nil where that is not so, or not to be seen.
func foreign(root, cwd, file string) error {
	dir, err := beneath.OpenRoot(root)
	if err != nil {
		return nil
	}
	defer unix.Close(dir)
	for range maxInterpreters {
		if !path.IsAbs(file) {
			file = path.Join("/", cwd, file)
		}
		head := programHead(dir, file)
		if interpreter, ok := scriptOf(head); ok {
			file = interpreter
			continue
		}
		if arch := archOf(head); arch != "" && arch != runtime.GOARCH {
			return &ForeignError{Program: file, Arch: arch}
		}
		return nil
	}
	return nil
}

// programHead is the beginning of a regular file of a stage; nil if there is
// none.
func programHead(root int, file string) []byte {
	at, err := beneath.Resolve(root, file)
	if err != nil {
		return nil
	}
	defer at.Close()
	if at.Leaf == "" {
		return nil
	}
	fd, err := beneath.Openat(at.FD, at.Leaf, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	f := os.NewFile(uintptr(fd), file)
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil
	}
	head := make([]byte, headerSize)
	n, _ := io.ReadFull(f, head)
	return head[:n]
}

// scriptOf is the interpreter that a script names.
func scriptOf(head []byte) (interpreter string, ok bool) {
	line, ok := strings.CutPrefix(string(head), "#!")
	if !ok {
		return "", false
	}
	line, _, _ = strings.Cut(line, "\n")
	words := strings.Fields(line)
	if len(words) == 0 {
		return "", false
	}
	return words[0], true
}

// archOf is the architecture of an ELF program, or empty.
func archOf(head []byte) string {
	if len(head) < 20 || string(head[:4]) != elf.ELFMAG {
		return ""
	}
	var order binary.ByteOrder = binary.LittleEndian
	little := elf.Data(head[elf.EI_DATA]) != elf.ELFDATA2MSB
	if !little {
		order = binary.BigEndian
	}
	wide := elf.Class(head[elf.EI_CLASS]) == elf.ELFCLASS64
	switch m := elf.Machine(order.Uint16(head[18:])); {
	case m == elf.EM_X86_64:
		return "amd64"
	case m == elf.EM_386:
		return "386"
	case m == elf.EM_AARCH64:
		return "arm64"
	case m == elf.EM_ARM:
		return "arm"
	case m == elf.EM_RISCV && wide:
		return "riscv64"
	case m == elf.EM_S390 && wide:
		return "s390x"
	case m == elf.EM_PPC64 && little:
		return "ppc64le"
	case m == elf.EM_LOONGARCH && wide:
		return "loong64"
	default:
		return m.String()
	}
}
