package flags

// refused is a flag of Kaniko's that is not carried out here.
type refused struct {
	name  string
	short string
	// alone says that Kaniko's flag may stand without a value, so that it
	// does not take the next word.
	alone bool
	// hint says what to do instead.
	hint string
}

const (
	leaveOut = "leave it out: only what a step changed is ever looked at, nothing is scanned"
	ownFiles = "leave it out: a build never touches the files around it"
	noCache  = "leave it out: there is no layer cache yet, every step runs"
)

// refusedFlags returns every flag of Kaniko's executor, of the archived project
// and of its successor, that Register does not know.
func refusedFlags() []*refused {
	return []*refused{
		{name: "azure-container-registry-config", hint: "use a credential helper in config.json"},
		{name: "bucket", short: "b", hint: "unpack the context and name its directory with --context"},
		{name: "cache", alone: true, hint: noCache},
		{name: "cache-copy-layers", alone: true, hint: noCache},
		{name: "cache-repo", hint: noCache},
		{name: "cache-run-layers", alone: true, hint: noCache},
		{name: "cache-ttl", hint: noCache},
		{name: "cleanup", alone: true, hint: ownFiles},
		{name: "compressed-caching", alone: true, hint: noCache},
		{name: "context-sub-path", hint: "name the directory itself with --context"},
		{name: "credential-helpers", hint: "helpers are named in config.json: credHelpers, credsStore"},
		{name: "dryrun", alone: true},
		{name: "force", alone: true, hint: "leave it out: a build brings its own sandbox"},
		{name: "force-build-metadata", alone: true, hint: leaveOut},
		{name: "git", hint: "clone the repository and name its directory with --context"},
		{name: "ignore-path", hint: leaveOut},
		{name: "ignore-var-run", alone: true, hint: leaveOut},
		{name: "image-fs-extract-retry", hint: "use --image-download-retry"},
		{name: "kaniko-dir", hint: ownFiles},
		{name: "log-timestamp", alone: true, hint: "--progress=json has the time of every event"},
		{name: "materialize", alone: true},
		{name: "no-push-cache", alone: true, hint: noCache},
		{name: "pre-cleanup", alone: true, hint: ownFiles},
		{name: "preserve-context", alone: true, hint: ownFiles},
		{name: "push-ignore-immutable-tag-errors", alone: true},
		{name: "registry-client-cert"},
		{name: "single-snapshot", alone: true, hint: leaveOut},
		{name: "skip-default-registry-fallback", alone: true},
		{name: "skip-push-permission-check", alone: true},
		{name: "skip-tls-verify-pull", alone: true, hint: "--skip-tls-verify covers pulls too, --skip-tls-verify-registry one registry"},
		{name: "skip-unused-stages", alone: true, hint: "leave it out: stages that the target does not need are never built"},
		{name: "snapshot-mode", hint: leaveOut},
		{name: "snapshotMode", hint: leaveOut},
		{name: "use-new-run", alone: true, hint: leaveOut},
		{name: "whitelist-var-run", alone: true, hint: leaveOut},
	}
}
