package main

import (
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"
)

// kind is one kind of leftover.
type kind struct {
	name string
	// leave leaves it; an error says that it was refused.
	leave func() error
	// found says whether it is there.
	found func() bool
	// barred: a step is not even able to leave it.
	barred bool
}

// left is a kind that a step can leave.
func left(name string, leave func() error, found func() bool) kind {
	return kind{name: name, leave: leave, found: found}
}

// barred is a kind that a step cannot even leave.
func barred(name string, leave func() error, found func() bool) kind {
	return kind{name: name, leave: leave, found: found, barred: true}
}

func main() {
	if len(os.Args) < 2 {
		fail("usage: residue leave|look|daemon KIND")
	}
	runtime.LockOSThread() // some attributes are a thread's
	var all []kind
	all = append(all, processes()...)
	all = append(all, objects()...)
	all = append(all, attributes()...)
	all = append(all, places()...)
	switch os.Args[1] {
	case "leave":
		leave(all)
	case "look":
		look(all)
	case "daemon":
		daemon(os.Args[2:])
	default:
		fail("unknown command " + os.Args[1])
	}
}

func fail(text string) {
	fmt.Println("residue:", text)
	os.Exit(1)
}

// leave leaves all kinds, then sees whether look would find what was left.
func leave(all []kind) {
	wrong := 0
	for _, k := range all {
		if err := k.leave(); (err != nil) != k.barred {
			fmt.Printf("wrong %s: barred %v, but: %v\n", k.name, k.barred, err)
			wrong++
		}
	}
	for _, k := range all {
		switch found := k.found(); {
		case found == k.barred:
			fmt.Printf("wrong %s: barred %v, seen %v\n", k.name, k.barred, found)
			wrong++
		case found:
			fmt.Println("left", k.name)
		default:
			fmt.Println("refused", k.name)
		}
	}
	if wrong > 0 {
		fail(fmt.Sprint(wrong, " kinds are not as they should be"))
	}
}

// look says which kinds are there.
func look(all []kind) {
	found := 0
	for _, k := range all {
		if k.found() {
			fmt.Println("found", k.name)
			found++
			continue
		}
		fmt.Println("none", k.name)
	}
	fmt.Printf("%d kinds, %d found\n", len(all), found)
	if found > 0 {
		os.Exit(1)
	}
}

// start starts this program as a daemon that has one thing and stays.
func start(name string, attr *syscall.SysProcAttr) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	p, err := os.StartProcess("/proc/self/exe", []string{"residue-daemon", "daemon", name},
		&os.ProcAttr{Env: os.Environ(), Files: []*os.File{nil, nil, os.Stderr, w}, Sys: attr})
	w.Close()
	if err != nil {
		return err
	}
	if n, _ := r.Read(make([]byte, 1)); n != 1 {
		return fmt.Errorf("%s did not come up", name)
	}
	return p.Release()
}

// daemon holds what its kind is about until something kills it.
func daemon(args []string) {
	for _, s := range []os.Signal{syscall.SIGHUP, syscall.SIGTERM, syscall.SIGINT, syscall.SIGPIPE} {
		signal.Ignore(s)
	}
	if err := hold(args[0]); err != nil {
		fail(args[0] + ": " + err.Error())
	}
	ready := os.NewFile(3, "ready")
	_, _ = ready.Write([]byte{1})
	ready.Close()
	if args[0] == "stopped" {
		_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
	}
	time.Sleep(time.Hour)
}
