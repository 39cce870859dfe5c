package rig

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
)

// Flows are servers on the loopback interface for e2e/flowclient: on TCP one
// that sends for d, takes for u and ends at once for e; on UDP one that answers
// with what it gets.
type Flows struct {
	// TCP and UDP are the ports.
	TCP, UDP int
	tcp      net.Listener
	udp      net.PacketConn
}

// StartFlows starts both.
func StartFlows() (*Flows, error) {
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		tcp.Close()
		return nil, err
	}
	f := &Flows{TCP: tcp.Addr().(*net.TCPAddr).Port, UDP: udp.LocalAddr().(*net.UDPAddr).Port, tcp: tcp, udp: udp}
	go f.serveTCP()
	go f.serveUDP()
	return f, nil
}

// Stop ends them.
func (f *Flows) Stop() {
	f.tcp.Close()
	f.udp.Close()
}

func (f *Flows) serveTCP() {
	for {
		c, err := f.tcp.Accept()
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
			for err := error(nil); err == nil && what[0] != 'e'; {
				if what[0] == 'd' {
					_, err = c.Write(buf)
				} else {
					_, err = c.Read(buf)
				}
			}
		}()
	}
}

func (f *Flows) serveUDP() {
	buf := make([]byte, 2048)
	for {
		n, from, err := f.udp.ReadFrom(buf)
		if err != nil {
			return
		}
		_, _ = f.udp.WriteTo(buf[:n], from) // datagrams may be lost
	}
}

// FlowClient builds e2e/flowclient as a static program.
func FlowClient(file string) error {
	cmd := exec.Command("go", "build", "-o", file, "github.com/kbuild-sandbox/kbuild-sandbox/e2e/flowclient")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build flowclient: %w: %s", err, out)
	}
	return nil
}
