// Package escape tries to break out. It holds the attack list: for each row an
// attack that is known from elsewhere (a CVE, an advisory, an issue, or the class
// that several of them make), how it is tried here, and which outcomes are right.
// TestAttacks tries all of them with the built binaries; `make attack` prints the
// score by section, README.md is the list, made from the tables.
//
// The tests run in namespaces of their own (Inside): a network with a runner and
// a world behind it, where the cloud's metadata service and private networks are
// canaries that count who speaks to them. Around every build stand the same
// oracles (changes, search, posture): files of the host, the product's binaries,
// the canaries, credentials that must not turn up anywhere, the measured walls, and
// what a build leaves behind. An attack fails if an oracle fires, whatever else it came to; and it counts only
// if it was really tried: what runs in a step prints its nonce first, what is
// refused is refused with the words that are expected.
package escape
