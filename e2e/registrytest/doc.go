// Package registrytest runs registries for tests: Debian's docker-registry on
// the loopback interface, with or without TLS, passwords and tokens, and a
// proxy before it that fails in chosen ways.
//
// It is for tests only. It starts a process, listens on 127.0.0.1 and writes
// below the test's temporary directory, and all of it ends with the test.
package registrytest
