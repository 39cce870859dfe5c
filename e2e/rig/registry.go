package rig

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// Registry is a running docker-registry.
type Registry struct {
	// Host is its host:port on the loopback interface, plain HTTP.
	Host string
	Dir  string // with its storage
	cmd  *exec.Cmd
	log  *os.File
}

const registryConfig = `version: 0.1
log: {level: warn, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: %q}, delete: {enabled: true}}
http: {addr: %q}
`

// StartRegistry starts Debian's docker-registry with its storage, config and
// log in dir.
func StartRegistry(ctx context.Context, dir string) (*Registry, error) {
	host, err := freePort()
	if err != nil {
		return nil, err
	}
	conf := filepath.Join(dir, "registry.yml")
	text := fmt.Sprintf(registryConfig, filepath.Join(dir, "registry"), host)
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, "registry.log"))
	if err != nil {
		return nil, err
	}
	r := &Registry{Host: host, Dir: dir, log: log, cmd: exec.Command("docker-registry", "serve", conf)}
	r.cmd.Stdout, r.cmd.Stderr = log, log
	if err := r.cmd.Start(); err != nil {
		log.Close()
		return nil, fmt.Errorf("start registry: %w (make deps-test installs it)", err)
	}
	if err := r.wait(ctx); err != nil {
		r.Stop()
		return nil, err
	}
	return r, nil
}

func (r *Registry) wait(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.Host+"/v2/", nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			resp.Body.Close()
			return nil
		}
		select {
		case <-ctx.Done():
			text, _ := os.ReadFile(r.log.Name())
			return fmt.Errorf("registry does not answer: %w: %s", err, text)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// PID is the registry's process id.
func (r *Registry) PID() int { return r.cmd.Process.Pid }

// Stop ends the registry.
func (r *Registry) Stop() {
	r.cmd.Process.Kill()
	r.cmd.Wait()
	r.log.Close()
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}
