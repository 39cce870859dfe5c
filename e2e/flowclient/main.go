// Flowclient is a command for RUN steps of the tests and measurements: it makes
// flows of every kind through the sandbox's gateway.
//
//	flowclient count ADDRESS TCP-PORT UDP-PORT N   N flows, half of them denied; says how many of each kind
//	flowclient down|up ADDRESS PORT BYTES          one stream; says bytes a second
//	flowclient connections ADDRESS PORT N          so many, one after the other in 8 threads; says how many a second
//
// ADDRESS is the gateway's, which stands for the host; its servers are rig's.
package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 4 {
		return errors.New("usage: flowclient count|down|up|connections ADDRESS PORT... N")
	}
	n, err := strconv.Atoi(args[len(args)-1])
	if err != nil {
		return err
	}
	to := net.JoinHostPort(args[1], args[2])
	if args[0] == "count" {
		return count(kinds(args[1], to, net.JoinHostPort(args[1], args[3])), n)
	}
	begin := time.Now()
	switch args[0] {
	case "down", "up":
		err = stream(args[0], to, int64(n))
	default:
		err = each(n, func() error { return connection(to, "e") })
	}
	fmt.Printf("rate=%.0f\n", float64(n)/time.Since(begin).Seconds())
	return err
}

// kind is a kind of flow, and how many percent of all are of it.
type kind struct {
	name  string
	share int
	try   func() error
}

// nobody is an address that the default policy denies.
const nobody = "10.1.2.3:80"

func kinds(gateway, tcp, udp string) []kind {
	// A port that was used before would be an old flow's; gVisor gives those from
	// 16000 on to whoever names none.
	var port atomic.Int32
	port.Store(10000)
	datagram := func(to string) error { return datagram(to, int(port.Add(1))) }
	return []kind{
		{"tcp allowed", 40, func() error { return connection(tcp, "e") }},
		{"tcp denied", 40, func() error { return denied(connection(nobody, "e")) }},
		{"udp allowed", 3, func() error { return datagram(udp) }},
		{"udp denied", 7, func() error { return denied(datagram(nobody)) }},
		// A question that is answered without asking a name server.
		{"dns allowed", 5, func() error { return question(gateway, "good.example.", dnsmessage.TypeHTTPS, dnsmessage.RCodeSuccess) }},
		{"dns denied", 5, func() error { return question(gateway, "bad.example.", dnsmessage.TypeA, dnsmessage.RCodeNameError) }},
	}
}

// count makes n flows of all kinds, all kinds at once.
func count(all []kind, n int) error {
	var wg sync.WaitGroup
	errs := make([]error, len(all))
	for i, k := range all {
		wg.Go(func() {
			errs[i] = each(n*k.share/100, k.try)
			fmt.Printf("%s %d\n", k.name, n*k.share/100)
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// each does something n times, in a few threads.
func each(n int, do func() error) error {
	const workers = 8
	var wg sync.WaitGroup
	errs := make([]error, workers)
	for w := range workers {
		wg.Go(func() {
			for i := w; i < n && errs[w] == nil; i += workers {
				errs[w] = do()
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// denied wants that an attempt was refused, as the gateway does it.
func denied(err error) error {
	switch {
	case err == nil:
		return errors.New("what is denied was reached")
	case errors.Is(err, syscall.ECONNREFUSED):
		return nil
	}
	return err
}

// connection says one letter and reads what comes.
func connection(to, what string) error {
	c, err := net.DialTimeout("tcp", to, 30*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := io.WriteString(c, what); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, c)
	return err
}

// stream moves n bytes in one direction.
func stream(what, to string, n int64) error {
	c, err := net.Dial("tcp", to)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := io.WriteString(c, what[:1]); err != nil {
		return err
	}
	buf := make([]byte, 256<<10)
	if what == "down" {
		_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, io.LimitReader(c, n), buf)
		return err
	}
	for ; n > 0 && err == nil; n -= int64(len(buf)) {
		_, err = c.Write(buf)
	}
	if err == nil {
		err = c.(*net.TCPConn).CloseWrite()
	}
	if err == nil {
		_, err = io.Copy(io.Discard, c)
	}
	return err
}

// datagram asks from one port until it hears something: datagrams may be lost.
func datagram(to string, port int) error {
	d := net.Dialer{LocalAddr: &net.UDPAddr{Port: port}}
	c, err := d.Dial("udp4", to)
	if err != nil {
		return err
	}
	defer c.Close()
	for range 30 {
		if _, err := io.WriteString(c, "hello"); err != nil {
			return err
		}
		if err := c.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
			return err
		}
		switch _, err := c.Read(make([]byte, 10)); {
		case err == nil:
			return nil
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return err
		}
	}
	return fmt.Errorf("%s says nothing", to)
}

// question asks a name server once and wants a code.
func question(server, name string, what dnsmessage.Type, want dnsmessage.RCode) error {
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 9, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: what, Class: dnsmessage.ClassINET}},
	}
	b, err := m.Pack()
	if err != nil {
		return err
	}
	c, err := net.Dial("udp", net.JoinHostPort(server, "53"))
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Write(b); err != nil {
		return err
	}
	if err := c.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return err
	}
	buf := make([]byte, 512)
	n, err := c.Read(buf)
	if err != nil {
		return err
	}
	if err := m.Unpack(buf[:n]); err != nil || m.RCode != want {
		return fmt.Errorf("%s: %v, %w", name, m.RCode, err)
	}
	return nil
}
