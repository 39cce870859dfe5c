package gateway

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// clientEnv makes the test program a client on the sandbox's side of a link:
// its value, or what follows clientArg, is what to do, where, and how much.
const (
	clientEnv = "KBUILD_GATEWAY_TEST_CLIENT"
	clientArg = "client-of-gateway-test"
)

// streamSize is what one stream moves, in bytes.
const streamSize = 1 << 30

// client measures, and prints the result: bytes or connections a second.
func client(args []string) int {
	n, err := strconv.Atoi(args[2])
	if err == nil {
		begin := time.Now()
		var done int64
		done, err = clients(args[0], args[1], n)
		fmt.Printf("rate=%.0f\n", float64(done)/time.Since(begin).Seconds())
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

func clients(what, to string, n int) (int64, error) {
	switch what {
	case "down", "up":
		c, err := net.Dial("tcp", to)
		if err != nil {
			return 0, err
		}
		defer c.Close()
		if _, err := io.WriteString(c, what[:1]); err != nil {
			return 0, err
		}
		if what == "down" {
			return io.CopyBuffer(struct{ io.Writer }{io.Discard}, io.LimitReader(c, int64(n)), make([]byte, 256<<10))
		}
		if _, err = io.CopyBuffer(struct{ io.Writer }{c}, io.LimitReader(zeros{}, int64(n)), make([]byte, 256<<10)); err != nil {
			return 0, err
		}
		_ = c.(*net.TCPConn).CloseWrite()
		_, err = io.ReadAll(c)
		return int64(n), err
	}
	return int64(n), connections(to, n)
}

// connections makes and ends n connections, from a few goroutines.
func connections(to string, n int) error {
	const workers = 8
	var wg sync.WaitGroup
	errs := make([]error, workers)
	for w := range workers {
		wg.Go(func() {
			for i := w; i < n && errs[w] == nil; i += workers {
				errs[w] = oneConnection(to)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func oneConnection(to string) error {
	c, err := net.Dial("tcp", to)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := io.WriteString(c, "e"); err != nil {
		return err
	}
	_, err = io.ReadAll(c)
	return err
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }

// speedServer sends for d, takes for u, and ends at once for e.
func speedServer(t testing.TB) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				what := make([]byte, 1)
				if _, err := io.ReadFull(c, what); err != nil {
					return
				}
				buf := make([]byte, 1<<20)
				switch what[0] {
				case 'd':
					for err == nil {
						_, err = c.Write(buf)
					}
				case 'u':
					for err == nil {
						_, err = c.Read(buf)
					}
				}
			}()
		}
	}()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// BenchmarkLink measures from a Linux network namespace, and from gVisor if
// runsc is there. It needs a program without libc: CGO_ENABLED=0 go test -bench
// Link -run '^$' -benchtime 3x. What it tells is the best of all rounds.
func BenchmarkLink(b *testing.B) {
	server := speedServer(b)
	to := through(server).String()
	for _, who := range everybody {
		for what, n := range map[string]int{"down": streamSize, "up": streamSize, "connections": 2000} {
			b.Run(who.name+"/"+what, func(b *testing.B) {
				j := job{Command: []string{"/proc/self/exe"}, Client: []string{what, to, strconv.Itoa(n)}, Allow: []string{server.String()}}
				measure(b, who, j, what)
			})
			b.Run(who.name+"/gvisor/"+what, func(b *testing.B) {
				j := inSandbox(b, who, "exec /bin/client")
				j.Allow = []string{server.String()}
				addClient(b, j, []string{what, to, strconv.Itoa(n)})
				measure(b, who, j, what)
			})
		}
	}
}

// addClient puts this program into a sandbox's bundle.
func addClient(t testing.TB, j job, args []string) {
	t.Helper()
	bundle := ""
	for _, a := range j.Command {
		if s, ok := strings.CutPrefix(a, "--bundle="); ok {
			bundle = s
		}
	}
	self, err := os.ReadFile("/proc/self/exe")
	must(t, err)
	must(t, os.WriteFile(bundle+"/rootfs/bin/client", self, 0o755))
	var config map[string]any
	b, err := os.ReadFile(bundle + "/config.json")
	must(t, err)
	must(t, json.Unmarshal(b, &config))
	config["process"].(map[string]any)["env"] = []string{"PATH=/bin", clientEnv + "=" + strings.Join(args, " ")}
	b, err = json.Marshal(config)
	must(t, err)
	must(t, os.WriteFile(bundle+"/config.json", b, 0o644))
}

func measure(b *testing.B, who as, j job, what string) {
	b.Helper()
	var best float64
	for b.Loop() {
		out := launch(b, who, j)
		_, rate, found := strings.Cut(out.Output, "rate=")
		x, err := strconv.ParseFloat(strings.TrimSpace(rate), 64)
		if !found || err != nil {
			b.Fatalf("no rate: %s", out.Output)
		}
		best = max(best, x)
	}
	b.ReportMetric(0, "ns/op")
	if what == "connections" {
		b.ReportMetric(best, "conn/s")
	} else {
		b.ReportMetric(best*8/1e9, "Gbit/s")
	}
}
