package sandbox

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/kbuild-sandbox/kbuild-sandbox/sandbox/cgroup"
)

// sabotage is one way in which a wall can be missing although the launcher has
// asked for it: a program stands where runsc is expected, and changes what it
// was told before it becomes runsc (promise P14).
type sabotage struct {
	name string
	// flags is a sed script for each flag of runsc; one that becomes empty is
	// left out.
	flags string
	// spec is a jq program for config.json.
	spec string
	// shell are commands; $dir is the bundle, $run the run's own directory.
	shell string
	// version is what it says of itself; empty: runsc's own.
	version string
	// role is the sandbox that it is done to; empty: all.
	role  request.Role
	walls string // names of which one is to be named, between commas; empty: the executor ends
	root  bool   // root's sandboxes only
	// memory is a limit of all sandboxes together, in bytes.
	memory int64
}

func sabotages() []sabotage {
	onRoot, onContext := `.root.readonly=false`, `(.mounts[]|select(.destination=="/context")).options=["rw"]`
	return []sabotage{
		{name: "no oci-seccomp", flags: `/^--oci-seccomp/d`, walls: "seccomp"},
		{name: "oci-seccomp off", flags: `s/^--oci-seccomp=.*/--oci-seccomp=false/`, walls: "seccomp"},
		{name: "host network", flags: `s/^--network=.*/--network=host/`, walls: "flags"},
		{name: "no network", flags: `s/^--network=.*/--network=none/`, walls: "network"},
		{name: "host sockets", flags: `s/^--host-uds=.*/--host-uds=all/`, walls: "flags"},
		{name: "host pipes", flags: `s/^--host-fifo=.*/--host-fifo=open/`, walls: "flags"},
		{name: "flag dropped", flags: `/^--character-device-policy/d`, walls: "flags"},
		{name: "flag added", flags: `s/^--rootless=.*/&\n--strace=true/`, walls: "flags"},
		{name: "directfs", flags: `s/^--directfs=.*/--directfs=true/`, walls: "flags", root: true},
		{name: "shared files", flags: `s/^--file-access-mounts=.*/--file-access-mounts=shared/`, walls: "flags"},
		{name: "annotations allowed", flags: `s/^--allow-flag-override=.*/--allow-flag-override=true/`, walls: "flags"},
		{name: "writable overlay", flags: `s/^--overlay2=.*/--overlay2=all:memory/`, walls: "mounts,flags"},
		{name: "annotation host-uds", spec: `.annotations["dev.gvisor.flag.host-uds"]="all"`, walls: "flags"},
		{name: "annotation without seccomp", spec: `.annotations+={"io.kubernetes.cri.container-name":"b","dev.gvisor.internal.seccomp.b":"RuntimeDefault"}`, walls: "seccomp"},
		{name: "no filter", spec: `del(.linux.seccomp)`, walls: "seccomp"},
		{name: "filter that allows", spec: `.linux.seccomp.defaultAction="SCMP_ACT_ALLOW"`, walls: "seccomp"},
		{name: "filter with ptrace", spec: `.linux.seccomp.syscalls+=[{names:["ptrace"],action:"SCMP_ACT_ALLOW"}]`, walls: "seccomp"},
		{name: "emptied filter", spec: `.linux.seccomp.syscalls=[]`},
		{name: "capability kept", spec: `.process.capabilities.bounding+=["CAP_SYS_PTRACE"]`, walls: "capabilities"},
		{name: "ambient capability", spec: `.process.capabilities|=(.inheritable=["CAP_CHOWN"]|.ambient=["CAP_CHOWN"])`, walls: "capabilities"},
		{name: "no_new_privs", spec: `.process.noNewPrivileges=true`, walls: "no_new_privs"},
		{name: "another user", spec: `.process.user.uid=1000`},
		{name: "writable root", spec: onRoot, walls: "mounts"},
		{name: "writable context", spec: onContext, walls: "mounts"},
		{name: "host's files", spec: `.mounts+=[{destination:"/store",type:"bind",source:"/etc",options:["ro"]}]`, walls: "mounts", role: request.RoleFetch},
		{name: "no workspace of its own", spec: `.annotations={}`, walls: "mounts"},
		{name: "executor replaced", shell: `cp "$(jq -r '.mounts[]|select(.destination=="/kbuild-executor").source' $dir/config.json)" $run/evil; echo >>$run/evil`,
			spec: `(.mounts[]|select(.destination=="/kbuild-executor")).source=$run+"/evil"`, walls: "executor"},
		{name: "gateway gone", shell: `exec unshare -n "$0" again "$@"`, walls: "network"},
		{name: "cgroup left", shell: `for f in /sys/fs/cgroup/{,*/}cgroup.procs; do echo $$ >$f; done 2>/dev/null`, memory: 1 << 30, walls: "cgroup", root: true},
		{name: "state for everybody", shell: `chmod 755 $run`, walls: "state directory"},
		{name: "another gVisor", version: "release-20991231.0", walls: "gVisor"},
		{name: "root on the host", spec: `.linux.uidMappings=[{containerID:0,hostID:0,size:65535}]|.linux.gidMappings=.linux.uidMappings`, walls: "host uid", root: true},
		{name: "no user namespace", spec: `del(.linux.uidMappings,.linux.gidMappings)|.linux.namespaces|=map(select(.type!="user"))`, walls: "host uid,user namespace,gVisor", root: true},
		{name: "no filter in build", spec: `del(.linux.seccomp)`, walls: "seccomp", role: request.RoleBuild},
		{name: "writable store in build", spec: `(.mounts[]|select(.destination=="/store")).options=["rw"]`, walls: "mounts", role: request.RoleBuild},
		{name: "host sockets in push", flags: `s/^--host-uds=.*/--host-uds=all/`, walls: "flags", role: request.RolePush},
	}
}

