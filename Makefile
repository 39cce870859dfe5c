# make deps build   on a fresh Debian or Ubuntu: what a first build needs, in bin/
# make test         everything that can be tested here
SHELL    := /bin/bash
ROOT     := $(CURDIR)
VERSION  := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
GVISOR   := $(shell awk '$$1 == "require" && $$2 == "gvisor.dev/gvisor" { print $$3 }' runtime/gvisor/go.mod)
STAMP    := -trimpath -ldflags '-X main.version=$(VERSION)'
STATIC   := -trimpath -tags netgo,osusergo -ldflags '-X main.version=$(VERSION) -extldflags "-static"'
RUNSC    := bin/runsc
# What make test fuzzes: all that reads what a stranger wrote and crosses a wall. make fuzz FUZZ=.* takes every target.
FUZZ     ?= Fuzz(Clean|Stream|Unpack|Extract|Plan|Frames|Serve|Receive|Server|ParseModules|ParseGit|Question|Answer|Read|ReadIndex|MergeResults)
FUZZTIME ?= 3s
# The unit tests that take longest begin first.
LONG := ./sandbox ./executor/layer ./sandbox/gateway ./executor/step
# Of the conformance cases, an ordinary user builds every so many-th; 1: all.
EVERY    ?= 8
GOTEST   ?= go test
export GOTOOLCHAIN ?= auto
export KBUILD_BIN   := $(ROOT)/bin
export KBUILD_RUNSC := $(ROOT)/$(RUNSC)
export KBUILD_CONFORMANCE ?= $(abspath $(ROOT)/../shared/conformance)

.PHONY: all deps deps-demo deps-test build test vet unit fuzz e2e attack canary conformance bench demo image lint golden clean
all: build

deps: ## what building needs; installs only what is missing
	@.ci/deps build
deps-test: ## what the tests need beside that
	@.ci/deps build test

deps-demo:
	@.ci/deps build demo

build: $(RUNSC) ## bin/kbuild-sandbox, bin/kbuild-executor, bin/runsc
	CGO_ENABLED=0 go build $(STAMP) -o bin/kbuild-sandbox ./cmd/kbuild-sandbox
	CGO_ENABLED=1 go build $(STATIC) -o bin/kbuild-executor ./cmd/executor

# gVisor is built from its own module, and again only when its pin changes.
$(RUNSC): runtime/gvisor/go.mod runtime/gvisor/go.sum
	cd runtime/gvisor && GOWORK=off CGO_ENABLED=0 go build -trimpath \
	  -ldflags '-s -w -X gvisor.dev/gvisor/runsc/version.version=$(GVISOR)' -o $(ROOT)/$@ gvisor.dev/gvisor/runsc
	@touch $@

test: deps-test build vet unit fuzz e2e conformance ## all of the below

vet:
	go vet ./...
unit: ## unit tests of every room, with the race detector
	$(GOTEST) -race -timeout 20m $(LONG) $$(go list ./... | grep -vE '/e2e(/escape|/canary)?$$')
fuzz: ## FUZZTIME (3s) for each fuzz target of FUZZ
	@GOTEST='$(GOTEST)' FUZZ='$(FUZZ)' FUZZTIME=$(FUZZTIME) .ci/fuzz
e2e: build ## the laws of the house, and whole builds against a real registry, as root and as an ordinary user
	$(GOTEST) -count=1 -p 1 -parallel 4 -timeout 30m ./e2e ./e2e/escape ./e2e/canary
	$(GOTEST) -count=1 -parallel 4 -timeout 30m -run '^TestAttacks$$/^0(0|1|2[0-3]|38)' ./e2e/escape -args -user 65534
conformance: build ## the Dockerfile cases of e2e/language and of KBUILD_CONFORMANCE, as root, every EVERYth (8) as an ordinary user too, and what buildah makes of them
	go run ./e2e/conformance -j 4 $(CASES)
	go run ./e2e/conformance -j 4 -user -every $(EVERY) $(CASES)
	go run ./e2e/conformance -buildah $(CASES)
canary: deps-test build ## credentials, looked for in all memory and in all output of 100 builds
	$(GOTEST) -count=1 -timeout 0 ./e2e/canary -builds=50
attack: deps-test build ## the attack list of e2e/escape, and the score by section; one row: ROWS=019; as an ordinary user: AS_UID=65534
	@mkdir -p out; $(GOTEST) -count=1 -timeout 20m -run '^TestAttacks$$$(ROWS:%=/%)' ./e2e/escape -args $(AS_UID:%=-user %) -scorecard $(ROOT)/out/attack.txt; \
	  status=$$?; cat out/attack.txt; exit $$status
bench: deps-test build ## cases A to G against buildah: CASES="A B", MODES="cold present changed cached", RUNS=3; WRITE=1 adds to e2e/bench/RESULTS.md
	go run ./e2e/bench -n $(or $(RUNS),3) -modes "$(MODES)" $(if $(WRITE),-write) $(CASES)
demo: deps-demo build ## a base image, a build on it, and a look at the result
	@e2e/demo.sh
image: build ## the product's own image, built by itself, as out/image
	@deploy/build.sh out/image

lint:
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); exit 1; }
	go vet ./...
	cd e2e/lint && GOWORK=off go build -o $(ROOT)/out/staticcheck honnef.co/go/tools/cmd/staticcheck
	out/staticcheck ./...
	go test -count=1 -run '^TestLaw' ./e2e
golden: ## rewrites the golden files
	go test ./policy ./sandbox ./cmd/flags ./cmd/progress ./cmd/trace ./cmd/kbuild-sandbox ./e2e/language -update
	go test ./e2e/escape -run Table -update
clean:
	rm -rf bin out
