package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// networkTries are about what a step reaches.
func networkTries() map[string]attempt {
	return map[string]attempt{
		"sockets":   listeners,
		"reach":     reach,
		"nonetwork": noNetwork,
		"ask":       ask,
		"sniff":     sniff,
	}
}

// listeners wants that nothing listens in this network, by name or by port.
func listeners(p *probe, _ []string) string {
	for _, table := range []string{"unix", "tcp", "tcp6", "udp", "udp6", "packet", "netlink"} {
		b, _ := os.ReadFile("/proc/net/" + table)
		lines := strings.Split(strings.TrimSpace(string(b)), "\n")
		p.see("/proc/net/%s has %d lines", table, len(lines)-1)
		if len(lines) > 1 {
			p.escape("/proc/net/%s: %s", table, lines[1:])
		}
	}
	for _, name := range []string{"@/containerd-shim", "@containerd", "@kbuild", "@runsc-sandbox", "@/var/run/docker.sock", "@dbus"} {
		if c, err := net.Dial("unix", name); err == nil {
			c.Close()
			p.escape("%s listens", name)
		}
	}
	for port := 1; port <= 4096; port++ {
		for _, host := range []string{"127.0.0.1", "::1"} {
			c, err := net.DialTimeout("tcp", net.JoinHostPort(host, fmt.Sprint(port)), 100*time.Millisecond)
			if err == nil {
				c.Close()
				p.escape("port %d of %s listens", port, host)
			}
		}
	}
	return inert
}

const reachTime = 4 * time.Second

// reach asks a server that may be reached, URL, for its greeting, and every
// address that may not for anything, over TCP and UDP. The addresses are lines of
// the file.
func reach(p *probe, args []string) string {
	url, file := args[0], args[1]
	client := &http.Client{Timeout: reachTime}
	resp, err := client.Get(url)
	must(err)
	greeting, err := io.ReadAll(resp.Body)
	must(err)
	if !strings.Contains(string(greeting), "hello from the world") {
		fail(fmt.Sprintf("%s says %q", url, greeting))
	}
	f, err := os.Open(file)
	must(err)
	var wg sync.WaitGroup
	var mu sync.Mutex
	tried := 0
	slots := make(chan bool, 32)
	for s := bufio.NewScanner(f); s.Scan(); {
		address := s.Text()
		for _, network := range []string{"tcp", "udp"} {
			tried++
			wg.Go(func() {
				slots <- true
				answer, err := exchange(network, address)
				<-slots
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					p.escape("%s %s: %q", network, address, answer)
				}
			})
		}
	}
	wg.Wait()
	p.see("%s answers, %d others do not", url, tried)
	return rejected
}

// exchange says something and reads an answer.
func exchange(network, address string) ([]byte, error) {
	c, err := net.DialTimeout(network, address, reachTime)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	wait := reachTime
	if network == "udp" {
		wait = time.Second
	}
	_ = c.SetDeadline(time.Now().Add(wait))
	if _, err := c.Write([]byte("GET / HTTP/1.0\r\nMetadata-Flavor: Google\r\n\r\n")); err != nil {
		return nil, err
	}
	answer := make([]byte, 200)
	n, err := c.Read(answer)
	return answer[:n], err
}

// noNetwork wants no interface but an idle loopback, and no answer to anything
// that is asked of the servers given.
func noNetwork(p *probe, servers []string) string {
	interfaces, err := net.Interfaces()
	p.see("%d interfaces, %v", len(interfaces), err)
	for _, i := range interfaces {
		if i.Flags&net.FlagLoopback == 0 {
			p.escape("there is an interface %s", i.Name)
		}
	}
	resolvers, _ := filepath.Glob("/etc/resolv.conf")
	for _, file := range resolvers {
		b, _ := os.ReadFile(file)
		for line := range strings.Lines(string(b)) {
			if f := strings.Fields(line); len(f) == 2 && f[0] == "nameserver" {
				servers = append(servers, f[1])
			}
		}
	}
	for _, s := range servers {
		for _, network := range []string{"tcp", "udp"} {
			answer, err := exchange(network, net.JoinHostPort(s, "53"))
			p.see("%s: %v", s, err)
			if err == nil {
				p.escape("%s %s: %q", network, s, answer)
			}
		}
	}
	return inert
}

// ask resolves names; with a minus before it, one that must not be answered.
func ask(p *probe, names []string) string {
	for _, name := range names {
		name, unwanted := strings.CutPrefix(name, "-")
		found, err := net.LookupHost(name)
		p.see("%s: %v %v", name, found, err)
		switch {
		case unwanted && err == nil:
			p.escape("%s: %v", name, found)
		case !unwanted && err != nil:
			fail(fmt.Sprintf("%s: %v", name, err))
		}
	}
	return rejected
}
