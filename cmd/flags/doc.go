// Package flags is the command line of a build: Kaniko's flag names, docker's
// short ones, and how both become a request.Build. The launcher and the
// executor's in-pod mode register the same flags, so that one command line
// means the same in both.
//
// It parses, validates and resolves paths: it looks whether the contexts, the
// Dockerfile and the ignore file are there, and that no symbolic link of a
// checkout leads them elsewhere, and reads the certificates that
// --registry-certificate names; Build.Lend opens what --secret and --ssh name. It
// writes only the small files that report a
// finished build (Outputs.Write). It must not print, must not read the
// environment but through From.Env, must not contact a registry, and must not
// look into a Dockerfile.
//
// # Whose rules
//
// Names, spellings, comma rules and file formats are Kaniko's. Where Kaniko
// surprises and docker does not, docker's rule is taken, and that is said here:
//
//   - --build-arg NAME takes the value from the environment; a variable that
//     is not set passes nothing, as docker has it (Kaniko passes an empty
//     string, which hides the default of ARG).
//   - With a CONTEXT argument (docker's form) the default Dockerfile is looked
//     for in the context first, then in the current directory; with --context
//     (Kaniko's form) it is the other way round. A --dockerfile that is given
//     is relative to the current directory, then to the context.
//   - git:// means git's own protocol in a CONTEXT argument and in
//     --build-context, as docker has it; in --context it is Kaniko's name for
//     git over HTTPS, with #REF[#COMMIT], .git kept and submodules left out
//     unless --git says otherwise. All other URLs of repositories (https://
//     with .git at the end, ssh://, user@host:path) are docker's, with
//     #REF[:DIRECTORY] or a query.
//   - Where the context is not there yet (an archive, a URL), a relative
//     --dockerfile lies in it, and an absolute one is a file of the user's, as
//     docker has it; Kaniko looks into the current directory first.
//   - The ignore file of a context that is fetched counts, as with Kaniko, in
//     every form of the context. BuildKit heeds none there.
//   - A context of - or a URL that is no archive is the Dockerfile of an empty
//     context; tar:// is always an archive.
//   - --context-sub-path counts for local directories, too; Kaniko ignores it
//     there.
//   - The files with digests and names are written when the build has
//     succeeded; Kaniko writes them before it pushes.
//   - --image-name-with-digest-file never holds tags, also beside
//     --image-name-tag-with-digest-file (Kaniko then writes tags into both).
//   - --snapshot-mode, --cache, --cleanup and others that say how Kaniko works,
//     not what comes out, are taken with one warning each, which says what
//     happens instead (see needlessFlags). --ignore-path and --ignore-var-run are
//     among them, as pipelines have them for the sake of Kaniko's own files: what
//     a step leaves at such a path is in the image here, and the warning says so.
//   - --single-snapshot makes no single layer: the files are the same.
//
// --net, --allow-net, --deny-net and --audit-log are the launcher's alone
// (RegisterNetwork); in a pod they are refused by name. Named is what of a command
// line fetch and push may reach beside that. --network is docker's and another
// thing: what each RUN sees. Under its host steps have the same network as the
// others, never the host's own.
//
// docker's --output is another way to write the flags for results. As with
// docker it turns off the push that it does not ask for: -o type=docker,dest=F
// pushes nothing, unless --push is given, too. --iidfile has the digest of the
// image's config, or of an image index, as docker buildx has it.
//
// --attest and --provenance are docker buildx's, with BuildKit's rule that the
// mode is max unless it is given. What buildx does without the flags, mode=min, is
// not done: an image stays what Kaniko's would be.
//
// --check fails (status 1) for remarks under error=true and for a Dockerfile
// that cannot be built. docker buildx fails for any remark, unless
// --call=check,ignorestatus=true.
//
// Every other flag of Kaniko's, docker's, and those of buildah's that people try
// first is refused by name, with what to do instead (see refusedFlags). None is
// silently ignored.
package flags
