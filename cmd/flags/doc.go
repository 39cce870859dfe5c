// Package flags is the command line of a build: Kaniko's flag names, docker's
// short ones, and how both become a request.Build. The launcher and the
// executor's in-pod mode register the same flags, so that one command line
// means the same in both.
//
// It parses, validates and resolves paths: it looks whether the context, the
// Dockerfile and the ignore file are there, and reads the certificates that
// --registry-certificate names. It writes only the small files that report a
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
// docker's --output is another way to write the flags for results. As with
// docker it turns off the push that it does not ask for: -o type=docker,dest=F
// pushes nothing, unless --push is given, too. --iidfile has the digest of the
// image's config, or of an image index, as docker buildx has it.
//
// --check fails (status 1) for remarks under error=true and for a Dockerfile
// that cannot be built. docker buildx fails for any remark, unless
// --call=check,ignorestatus=true.
//
// Every other flag of Kaniko's, docker's, and those of buildah's that people try
// first is refused by name, with what to do instead (see refusedFlags). None is
// silently ignored.
package flags
