// Package language says what of the Dockerfile language is held by a test.
//
// rows.txt lists the rows of the language, cases/ has small builds with golden
// answers in the format of the conformance suite, each naming in its comment
// the rows that it holds. README.md is the table made of both: go test
// ./e2e/language -update writes it, and the test fails while it is out of date,
// or while a row has nothing that holds it.
//
// The cases are built by e2e/conformance, which also builds those that say so
// with Debian's buildah, and can record the answer of a BuildKit. This package
// only reads; it builds nothing.
package language
