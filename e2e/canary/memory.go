package canary

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Process is a process on this host.
type Process struct {
	PID     int
	Parent  int
	Command []string
}

// Descendants are the processes that root has started, and those that these
// have, without root.
func Descendants(root int) ([]Process, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	children := map[int][]int{}
	for _, file := range stats {
		b, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		// pid (name) state ppid: the name may hold anything.
		fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
		if len(fields) < 2 || string(fields[0]) == "Z" {
			continue
		}
		parent, err := strconv.Atoi(string(fields[1]))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		children[parent] = append(children[parent], pid)
	}
	var out []Process
	for queue := []int{root}; len(queue) > 0; queue = queue[1:] {
		for _, pid := range children[queue[0]] {
			line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			if err != nil {
				continue
			}
			out = append(out, Process{pid, queue[0], strings.Split(strings.TrimRight(string(line), "\x00"), "\x00")})
			queue = append(queue, pid)
		}
	}
	return out, nil
}

// Look is one look at several processes. What they share is read once.
type Look struct {
	search *Search
	seen   map[string]bool // device, inode and range
}

// NewLook begins a look for what s looks for.
func NewLook(s *Search) *Look { return &Look{s, map[string]bool{}} }

// once tells whether something is seen for the first time.
func (l *Look) once(what string) bool {
	first := !l.seen[what]
	l.seen[what] = true
	return first
}

// At looks into everything that a process has: its memory, its arguments and
// environment, and the files that it has open or shares, also those without a
// name. read is how many bytes that was. A process that has ended has nothing.
func (l *Look) At(p Process) (hits Hits, read int64, err error) {
	hits = Hits{}
	for _, part := range []func(Process) (Hits, int64, error){l.memory, l.files, l.words} {
		more, n, err := part(p)
		hits.Add(more)
		read += n
		if err != nil && !gone(err) {
			return hits, read, fmt.Errorf("process %d: %w", p.PID, err)
		}
	}
	return hits, read, nil
}

func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH)
}

func (p Process) path(name string) string { return fmt.Sprintf("/proc/%d/%s", p.PID, name) }

// words are the arguments and the environment that a process was started with.
func (l *Look) words(p Process) (Hits, int64, error) {
	hits, read := Hits{}, int64(0)
	for _, name := range []string{"cmdline", "environ"} {
		b, err := os.ReadFile(p.path(name))
		if err != nil {
			return hits, read, err
		}
		hits.Add(l.search.text(string(b)))
		read += int64(len(b))
	}
	return hits, read, nil
}

// files are those that a process has open. Holes are left out.
func (l *Look) files(p Process) (Hits, int64, error) {
	hits, read := Hits{}, int64(0)
	links, err := filepath.Glob(p.path("fd/*"))
	if err != nil {
		return hits, 0, err
	}
	for _, link := range links {
		target, err := os.Readlink(link)
		if err != nil || strings.HasPrefix(target, "/proc/") || strings.HasPrefix(target, "/sys/") {
			continue
		}
		more, n, err := l.file(link)
		hits.Add(more)
		read += n
		if err != nil && !gone(err) {
			return hits, read, fmt.Errorf("%s: %w", target, err)
		}
	}
	return hits, read, nil
}

// file looks at the parts of a regular file that are there.
func (l *Look) file(path string) (Hits, int64, error) {
	hits, read := Hits{}, int64(0)
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG ||
		!l.once(fmt.Sprintf("file %d %d", st.Dev, st.Ino)) {
		return hits, 0, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return hits, 0, err
	}
	defer f.Close()
	for at := int64(0); ; {
		start, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return hits, read, nil // the rest is a hole
		}
		if err != nil {
			return hits, read, err
		}
		end, err := unix.Seek(int(f.Fd()), start, unix.SEEK_HOLE)
		if err != nil {
			return hits, read, err
		}
		more, n, err := l.search.In(io.NewSectionReader(f, start, end-start))
		hits.Add(more)
		read += n
		if err != nil {
			return hits, read, err
		}
		at = end
	}
}

// mapping is a line of /proc/PID/maps.
type mapping struct {
	from, to     uint64
	mode         string // rwx and p for private or s for shared
	offset, node string
	device       string
}

