package main

import (
	"bytes"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// sniff listens to everything in this network, as long as others use it, for a
// word that they say: WORD.
func sniff(p *probe, args []string) string {
	kinds := map[string][3]int{
		"packet": {unix.AF_PACKET, unix.SOCK_RAW, 0x0300}, "packet without headers": {unix.AF_PACKET, unix.SOCK_DGRAM, 0x0300},
		"raw TCP": {unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_TCP}, "raw TCP over IPv6": {unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_TCP},
		"raw UDP": {unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_UDP},
	}
	open := map[string]int{}
	for name, k := range kinds {
		fd, err := unix.Socket(k[0], k[1]|unix.SOCK_NONBLOCK, k[2])
		p.see("%s: %v", name, err)
		if err == nil {
			open[name] = fd
		}
	}
	fmt.Println("listens", p.nonce)
	buf := make([]byte, 64<<10)
	seen := map[string]int{}
	for end := time.Now().Add(ipcTime); time.Now().Before(end); time.Sleep(time.Millisecond) {
		for name, fd := range open {
			for {
				n, _, err := unix.Recvfrom(fd, buf, 0)
				if err != nil {
					break
				}
				seen[name]++
				if bytes.Contains(buf[:n], []byte(args[0])) {
					p.escape("%s hears another step", name)
					return contained
				}
			}
		}
	}
	p.see("packets: %v", seen)
	return contained
}
