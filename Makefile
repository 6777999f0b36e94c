# `make` alone tells what there is. `make run` and `make test` install what they
# need themselves, on Debian and Ubuntu, as root.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

export PATH := $(PATH):/usr/sbin:/sbin

GO      ?= go
RELEASE := CGO_ENABLED=0 $(GO) build -trimpath -ldflags='-s -w'
NEED    := .ci/need
TOOL    := $(GO) tool -modfile=internal/tools/go.mod

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: bin/nodeprov bin/lbd bin/probe ## static binaries in bin/ (needs Go alone)

.PHONY: bin/nodeprov bin/lbd bin/probe bin/apiserver
bin/nodeprov bin/lbd: bin/%:
	$(RELEASE) -o $@ ./cmd/$*
bin/probe:
	$(RELEASE) -o $@ ./internal/probe/cmd/probe
# The real kube-apiserver, for tests: minutes when it is built for the first time.
bin/apiserver:
	CGO_ENABLED=0 $(GO) -C test build -o ../$@ ./cmd/apiserver

.PHONY: run
run: build ## the whole path in a throwaway sandbox: plan, apply, verify, lbd, rollback (root)
	@$(NEED) ip:iproute2 unshare:util-linux
	@test/sandbox.sh

.PHONY: test
test: bin/apiserver ## all tests on this machine's kernel, with the race detector (root)
	@$(NEED) gcc:gcc /usr/include/stdio.h:libc6-dev tc:iproute2
	$(GO) vet ./...
	@.ci/test -race $(TESTFLAGS) ./...

.PHONY: test-nspawn
test-nspawn: build ## the units under a real systemd, in systemd-nspawn: four boots (root)
	@$(NEED) systemd-nspawn:systemd-container
	@test/nspawn.sh

.PHONY: generate
generate: ## BPF objects and bindings (needs clang-19, which it installs)
	@$(NEED) clang-19:clang-19 llvm-strip-19:llvm-19 /usr/include/bpf/bpf_helpers.h:libbpf-dev
	$(GO) generate ./...

.PHONY: lint
lint: ## gofmt, golangci-lint, shellcheck
	@$(NEED) shellcheck:shellcheck
	@bad=$$(gofmt -l $$(git ls-files '*.go')); [[ -z $$bad ]] || { echo "not formatted (run make fmt):" $$bad >&2; exit 1; }
	$(TOOL) golangci-lint run ./...
	shellcheck $$(git ls-files '*.sh' .ci)

.PHONY: fmt
fmt: ## gofmt, and the HCL profiles
	gofmt -w $$(git ls-files '*.go')
	$(GO) run ./cmd/nodeprov fmt profiles/*.hcl

.PHONY: clean
clean: clean-image ## what was built
	rm -rf bin

include images/image.mk
