package escape

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"
)

// Canaries are servers that count who speaks to them.
type Canaries struct {
	mu   sync.Mutex
	hits []string
}

// Hits are the connections to forbidden addresses so far, "where: first words".
func (c *Canaries) Hits() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.hits)
}

func (c *Canaries) add(hit string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hits = append(c.hits, hit)
}

// canaryPorts are where forbidden addresses listen: the web, DNS, the engine of
// Docker and a kubelet.
var canaryPorts = []string{"80", "53", "2375", "10250"}

// serveCanaries listens at every forbidden address.
func serveCanaries(t testing.TB, w *World) *Canaries {
	t.Helper()
	c := &Canaries{}
	runner, world := Forbidden()
	for _, port := range canaryPorts {
		for _, a := range runner {
			c.listen(t, net.Listen, net.ListenPacket, net.JoinHostPort(a, port))
		}
		w.In(func() {
			for _, a := range world {
				c.listen(t, net.Listen, net.ListenPacket, net.JoinHostPort(a, port))
			}
		})
	}
	return c
}

func (c *Canaries) listen(t testing.TB, tcp func(string, string) (net.Listener, error), udp func(string, string) (net.PacketConn, error), address string) {
	t.Helper()
	l, err := tcp("tcp", address)
	p, err2 := udp("udp", address)
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close(); p.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			c.add("tcp " + address + " from " + conn.RemoteAddr().String())
			go answer(conn)
		}
	}()
	go func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := p.ReadFrom(buf)
			if err != nil {
				return
			}
			c.add(fmt.Sprintf("udp %s from %s: %q", address, from, buf[:min(n, 64)]))
			_, _ = p.WriteTo([]byte("reached "+address), from)
		}
	}()
}

// answer says what a step must never read.
func answer(conn net.Conn) {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	_, _ = conn.Read(make([]byte, 4096))
	_, _ = fmt.Fprintf(conn, "HTTP/1.0 200 OK\r\n\r\nreached %s\n", conn.LocalAddr())
}

// Web is the one server of the world that may be reached: http://PublicIPv4/.
// Attacks put what they need below /NNN/.
type Web struct {
	mu   sync.Mutex
	mux  *http.ServeMux
	hits []string
}

// Handle serves a path, like /036/x, or with a slash at its end what is below.
func (w *Web) Handle(path string, h http.HandlerFunc) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mux.HandleFunc(path, h)
}

// Hits are the paths asked for, in order.
func (w *Web) Hits() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.hits)
}

func (w *Web) ServeHTTP(out http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	w.hits = append(w.hits, r.URL.Path)
	h, _ := w.mux.Handler(r)
	w.mu.Unlock()
	h.ServeHTTP(out, r)
}

func serveWeb(t testing.TB, w *World) *Web {
	t.Helper()
	web := &Web{mux: http.NewServeMux()}
	for _, a := range []string{PublicIPv4, PublicIPv6} {
		l, err := w.Listen(net.JoinHostPort(a, "80"))
		if err != nil {
			t.Fatal(err)
		}
		s := &http.Server{Handler: web, ReadHeaderTimeout: 10 * time.Second}
		t.Cleanup(func() { s.Close() })
		go func() { _ = s.Serve(l) }()
	}
	web.Handle("/hello", func(out http.ResponseWriter, _ *http.Request) { fmt.Fprintln(out, "hello from the world") })
	return web
}
