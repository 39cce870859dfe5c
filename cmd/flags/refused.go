package flags

// refused is a flag of Kaniko's, docker's or buildah's that is not carried out
// here, and without which the result would be another.
type refused struct {
	name  string
	short string
	// alone says that the flag may stand without a value, so that it does not
	// take the next word.
	alone bool
	// never: it does not fit what this program is.
	never bool
	// hint says what to do instead.
	hint string
}

// message is the error for the flag.
func (r *refused) message() string {
	if r.never {
		return "--" + r.name + ": not supported"
	}
	return "--" + r.name + ": not supported yet"
}

const (
	machineLimits  = "limit the job or the pod that the build runs in"
	clusterNetwork = "a pod has the network that the cluster gives it: write a NetworkPolicy for it"
	noAttestation  = "nobody stands outside of a pod's sandbox to attest what is built in it: use kbuild-sandbox build on a runner"
	oneSandbox     = "every RUN step runs in gVisor, under the same rules"
	configFile     = "use the config.json of docker login, in $DOCKER_CONFIG"
)

// refusedFlags returns what Register does not know otherwise.
func refusedFlags() []*refused {
	return append([]*refused{
		{name: "allow-net", never: true, hint: clusterNetwork},
		{name: "audit-log", never: true, hint: clusterNetwork},
		{name: "deny-net", never: true, hint: clusterNetwork},
		{name: "net", never: true, hint: clusterNetwork},
		{name: "azure-container-registry-config", hint: "use a credential helper in config.json"},
		{name: "bucket", short: "b", hint: "unpack the context and name its directory with --context"},
		{name: "credential-helpers", hint: "helpers are named in config.json: credHelpers, credsStore"},
		{name: "dryrun", alone: true, hint: "--call outline, --call targets and --check tell about a Dockerfile without building it"},
		{name: "registry-client-cert"},
		// The launcher has these, a pod has them refused.
		{name: "builder-id", never: true, hint: noAttestation},
		{name: "cpus", never: true, hint: machineLimits},
		{name: "provenance-file", never: true, hint: noAttestation},
		{name: "sign-key", never: true, hint: noAttestation},
		{name: "work-size", never: true, hint: "set sizeLimit of the emptyDir that --work-dir names"},
	}, dockerFlags()...)
}

// dockerFlags are those of docker build, docker buildx build, podman build and
// buildah build. Others of theirs are as unknown as any word.
func dockerFlags() []*refused {
	return []*refused{
		{name: "attest", never: true, hint: noAttestation},
		{name: "authfile", never: true, hint: configFile},
		{name: "cap-add", never: true, hint: oneSandbox},
		{name: "cap-drop", never: true, hint: oneSandbox},
		{name: "cert-dir", never: true, hint: "use --registry-certificate"},
		{name: "cgroup-parent", never: true, hint: machineLimits},
		{name: "cpu-period", never: true, hint: machineLimits},
		{name: "cpu-quota", never: true, hint: machineLimits},
		{name: "cpu-shares", never: true, hint: machineLimits},
		{name: "cpuset-cpus", never: true, hint: "start it with taskset -c, which holds for a whole build"},
		{name: "cpuset-mems", never: true, hint: "start it with numactl --membind, which holds for a whole build"},
		{name: "creds", never: true, hint: configFile},
		{name: "device", never: true, hint: oneSandbox},
		{name: "disable-content-trust", alone: true, never: true},
		{name: "dns", hint: "names are resolved by the name servers of this machine"},
		{name: "format", never: true, hint: "use --image-format"},
		{name: "isolation", never: true, hint: oneSandbox},
		{name: "load", alone: true, never: true, hint: "there is no docker here to load into: --no-push --tar-path app.tar, then docker load -i app.tar"},
		{name: "memory", short: "m", never: true, hint: machineLimits},
		{name: "memory-swap", never: true, hint: machineLimits},
		{name: "policy", never: true},
		{name: "print", never: true, hint: "use --call"},
		{name: "security-opt", never: true, hint: oneSandbox},
		{name: "squash", alone: true, never: true, hint: "COPY --from a stage into one FROM scratch makes one layer"},
		{name: "tls-verify", alone: true, never: true, hint: "use --insecure, --skip-tls-verify, or those for one registry"},
		{name: "ulimit", hint: machineLimits},
		{name: "userns", never: true, hint: oneSandbox},
		{name: "volume", never: true, hint: "use --build-context and RUN --mount=type=bind,from=NAME"},
	}
}
