package sandbox

import (
	"errors"
	"os"

	"github.com/kbuild-sandbox/kbuild-sandbox/runtime/runsc"
	"github.com/kbuild-sandbox/kbuild-sandbox/sandbox/gateway"
)

// TryNetwork makes the link of a sandbox, with its namespaces, and gives it up
// again. The error is a *WallError if this machine does not let it be made.
func TryNetwork() error {
	m, err := currentMode()
	if err != nil {
		return err
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close()
	// The first stage is not told to go on, so it never becomes this.
	cmd := (&runsc.Runsc{Path: self}).Command(runsc.Start{Pass: null, Userns: m == modeUser})
	link, err := gateway.Through(cmd, self)
	if err != nil {
		return networkError(err)
	}
	defer link.Close()
	p := &running{done: make(chan struct{})}
	if err := p.launch(cmd); err != nil {
		return startError(err, m)
	}
	end, err := link.Link()
	if err == nil {
		err = end.Close()
	}
	link.Close()
	<-p.done
	if err != nil {
		return networkError(errors.Join(err))
	}
	return nil
}
