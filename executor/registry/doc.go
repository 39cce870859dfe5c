// Package registry talks to image registries by the OCI distribution protocol:
// it resolves references to one platform's manifest, pulls blobs into the
// store and pushes images out of it, through mirrors, with retries and with
// credentials. It reads images of OCI layouts in the same way.
//
// It is one of the two rooms that dial. It touches the network and the store;
// it must not read the environment, credential files or the clock of a cache,
// unpack a layer, or print. Whatever a registry says is hostile: sizes are
// bounded before memory is taken, digests are checked on the bytes that came,
// and a credential goes to nobody but
//
//   - the registry host that the keychain gave it for, never to another host
//     that the registry redirects a blob or an upload to, and
//   - the token server (realm) that this registry names in its challenge, as
//     the protocol wants it; it must be reached by TLS unless the registry
//     itself is reached without, and is no address of a private network unless
//     it is the registry's own host and port.
//
// Docker Hub is index.docker.io here, and docker.io is an alias of it.
package registry
