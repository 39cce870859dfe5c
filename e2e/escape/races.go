package escape

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	// raceTime is how long a race goes on, in seconds.
	raceTime = 3
	// raceMounts is how many steps mount in that time.
	raceMounts = 10
	// minSwaps is how many swaps make a race.
	minSwaps = 1000
)

// raceDockerfile has two stages that share a cache: in one, a link of it changes
// between a directory and /; in the other, steps have mounts through that link.
func raceDockerfile(mount string) string {
	var mounts strings.Builder
	for i := range raceMounts {
		fmt.Fprintf(&mounts, "RUN --mount=type=cache,id=race,target=/c %s grep -q ^root /etc/passwd && echo mounted %d\n", strings.ReplaceAll(mount, "$N", strconv.Itoa(i)), i)
	}
	return fmt.Sprintf(`FROM $BUSYBOX AS base
COPY probe nonce /
RUN --mount=type=cache,id=race,target=/c mkdir -p /c/real/tmp /c/real/home && ln -sfn real /c/d
FROM base AS swaps
RUN --mount=type=cache,id=race,target=/c /probe 0 swap /c %d
FROM base AS mounts
%sFROM scratch
COPY --from=swaps /nonce /a
COPY --from=mounts /nonce /b
`, raceTime, &mounts)
}

// mountRace mounts at mount points that are there already.
func mountRace(t *Target) Outcome {
	r := t.Build(Build{Dockerfile: raceDockerfile("--mount=type=tmpfs,target=/c/d/tmp --mount=type=tmpfs,target=/c/d/home")})
	outcome := r.Done(`\d mounted 0`, fmt.Sprintf(`\d mounted %d`, raceMounts-1))
	r.swapped()
	return outcome
}

// createRace mounts at mount points that have to be made. One that is not found
// again, since it was made elsewhere in the image, ends the build.
func createRace(t *Target) Outcome {
	const tries = 3
	outcome := Rejected
	for range tries {
		r := t.Build(Build{Dockerfile: raceDockerfile("--mount=type=tmpfs,target=/c/d/new$N --mount=type=bind,source=nonce,target=/c/d/tmp/new/file$N")})
		if r.Status != 0 {
			r.Rejected(`mount point /c/d/(tmp/)?new.*: no such file or directory`)
			continue
		}
		r.swapped()
		outcome = Contained
	}
	return outcome
}

// swapped wants that there was a race.
func (r *Result) swapped() {
	r.t.Helper()
	m := regexp.MustCompile(`swapped (\d+) ` + r.t.Nonce).FindStringSubmatch(r.Output)
	if m == nil {
		r.t.Fatal("nothing was swapped")
	}
	if n, _ := strconv.Atoi(m[1]); n < minSwaps {
		r.t.Fatalf("swapped only %d times", n)
	}
}

// specs are the OCI specs that launchers wrote into the attack's $TMPDIR.
type specs struct {
	t    *Target
	text map[string]string
}

// specs runs f and reads what specs are there while it runs.
func (t *Target) specs(f func()) *specs {
	t.Helper()
	s := &specs{t: t, text: map[string]string{}}
	over := make(chan bool)
	var done sync.WaitGroup
	done.Go(func() {
		for {
			files, _ := filepath.Glob(filepath.Join(t.Dir, "tmp", "*", "config.json"))
			deeper, _ := filepath.Glob(filepath.Join(t.Dir, "tmp", "*", "*", "config.json"))
			for _, file := range append(files, deeper...) {
				if b, err := os.ReadFile(file); err == nil && len(b) > 0 {
					s.text[file] = string(b)
				}
			}
			select {
			case <-over:
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	})
	defer done.Wait()
	defer close(over)
	f()
	return s
}

// plain wants that there was a spec, and that none says one of the words.
func (s *specs) plain(words ...string) {
	s.t.Helper()
	if len(s.text) == 0 {
		s.t.Fatal("no OCI spec was seen")
	}
	s.t.Logf("%d OCI specs seen", len(s.text))
	for file, text := range s.text {
		for _, w := range words {
			if strings.Contains(text, w) {
				s.t.Errorf("%s has %q", file, w)
			}
		}
	}
}
