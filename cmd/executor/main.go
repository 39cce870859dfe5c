// Kbuild-executor is the part of kbuild-sandbox that works inside gVisor.
//
// It has three lives. The launcher starts it as "kbuild-executor sandboxed"
// and talks with it over a socket. A RUN step starts it as "kbuild-executor
// run-child", which walls itself in and becomes the command. And a Kubernetes
// pod with runtimeClassName: gvisor starts it with Kaniko's arguments, without
// a launcher.
package main

import (
	"os"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/step"
)

// version is stamped by the Makefile.
var version = "devel"

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	if len(args) > 0 {
		switch args[0] {
		case "run-child":
			return step.Child(args[1:])
		case "sandboxed":
			return sandboxed()
		}
	}
	return inPod(args)
}
