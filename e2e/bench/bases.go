package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/rig"
)

// allBases are the images that cases begin with. Each is made once and kept.
var allBases = map[string]func(context.Context) (v1.Image, error){
	"busybox":       rig.Busybox,
	"debian":        rig.Debian,
	"golang":        golang,
	"debian-golang": debianGolang,
}

const systemPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// golang is debian with the Go toolchain that runs this at /usr/local/go.
func golang(ctx context.Context) (v1.Image, error) {
	cache, err := rig.Cache()
	if err != nil {
		return nil, err
	}
	root, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return nil, fmt.Errorf("find the Go toolchain: %w", err)
	}
	debian, err := rig.DebianTar(ctx)
	if err != nil {
		return nil, err
	}
	file := filepath.Join(cache, "golang-"+runtime.Version()+".tar")
	if _, err := os.Stat(file); err != nil {
		tmp := file + ".new"
		defer os.Remove(tmp)
		script := `cp "$1" "$2" && tar --numeric-owner --owner=0 --group=0 --sort=name --transform 's,^\.,./usr/local/go,' -C "$3" -rf "$2" .`
		if out, err := exec.CommandContext(ctx, "sh", "-c", script, "sh", debian, tmp, strings.TrimSpace(string(root))).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("make golang image: %w: %s", err, out)
		}
		if err := os.Rename(tmp, file); err != nil {
			return nil, err
		}
	}
	return rig.FromTar(file, v1.Config{Env: []string{"PATH=/usr/local/go/bin:" + systemPath}})
}

// debianGolang is debian with its own package golang-go, whose Go is the same on
// every machine, whatever runs this.
func debianGolang(ctx context.Context) (v1.Image, error) {
	debian, err := rig.DebianTar(ctx)
	if err != nil {
		return nil, err
	}
	file := strings.TrimSuffix(debian, ".tar") + "-golang.tar"
	if _, err := os.Stat(file); err != nil {
		err := inDebian(ctx, file, `chroot "$root" env DEBIAN_FRONTEND=noninteractive apt-get $opt install -qy --no-install-recommends golang-go
chroot "$root" apt-get clean
rm -rf "$root"/var/lib/apt/lists/* "$root/etc/resolv.conf"
tar --numeric-owner --xattrs --sort=name --exclude='./dev/*' -C "$root" -cf "$out.new" .
mv "$out.new" "$out"`)
		if err != nil {
			return nil, err
		}
	}
	return rig.FromTar(file, v1.Config{Env: []string{"PATH=" + systemPath}})
}

// inDebian runs a script that makes $out out of $root, a directory with the
// debian image whose apt is up to date; $opt are options that apt-get needs in there.
func inDebian(ctx context.Context, out, script string) error {
	debian, err := rig.DebianTar(ctx)
	if err != nil {
		return err
	}
	root, err := os.MkdirTemp(filepath.Dir(out), "debian-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(root)
	script = `set -e
root=$2 out=$3
tar -xf "$1" -C "$root"
cp /etc/resolv.conf "$root/etc/resolv.conf"
opt="-o APT::Sandbox::User=root -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache="
chroot "$root" apt-get $opt update -q
` + script
	if text, err := exec.CommandContext(ctx, "sh", "-c", script, "sh", debian, root, out).CombinedOutput(); err != nil {
		return fmt.Errorf("make %s: %w: %s", filepath.Base(out), err, text)
	}
	return nil
}