// memory is every mapping of a process that can be read.
func (l *Look) memory(p Process) (Hits, int64, error) {
	hits, read := Hits{}, int64(0)
	var in memoryOf
	defer in.close()
	if err := in.open(p); err != nil {
		return hits, 0, err
	}
	lines := bufio.NewScanner(in.maps)
	for lines.Scan() {
		var m mapping
		if _, err := fmt.Sscanf(lines.Text(), "%x-%x %s %s %s %s", &m.from, &m.to, &m.mode, &m.offset, &m.device, &m.node); err != nil {
			return hits, read, fmt.Errorf("maps: %q: %w", lines.Text(), err)
		}
		if m.mode[0] != 'r' || strings.Contains(lines.Text(), "[vvar") {
			continue
		}
		more, n, err := l.mapping(p, in, m)
		hits.Add(more)
		read += n
		if err != nil && !gone(err) {
			return hits, read, fmt.Errorf("memory %s: %w", lines.Text(), err)
		}
	}
	return hits, read, lines.Err()
}

// mapping looks at one mapping. gVisor keeps the sandbox's memory in a file
// without a name, which sentry and stubs map, a part at a time: what is shared
// with a file is read from the file, as a whole.
func (l *Look) mapping(p Process, in memoryOf, m mapping) (Hits, int64, error) {
	ofFile := m.node != "0"
	if ofFile && m.mode[3] == 's' {
		return l.file(p.path(fmt.Sprintf("map_files/%x-%x", m.from, m.to)))
	}
	if ofFile && m.mode[1] != 'w' && !l.once(fmt.Sprint("part ", m.device, m.node, m.offset, m.to-m.from)) {
		return nil, 0, nil // a program's code
	}
	return in.pages(l.search, m.from, m.to)
}

// memoryOf is a process's memory as the kernel shows it.
type memoryOf struct{ maps, mem, pagemap *os.File }

func (m *memoryOf) open(p Process) (err error) {
	for name, f := range map[string]**os.File{"maps": &m.maps, "mem": &m.mem, "pagemap": &m.pagemap} {
		if *f, err = os.Open(p.path(name)); err != nil {
			return err
		}
	}
	return nil
}

func (m *memoryOf) close() {
	for _, f := range []*os.File{m.maps, m.mem, m.pagemap} {
		if f != nil {
			f.Close()
		}
	}
}

const pageSize = 4096

// pages looks at the pages from from to to that are there: gVisor reserves far
// more than it uses. Each run of them is searched on its own.
func (m *memoryOf) pages(s *Search, from, to uint64) (Hits, int64, error) {
	hits, read := Hits{}, int64(0)
	for at := from; at < to; {
		start, end, err := m.present(at, to)
		if err != nil || start == end {
			return hits, read, err
		}
		more, n, err := s.In(io.NewSectionReader(m.mem, int64(start), int64(end-start)))
		hits.Add(more)
		read += n
		// A page beyond the end of a mapped file cannot be read.
		if err != nil && !errors.Is(err, syscall.EIO) && !errors.Is(err, syscall.EFAULT) {
			return hits, read, err
		}
		at = end
	}
	return hits, read, nil
}

// present is the first run of pages from at on that are in memory or in swap;
// empty: there is none before to. The kernel keeps eight bytes for each page, and
// says in the highest two whether it is there (admin-guide/mm/pagemap.rst).
func (m *memoryOf) present(at, to uint64) (start, end uint64, err error) {
	const entry, there = 8, 3 << 62
	buf := make([]byte, entry<<13)
	for start = to; at < to; {
		want := min(uint64(len(buf)), (to-at)/pageSize*entry)
		n, err := m.pagemap.ReadAt(buf[:want], int64(at/pageSize*entry))
		if n == 0 { // no page has an entry here any longer
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return start, max(start, at), err
		}
		for i := 0; i+entry <= n; i += entry {
			is := binary.LittleEndian.Uint64(buf[i:])&there != 0
			if is && start == to {
				start = at
			}
			if !is && start != to {
				return start, at, nil
			}
			at += pageSize
		}
	}
	return start, to, nil
}
