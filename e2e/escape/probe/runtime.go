package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// runtimeTries are those of section 2A.
func runtimeTries() map[string]try {
	return map[string]try{
		"exe": overwriteExecutables,
	}
}

// overwriteExecutables writes to every program that runs here.
func overwriteExecutables([]string) (string, string) {
	links, _ := filepath.Glob("/proc/[0-9]*/exe")
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return "ERROR", err.Error()
	}
	foreign := 0
	var said []string
	for _, l := range append(links, "/proc/self/exe", "/proc/1/exe") {
		to, _ := os.Readlink(l)
		f, err := os.OpenFile(l, os.O_WRONLY, 0)
		said = append(said, fmt.Sprintf("%s -> %s: %v", l, to, err))
		if err == nil {
			f.Close()
		}
		if to != self && to != "/bin/busybox" {
			foreign++
		}
	}
	if foreign > 0 {
		return escaped, strings.Join(said, "; ")
	}
	return contained, strings.Join(said, "; ")
}
