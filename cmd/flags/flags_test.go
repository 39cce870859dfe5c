package flags

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

var update = flag.Bool("update", false, "rewrite golden files")

// parse parses a command line, split at spaces, as if it were given in dir.
func parse(t *testing.T, dir string, env map[string]string, line string) (request.Build, Outputs, error) {
	t.Helper()
	fs := pflag.NewFlagSet("build", pflag.ContinueOnError)
	b := Register(fs)
	RegisterLog(fs)
	if err := fs.Parse(strings.Fields(line)); err != nil {
		return request.Build{}, Outputs{}, ParseError(fs, err)
	}
	return b.Request(From{
		Args: fs.Args(), Dir: dir, Context: ".",
		Env: func(name string) (string, bool) { v, ok := env[name]; return v, ok },
	})
}

// certificate is content in the form of a PEM certificate.
func certificate(content string) string {
	return "-----BEGIN CERTIFICATE-----\n" + content + "\n-----END CERTIFICATE-----\n"
}

// tree makes files in a new directory; a name that ends in / is a directory,
// content that begins with -> a symbolic link.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if target, ok := strings.CutPrefix(content, "->"); ok {
			err = os.Symlink(target, path)
		} else if strings.HasSuffix(name, "/") {
			err = os.MkdirAll(path, 0o755)
		} else {
			err = os.WriteFile(path, []byte(content), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestRequest(t *testing.T) {
	dir := tree(t, map[string]string{
		"Dockerfile": "FROM scratch",
		"a.pem":      "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n" + certificate("QQ=="),
		"b.pem":      "a remark\n" + certificate("Qg=="),
	})
	kv := func(pairs ...string) (list []request.KeyValue) {
		for i := 0; i < len(pairs); i += 2 {
			list = append(list, request.KeyValue{Key: pairs[i], Value: pairs[i+1]})
		}
		return list
	}
	tests := []struct {
		name, line string
		env        map[string]string
		want       func(*request.Build)
	}{
		{"destinations and tags in order, no comma rule", "-d a/b:1 --destination=c,d -t e", nil, nil},
		{"one destination", "-d a/b:1", nil, func(r *request.Build) { r.Destinations = []string{"a/b:1"} }},
		{"upper case outside of the repository", "-d Reg.Example:5000/a-b/c_d:V1.0 -d [::1]:5000/a -d localhost/x:A", nil, func(r *request.Build) {
			r.Destinations = []string{"Reg.Example:5000/a-b/c_d:V1.0", "[::1]:5000/a", "localhost/x:A"}
		}},
		{"tag is destination", "-d a -t b --tag c --destination=d", nil, func(r *request.Build) { r.Destinations = []string{"a", "b", "c", "d"} }},
		{"no push", "--no-push", nil, func(r *request.Build) { r.NoPush = true }},
		{"no push from the environment", "", map[string]string{"KANIKO_NO_PUSH": "true"}, func(r *request.Build) { r.NoPush = true }},
		{"an empty variable is none", "-d a", map[string]string{"KANIKO_NO_PUSH": "", "KANIKO_REGISTRY_MAP": "", "KANIKO_REGISTRY_MIRROR": ""}, func(r *request.Build) { r.Destinations = []string{"a"} }},
		{"the flag wins over the environment", "--no-push=false -d a", map[string]string{"KANIKO_NO_PUSH": "true"}, func(r *request.Build) { r.Destinations = []string{"a"} }},
		{"build arguments split at the first =, never at a comma", "--no-push --build-arg A=b=c,d --build-arg E=", nil, func(r *request.Build) {
			r.NoPush, r.Args = true, kv("A", "b=c,d", "E", "")
		}},
		{"build arguments from the environment, unset ones left out", "--no-push --build-arg SET --build-arg UNSET --build-arg EMPTY", map[string]string{"SET": "1", "EMPTY": ""}, func(r *request.Build) {
			r.NoPush, r.Args = true, kv("SET", "1", "EMPTY", "")
		}},
		{"the epoch of the environment is a build argument", "--no-push --build-arg A=b", map[string]string{"SOURCE_DATE_EPOCH": "1577836800"}, func(r *request.Build) {
			r.NoPush, r.Args = true, kv("A", "b", "SOURCE_DATE_EPOCH", "1577836800")
		}},
		{"the flag's epoch wins, also empty", "--no-push --build-arg SOURCE_DATE_EPOCH=", map[string]string{"SOURCE_DATE_EPOCH": "1577836800"}, func(r *request.Build) {
			r.NoPush, r.Args = true, kv("SOURCE_DATE_EPOCH", "")
		}},
		{"host name of RUN", "--no-push --build-arg BUILDKIT_SANDBOX_HOSTNAME=box", nil, func(r *request.Build) {
			r.NoPush, r.Args, r.Run.Hostname = true, kv("BUILDKIT_SANDBOX_HOSTNAME", "box"), "box"
		}},
		{"labels", "--no-push --label a=b=c --label d", nil, func(r *request.Build) { r.NoPush, r.Labels = true, kv("a", "b=c", "d", "") }},
		{"target and platform", "--no-push --target build --platform linux/arm64", nil, func(r *request.Build) {
			r.NoPush, r.Target, r.Platforms = true, "build", []string{"linux/arm64"}
		}},
		{"Kaniko's platform flags", "--no-push --custom-platform=LINUX/x86_64", nil, func(r *request.Build) { r.NoPush, r.Platforms = true, []string{"linux/amd64"} }},
		{"the old spelling", "--no-push --customPlatform linux/arm/v7", nil, func(r *request.Build) { r.NoPush, r.Platforms = true, []string{"linux/arm/v7"} }},
		{"compression", "--no-push --compression=zstd --compression-level 19 --image-format=oci", nil, func(r *request.Build) {
			r.NoPush, r.Format, r.Compression = true, "oci", request.Compression{Algorithm: "zstd", Level: 19}
		}},
		{"a tar without a destination has Kaniko's name", "--no-push --tar-path out.tar", nil, func(r *request.Build) {
			r.NoPush, r.Tar, r.Destinations = true, true, []string{"docker.io/unset-repo/unset-image-name"}
		}},
		{"the old spelling of the tar", "-d a --tarPath=out.tar", nil, func(r *request.Build) { r.Tar, r.Destinations = true, []string{"a"} }},
		{"layout", "--no-push --oci-layout-path out", nil, func(r *request.Build) { r.NoPush, r.Layout = true, true }},
		{"registry flags", "--no-push --insecure --insecure-pull --skip-tls-verify --push-retry 3 --image-download-retry=2", nil, func(r *request.Build) {
			r.NoPush = true
			r.Registry = request.Registry{Insecure: true, InsecurePull: true, SkipTLS: true, SkipTLSPull: true, PushRetry: 3, PullRetry: 2}
		}},
		{"registry hosts", "--no-push --insecure-registry HTTP://Reg.Example:5000/ --insecure-registry reg.example:5000 --skip-tls-verify-registry docker.io", nil, func(r *request.Build) {
			r.NoPush = true
			r.Registry = request.Registry{InsecureHosts: []string{"reg.example:5000"}, SkipTLSHosts: []string{"index.docker.io"}}
		}},
		{"mirrors", "--no-push --registry-mirror mirror.gcr.io --registry-map docker.io=m1/hub;gcr.io=m2:5000/a/b --registry-map gcr.io=https://m3/", nil, func(r *request.Build) {
			r.NoPush = true
			r.Registry = request.Registry{Maps: []request.Mirror{
				{Host: "index.docker.io", Location: "m1/hub"}, {Host: "gcr.io", Location: "m2:5000/a/b"},
				{Host: "gcr.io", Location: "m3"}, {Host: "index.docker.io", Location: "mirror.gcr.io"},
			}}
		}},
		{"a mirror over plain HTTP", "--no-push --registry-mirror http://m:80/x", nil, func(r *request.Build) {
			r.NoPush = true
			r.Registry = request.Registry{InsecureHosts: []string{"m:80"}, Maps: []request.Mirror{{Host: "index.docker.io", Location: "m:80/x"}}}
		}},
		{"mirrors from the environment", "--no-push", map[string]string{"KANIKO_REGISTRY_MIRROR": "m1", "KANIKO_REGISTRY_MAP": "gcr.io=m2;"}, func(r *request.Build) {
			r.NoPush = true
			r.Registry = request.Registry{Maps: []request.Mirror{{Host: "gcr.io", Location: "m2"}, {Host: "index.docker.io", Location: "m1"}}}
		}},
		{"mirrors of flags win over the environment", "--no-push --registry-mirror m3", map[string]string{"KANIKO_REGISTRY_MIRROR": "m1"}, func(r *request.Build) {
			r.NoPush = true
			r.Registry = request.Registry{Maps: []request.Mirror{{Host: "index.docker.io", Location: "m3"}}}
		}},
		{"maps of flags win over the environment", "--no-push --registry-map gcr.io=m3", map[string]string{"KANIKO_REGISTRY_MAP": "gcr.io=m2"}, func(r *request.Build) {
			r.NoPush = true
			r.Registry = request.Registry{Maps: []request.Mirror{{Host: "gcr.io", Location: "m3"}}}
		}},
		{"certificates: only those, of all files of a host", "--no-push --registry-certificate Reg.example=a.pem --registry-certificate reg.example=b.pem", nil, func(r *request.Build) {
			r.NoPush = true
			r.Registry = request.Registry{Certificates: map[string][]byte{"reg.example": []byte(certificate("QQ==") + certificate("Qg=="))}}
		}},
		{"RUN", "--no-push --add-host a:10.0.0.1 --add-host b=[::1] --shm-size 2m", nil, func(r *request.Build) {
			r.NoPush, r.Run = true, request.Run{Hosts: kv("a", "10.0.0.1", "b", "::1"), ShmSize: 2 << 20}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, _, err := parse(t, dir, tt.env, tt.line)
			if tt.want == nil {
				if err == nil {
					t.Fatal("no error")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			want := request.Build{
				Version: request.Version, Context: request.GuestPath(dir),
				Dockerfile: request.GuestPath(filepath.Join(dir, "Dockerfile")), DockerfileName: "Dockerfile",
				Compression: request.Compression{Level: -1},
			}
			tt.want(&want)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error("-want +got:\n" + diff)
			}
		})
	}
}

func TestUsageErrors(t *testing.T) {
	dir := tree(t, map[string]string{"Dockerfile": "FROM scratch", "key.pem": "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"})
	lines := []string{
		"",
		"--no-pusch",
		"--destinaton a",
		"--xyzzy",
		"-z",
		"--no-push --digest-file",
		"--no-push=maybe",
		"-d a,b",
		"-d https://reg.example/a",
		"-d a@sha256:00",
		"--destination=",
		"-d x;y",
		"-d Foo/Bar",
		"-d reg.example/team/App:1",
		"-d reg.example/a:b:c",
		"-d reg.example/",
		"--no-push --build-arg =x",
		"--no-push --target a,b",
		"--no-push --target a --target b",
		"--no-push --platform linux/amd64,",
		"--no-push --platform amd65",
		"--no-push --platform linux/amd64/v2/x",
		"--no-push --platform windows/amd64",
		"--no-push --compression lzma",
		"--no-push --compression=zstd --image-format=docker",
		"--no-push --compression-level=10",
		"--no-push --compression-level=-2",
		"--no-push --compression-level=fast",
		"--no-push --tar-path x --image-format=oci",
		"--no-push --tar-path x --compression=zstd",
		"--no-push --image-name-with-digest-file x",
		"--no-push --image-name-tag-with-digest-file x",
		"--no-push --digest-file https://bucket.example/x",
		"--no-push --push-retry=-1",
		"--no-push --insecure-registry a/b",
		"--no-push --registry-map gcr.io",
		"--no-push --registry-map =x",
		"--no-push --registry-mirror ftp://x",
		"--no-push --registry-certificate reg.example",
		"--no-push --registry-certificate reg.example=nowhere.pem",
		"--no-push --registry-certificate reg.example=key.pem",
		"--no-push --add-host a",
		"--no-push --add-host a:b",
		"--no-push --shm-size x",
		"--no-push -c s3://bucket/x",
		"--no-push -c gs://bucket/x",
		"--no-push -c https://account.blob.core.windows.net/container/x.tar.gz",
		"--no-push -c ftp://example.com/x.tar.gz",
		"--no-push -c tar://nowhere.tar",
		"--no-push -c git://",
		"--no-push -c git:///a/b",
		"--no-push -c git://a/b#c#d#e",
		"--no-push -f - -c -",
		"--no-push -f ../x -c -",
		"--no-push -f /nowhere/Dockerfile -c -",
		"--no-push --git branch=x .",
		"--no-push --git branch=x git://a/b",
		"--no-push --git branch -c git://a/b",
		"--no-push --git depth=x -c git://a/b",
		"--no-push --git insecure-skip-tls=true -c git://a/b",
		"--no-push --git what=x -c git://a/b",
		"--no-push --context-sub-path nowhere .",
		"--no-push --context-sub-path .. .",
		"--no-push --build-context a",
		"--no-push --build-context a=",
		"--no-push --build-context =b",
		"--no-push --build-context a=nowhere",
		"--no-push --build-context a=key.pem",
		"--no-push --build-context a=target:b",
		"--no-push --build-context a=input:b",
		"--no-push --build-context a=s3://bucket/b",
		"--no-push --build-context a=docker-image://",
		"--no-push --build-context a=oci-layout://.",
		"--no-push --build-context a=oci-layout://nowhere:1",
		"--no-push -c .  .",
		"--no-push --context=",
		"--no-push a b",
		"--no-push --insecure true",
		"--no-push -f ftp://example.com/Dockerfile",
		"--no-push -v loud",
		"--no-push --progress=fancy",
		"--no-push --dryrun -b x",
		"--no-push --load -m 2g --cgroup-parent=x --ulimit nofile=1024",
		"--no-push --format oci --tls-verify=false",
		"--no-push --provenance=mode=max",
		"--call=explain",
		"--call=check,outline",
		"--call=targets,format=xml",
		"--call=check,ignorestatus=perhaps",
		"--call=check,output=x",
		"--check --call=outline",
		"-d a --push --no-push",
		"--no-push --allow security.insecure",
		"--no-push --allow device=gpu",
		"--no-push --allow network",
		"--no-push --network host",
		"--no-push --network bridge",
		"--no-push --pull=never",
		"--no-push --hostname a/b",
		"--no-push --image-fs-extract-retry=-1",
		"-o out",
		"-o -",
		"-o type=local,dest=out",
		"-o type=tar,dest=out.tar",
		"-o type=docker",
		"-o type=docker,dest=-",
		"-o type=docker,dest=a,tar=false",
		"-o type=oci,dest=a.tar",
		"-o type=oci,tar=false",
		"-o type=oci,dest=a,tar=perhaps",
		"-o type=oci,dest=a,tar=false --oci-layout-path b",
		"-o type=registry",
		"-o type=registry,name=a --no-push",
		"-o type=registry,name=a,dest=a.tar",
		"-o type=image,name=a,dest=-",
		"-o type=cacheonly,dest=a",
		"-o type=image,name=a,push=true,push-by-digest=true",
		"-o type=image,name=a,push=true,compression=estargz",
		"-o type=image,name=a,push=true,compression-level=high",
		"-o type=image,name=a,push=true,oci-mediatypes=false --image-format=oci",
		"-o type=image,name=a,push=true,colour=red",
		"-o type=ftp",
		"-o dest=x,tar=false",
		"-o type=oci,dest",
	}
	var out strings.Builder
	for _, line := range lines {
		_, _, err := parse(t, dir, nil, line)
		var e *Error
		if !errors.As(err, &e) {
			t.Errorf("%q: error %v is no *Error", line, err)
			continue
		}
		out.WriteString("$ build " + line + "\n" + e.Msg + "\n")
		if e.Hint != "" {
			out.WriteString("hint: " + e.Hint + "\n")
		}
		if e.Input {
			out.WriteString("(input)\n")
		}
		out.WriteByte('\n')
	}
	golden(t, "usage.txt", strings.ReplaceAll(out.String(), dir, "DIR"))
}

// TestEveryKanikoFlag holds that no flag of Kaniko's executor is unknown: it is
// carried out, or refused by its name.
func TestEveryKanikoFlag(t *testing.T) {
	const kaniko = `annotation azure-container-registry-config bucket build-arg cache cache-copy-layers cache-dir
		cache-repo cache-run-layers cache-ttl cleanup compressed-caching compression compression-level context
		context-sub-path credential-helpers custom-platform customPlatform destination digest-file dockerfile dryrun
		force force-build-metadata git ignore-path ignore-var-run image-download-retry image-format
		image-fs-extract-retry image-name-tag-with-digest-file image-name-with-digest-file insecure insecure-pull
		insecure-registry kaniko-dir label log-format log-timestamp materialize no-push no-push-cache oci-layout-path
		pre-cleanup preserve-context push-ignore-immutable-tag-errors push-retry registry-certificate
		registry-client-cert registry-map registry-mirror reproducible secret single-snapshot
		skip-default-registry-fallback skip-push-permission-check skip-tls-verify skip-tls-verify-pull
		skip-tls-verify-registry skip-unused-stages snapshot-mode snapshotMode tar-path tarPath target use-new-run
		verbosity whitelist-var-run`
	dir := tree(t, map[string]string{"Dockerfile": "FROM scratch"})
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	Register(fs)
	RegisterLog(fs)
	for _, name := range strings.Fields(kaniko) {
		f := fs.Lookup(name)
		if f == nil {
			t.Errorf("--%s is unknown", name)
			continue
		}
		if _, no := f.Value.(refusedValue); !no {
			continue
		}
		for _, form := range []string{"--" + name + "=true", "--" + name + " true"} {
			_, _, err := parse(t, dir, nil, "--no-push "+form)
			if want := "--" + name + ": not supported yet"; err == nil || err.Error() != want {
				t.Errorf("%s: error %q, want %q", form, err, want)
			}
		}
	}
}

func TestRegisterKeepsFlags(t *testing.T) {
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	force := fs.Bool("force", false, "")
	Register(fs)
	if err := fs.Parse([]string{"--force"}); err != nil || !*force {
		t.Errorf("force is %v, error %v", *force, err)
	}
}

func TestHelp(t *testing.T) {
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	fs.Bool("ours", false, "a flag of the command's own")
	Register(fs)
	RegisterLog(fs)
	golden(t, "help.txt", Usages(fs))
	fs.VisitAll(func(f *pflag.Flag) {
		if !f.Hidden && f.Name != "ours" && len(f.Annotations[groupKey]) != 1 {
			t.Errorf("--%s stands in no group", f.Name)
		}
	})
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Error(path + " (-update rewrites it) -want +got:\n" + diff)
	}
}
