package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"

	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/rig"
)

// What a RUN step has to get through the gateway.
const (
	aimStream      = 1.5 // Gbit/s, one stream, in each direction
	aimConnections = 200 // a second, one after the other in 8 threads

	streamBytes = 1 << 30
	connections = 2000
)

// network measures what a RUN step gets through the gateway, the best of runs:
// other work on the machine only slows it down.
func (b *bench) network(ctx context.Context) (string, error) {
	flows, err := rig.StartFlows()
	if err != nil {
		return "", err
	}
	defer flows.Stop()
	dir := filepath.Join(b.tmp, "network")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	if err := rig.FlowClient(filepath.Join(dir, "flowclient")); err != nil {
		return "", err
	}
	best := map[string]float64{}
	for range b.runs {
		for what, n := range map[string]int{"down": streamBytes, "up": streamBytes, "connections": connections} {
			rate, err := b.flow(ctx, dir, fmt.Sprintf(`"%s", "host", "%d", "%d"`, what, flows.TCP, n), flows.TCP)
			if err != nil {
				return "", fmt.Errorf("%s: %w", what, err)
			}
			best[what] = max(best[what], rate)
		}
	}
	const gigabit = 1e9 / 8
	return fmt.Sprintf("N network of RUN, best of %d: one stream down %.2f, up %.2f Gbit/s (aim %.1f); %.0f connections/s (aim %d)",
		b.runs, best["down"]/gigabit, best["up"]/gigabit, aimStream, best["connections"], aimConnections), nil
}

// flow runs flowclient in a RUN step and returns its rate.
func (b *bench) flow(ctx context.Context, dir, args string, port int) (float64, error) {
	file := "FROM scratch\nCOPY flowclient /\nRUN [\"/flowclient\", " + args + "]\n"
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(file), 0o644); err != nil {
		return 0, err
	}
	out, err := exec.CommandContext(ctx, filepath.Join(b.bin, "kbuild-sandbox"), "build", "--no-push", "--progress", "plain", "--cache-dir", "",
		"--add-host", "host:host-gateway", "--allow-net", fmt.Sprintf("127.0.0.1:%d", port), dir).CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("%w: %s", err, out)
	}
	rate := regexp.MustCompile(` rate=(\d+)\n`).FindSubmatch(out)
	if rate == nil {
		return 0, fmt.Errorf("no rate: %s", out)
	}
	return strconv.ParseFloat(string(rate[1]), 64)
}
