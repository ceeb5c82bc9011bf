# The repository is three modules, the product, hsu-core and bench. ./... does not cross them, so each is checked.

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS   += --no-builtin-rules

# Each module is tested with what its own go.mod requires, whatever workspace the clone is in.
export GOWORK := off

MODULES := . hsu-core bench
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)

# Static binaries; the version comes from here, so that neither a missing git nor one that distrusts the folder's
# owner (sudo make install) gets in the way. Without grpcnotrace gRPC pulls in net/http's tracing pages, a third
# of the worker's size.
BUILD := CGO_ENABLED=0 go build -trimpath -buildvcs=false -tags grpcnotrace,urfave_cli_no_docs \
	-ldflags '-s -w -X main.release=$(VERSION)'

# make install
PREFIX  ?= /usr/local
DESTDIR ?=

# make run
RUN_DIR := .run
WORKERS ?= 2
PORT    ?= 50051

# The order in which tests run: "on" draws one and prints its seed, a number is a seed.
SHUFFLE ?= on

# The tools are pinned in tools/go.mod, away from the product's dependencies, and built once into .tools.
TOOLS := $(CURDIR)/.tools
each_module = for module in $(MODULES); do echo "== $$module"; (cd "$$module" && $(1)); done

.PHONY: build run test exhaustive race vet e2e e2e-systemd clock fuzz crash torture soak soak-with bench lint vuln proto proto-check cross clean install help

build: ## make bin/hsu-master and bin/hsu-worker
	$(BUILD) -o bin/ ./cmd/hsu-master ./cmd/hsu-worker

run: build ## run a master with two workers here, its state in ./.run (WORKERS=, PORT=, ARGS=)
	@mkdir -p $(RUN_DIR)
	@printf '%s\n' 'Ctrl-C stops the master and its workers. To kill the master, paste into another terminal, here:' ''
	@$(demonstration)
	@exec bin/hsu-master run --port $(PORT) --state-dir $(RUN_DIR) \
		--worker-path bin/hsu-worker --worker-count $(WORKERS) $(ARGS)

# The block of README.md that shows a crash.
demonstration = sed -n '/^<!-- make run prints/,/^```$$/ { /^<!--/d; /^```/d; p }' README.md && echo

test: ## run the tests; those that enumerate cases try a sample (SHUFFLE=SEED, SEED=)
	@$(call each_module,go test -shuffle=$(SHUFFLE) ./...)

exhaustive: ## run the tests that enumerate cases on each case: byte flips, cuts, power losses (SEED=)
	EXHAUSTIVE=$(or $(EXHAUSTIVE),1) go test -count=1 -timeout $(or $(TIMEOUT),60m) ./store

race: ## run the tests with the race detector (SHUFFLE=SEED, SEED=)
	@$(call each_module,go test -race -shuffle=$(SHUFFLE) ./...)

vet: ## run go vet, over the tests that need a tag too
	@$(call each_module,go vet ./... && go vet -tags e2e$(comma)e2e_systemd$(comma)inside$(comma)crashpoints$(comma)crash$(comma)torture ./...)
	@cd examples/custom-master && go vet ./...

e2e: ## run the tests of real binaries and real processes (SEED=)
	go test -tags e2e -count=1 -timeout 20m -p 1 ./e2e/...

e2e-systemd: ## run the tests under a real systemd (root, Debian's debootstrap and systemd-container)
	go test -tags e2e_systemd -count=1 -timeout 20m ./deploy ./e2e/systemd/...

clock: ## run tests under a wall clock that steps by a year at each reading
	scripts/clock

fuzz: ## run each fuzz target for FUZZTIME (30s; TARGETS=, PARALLEL=, FRESH=1, SEED=)
	@FUZZTIME='$(FUZZTIME)' TARGETS='$(TARGETS)' PARALLEL='$(PARALLEL)' FRESH='$(FRESH)' SEED='$(SEED)' MODULES='$(MODULES)' scripts/fuzz

crash: ## kill a master at every point of every operation, and in every recovery from that (SEED=, PAIRS=, TRIPLES=, BUDGET=)
	go test -tags e2e,crash -run TestCrashMatrix -count=1 -timeout $(or $(TIMEOUT),40m) -v ./e2e/crash

torture: ## trouble masters and workers at random and compare what is true with a model (N=50 rounds, SEED=)
	N='$(or $(N),50)' go test -tags e2e,torture -run TestTorture -count=1 -timeout 120m -v ./e2e/crash

soak: ## explore at random for hours (SEED=, TRIPLES=3000, N=1000, FUZZTIME=5m)
	@$(MAKE) --no-print-directory soak-with SEED='$(or $(SEED),$(shell date +%s))'

soak-with:
	@echo "SEED=$(SEED)"
	$(MAKE) exhaustive EXHAUSTIVE=full TIMEOUT=24h
	$(MAKE) crash PAIRS=all TRIPLES='$(or $(TRIPLES),3000)' TIMEOUT=12h
	$(MAKE) torture N='$(or $(N),1000)'
	$(MAKE) fuzz FUZZTIME='$(or $(FUZZTIME),5m)'

bench: ## measure against the baselines (ARGS=)
	@cd bench && go build -buildvcs=false -o $(TOOLS)/ .
	$(TOOLS)/bench $(ARGS)

lint: $(TOOLS)/built ## run golangci-lint
	@$(call each_module,$(TOOLS)/golangci-lint run --config $(CURDIR)/.golangci.yml ./...)

vuln: $(TOOLS)/built ## look for known vulnerabilities in what is called (ARGS=)
	@$(call each_module,$(CURDIR)/scripts/vulncheck $(TOOLS)/govulncheck $(ARGS))

proto: $(TOOLS)/built ## make the code of the .proto files
	scripts/proto . $(TOOLS)

proto-check: $(TOOLS)/built ## fail where the code of the .proto files is not current
	scripts/proto --check $(TOOLS)

cross: ## build for the other systems
	@for target in linux/arm64 darwin/arm64 windows/amd64; do \
		export CGO_ENABLED=0 GOOS=$${target%/*} GOARCH=$${target#*/}; echo "== $$target"; \
		$(call each_module,go build ./...); \
	done

# Not .run: its workers may be alive, and only the state in there knows them.
clean: ## remove what was built
	rm -rf bin .tools bench.json bench/bench.json

# The binaries are not made anew here, so that "make && sudo make install" installs what was built as a user.
install: | bin/hsu-master bin/hsu-worker ## install into $(DESTDIR)$(PREFIX)
	install -D -m 755 -t '$(DESTDIR)$(PREFIX)/bin' bin/hsu-master bin/hsu-worker
	if [ -e docs/hsu-master.1 ]; then install -D -m 644 -t '$(DESTDIR)$(PREFIX)/share/man/man1' docs/hsu-master.1; fi
	install -D -m 644 cmd/hsu-master/completion/bash '$(DESTDIR)$(PREFIX)/share/bash-completion/completions/hsu-master'
	install -D -m 644 cmd/hsu-master/completion/zsh '$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_hsu-master'
	install -D -m 644 cmd/hsu-master/completion/fish '$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/hsu-master.fish'
	@echo "next, to run it as a service: hsu-master systemd install --help"

bin/hsu-master bin/hsu-worker:
	$(BUILD) -o $@ ./cmd/$(@F)

$(TOOLS)/built: tools/go.mod tools/go.sum
	go build -buildvcs=false -modfile=tools/go.mod -o $(TOOLS)/ tool
	touch $@

help: ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

comma := ,
