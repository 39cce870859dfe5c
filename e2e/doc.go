// Package e2e tests the product from outside: whole builds by the built
// binaries against a real registry (scripts), and the laws of the house over
// the module's source (rooms).
//
// It may touch anything of the machine that a test may: it starts registries,
// Debian's tools and the product's binaries in bin. Nothing imports it.
package e2e