// script is the program that stands for runsc.
func (s sabotage) script(real string) string {
	version, role := s.version, string(s.role)
	if version == "" {
		version = "$(" + real + " --version | sed -n 's/^runsc version //p')"
	}
	if role == "" {
		role = "*"
	} else {
		role = "*/" + role[:1]
	}
	return fmt.Sprintf(`#!/bin/bash
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
if [ "$1" = --version ]; then printf 'runsc version %%s\nspec: 1.2.1\n' "%s"; exit; fi
dir=; for a; do case $a in --bundle=*) dir=${a#--bundle=};; esac; done
run=$(dirname $dir)
if [ "$1" = again ]; then shift; elif [[ $dir = %s ]]; then
%s
jq --arg run "$run" '%s' $dir/config.json >$dir/new && cat $dir/new >$dir/config.json && rm $dir/new
mapfile -t list < <(printf '%%s\n' "$@" | sed -E '%s')
set -- "${list[@]}"
fi
exec %s "$@"
`, version, role, s.shell, orDot(s.spec), s.flags, real)
}

func orDot(jq string) string {
	if jq == "" {
		return "."
	}
	return jq
}

// Each wall that is sabotaged is a typed refusal, and nothing is built: for root
// and for an ordinary user.
func TestSabotage(t *testing.T) {
	if _, err := exec.LookPath("jq"); err != nil {
		t.Fatal("needs jq")
	}
	for _, who := range []struct {
		name string
		as   ordinary
	}{{"root", nil}, {"user", someone(t)}} {
		if who.name == "root" && os.Geteuid() != 0 || who.name == "user" && os.Geteuid() == 0 && who.as == nil {
			continue
		}
		t.Run(who.name, func(t *testing.T) {
			for _, s := range sabotages() {
				if s.root && who.name != "root" {
					continue
				}
				t.Run(s.name, func(t *testing.T) { s.run(t, who.as) })
			}
		})
	}
}

func (s sabotage) run(t *testing.T, as ordinary) {
	j := newJob(t, "ok")
	real := j.Runsc
	j.Runsc = filepath.Join(j.Base, "runsc")
	j.Push, j.Memory = s.role == request.RolePush, s.memory
	if s.memory != 0 && TryLimits(Limits{Limits: cgroup.Limits{Memory: s.memory}}, request.Limits{}) != nil {
		t.Skip("no control groups here")
	}
	if err := os.WriteFile(j.Runsc, []byte(s.script(real)), 0o755); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	o, said := startLauncher(t, j, as).outcome(t)
	took := time.Since(start)
	if o.Wall == nil && (o.End == nil || s.walls != "") || o.Result.Failure != nil {
		t.Fatalf("no refusal: %q, %+v, said %q", o.Err, o.End, said)
	}
	t.Logf("%v: %s", took.Round(time.Millisecond), o.Err)
	if o.Wall != nil && !strings.Contains(","+s.walls+",", ","+o.Wall.Wall+",") {
		t.Errorf("%s instead of %s", o.Err, s.walls)
	}
	if (s.role == "" || s.role == request.RoleFetch) && len(said) > 0 {
		t.Errorf("the executor began: %q", said)
	}
	if took > 20*time.Second {
		t.Errorf("took %v", took)
	}
}

// An executor of another version is refused before it begins.
func TestSabotageVersion(t *testing.T) {
	_, said, err := run(t, newJob(t, "ok"), func(c *Config) { c.Version = "v2" })
	var we *WallError
	if !errors.As(err, &we) || we.Wall != "executor" || len(said) > 0 {
		t.Errorf("%v, said %q", err, said)
	}
}
