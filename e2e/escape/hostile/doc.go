// Package hostile is the other side of the escape suite: registries, git
// repositories, web and name servers in an attacker's hands, the bytes that they
// serve, and an executor that was taken over. They remember what they were asked
// and with which credential, so that an attack is only counted where it was
// really carried out.
//
// They listen where they are told: on loopback, or in a network namespace that leads
// nowhere.
package hostile
