// Package plan turns a Dockerfile into what has to be done for one image of
// one platform: the stages that the target needs, the steps that change their
// filesystems, and the config and history that the image will have. The rules
// are BuildKit's, the code is not: variables, stage names, triggers, defaults
// and messages come out as BuildKit's Dockerfile frontend has them.
//
// It is pure. It touches no file, no network, no clock and no environment; the
// one thing that it asks for, through Resolver, is the config of a base image.
// It decides nothing about how a step is carried out and never pulls a layer.
// The same input gives the same Plan, warnings included, in the same order.
//
// The input is hostile: what a Dockerfile can make grow (variables that double,
// patterns, stages that inherit) is counted, and a plan that becomes too large
// is refused (budget.go).
//
// One file an instruction or a group of them; make.go is the flow.
package plan
