# Millrace's chores. `make` alone lists them; CI runs `make test` (.ci/run).

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Go's own installer puts it where no PATH looks.
export PATH := $(PATH):/usr/local/go/bin

# The product, and beside it the real brokers' module, which is one of its own
# so that what it needs never reaches a user's go.sum. tools/ has no tests.
MODULES := . $(patsubst %/go.mod,%,$(wildcard peers/go.mod))

# The folders among these that hold a package, as go's arguments.
packages = $(foreach folder,$(1),$(if $(wildcard $(folder)/*.go),./$(folder)))

# Where goroutines meet: the packages CI runs under the race detector as well.
# `make check` runs all of them under it.
RACE := $(call packages,mpmc supervise fanin replica worker gather fleet)

# Where benchmarks are. A package joins the table by being named here.
BENCHMARKS := $(call packages,mpmc supervise fanin replica internal/ledger internal/seglog broker internal/door internal/nsqwire task gather)
BENCH ?= .
NSQFLAGS ?= # such as -runs 5 -for 5s
FUZZTIME ?= 10s

# Runs one command line in every module: $(call each-module,go vet ./...)
each-module = for module in $(MODULES); do ( cd $$module && $(1) ) || exit 1; done

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## build bin/millrace
	go build -trimpath -o bin/millrace ./cmd/millrace

# Commands that tests run: factor and xargs say what map should have said, ps
# whether anything was left running, node runs clients that nobody here wrote, and
# RabbitMQ's own service need not run: tests start servers of their own. Without a C
# compiler Go has no race detector, and CI does not insist on one: hence the
# question to go env.
.PHONY: test
test: ## what CI runs: build, vet and the whole test suite
	@tools/need factor=coreutils xargs=findutils ps=procps node=nodejs npm=npm rabbitmq-server=rabbitmq-server
	@$(call each-module,go build -buildvcs=false ./... && go vet ./... && go test -timeout 5m ./...)
	@if [ "$$(go env CGO_ENABLED)" = 1 ]; then \
		go test -race -short -timeout 5m $(RACE); \
	else \
		echo 'no C compiler: left out the race detector'; \
	fi

.PHONY: test-fleet
test-fleet: ## run jobs over clusters on this machine while one of their nodes dies
	@tools/need node=nodejs npm=npm rabbitmq-server=rabbitmq-server
	@cd peers && go test -tags fleet -run Fleet -timeout 10m ./drivers && go test -tags fleet -run Fleet -timeout 10m ./jobs

.PHONY: check
check: .bin/golangci-lint ## what a change passes before it is merged: format, vet, lint, all tests under the race detector
	@tools/need factor=coreutils xargs=findutils ps=procps node=nodejs npm=npm rabbitmq-server=rabbitmq-server 'gcc=gcc libc6-dev'
	@unformatted=$$(.bin/gofumpt -l .); if [ -n "$$unformatted" ]; then \
		echo 'not formatted (make fmt):'; echo "$$unformatted"; exit 1; \
	fi
	@$(call each-module,go vet ./... && $(CURDIR)/.bin/golangci-lint run ./... && go test -race -timeout 10m ./...)

.PHONY: fmt
fmt: .bin/golangci-lint ## format every Go file with gofumpt
	.bin/gofumpt -w .

.PHONY: bench
bench: bench-nsq ## run the benchmarks, those beside nsqd first: BENCH=REGEXP for some of them
	go test -run '^$$' -bench '$(BENCH)' -benchmem -timeout 30m $(BENCHMARKS)

.PHONY: bench-nsq
bench-nsq: ## print the table of speeds beside the real nsqd, RabbitMQ and nats-server: BENCH=REGEXP for some rows
	@tools/need rabbitmq-server=rabbitmq-server
	@cd peers && go run ./bench -only '$(BENCH)' $(NSQFLAGS)

.PHONY: bench-scale
bench-scale: ## measure what a large backlog, many connections and many topics cost: some minutes, 25 GB
	@cd peers && go run ./bench -scale -only '$(BENCH)' $(NSQFLAGS)

.PHONY: fuzz
fuzz: ## run every Fuzz target for a while: FUZZTIME=1m for longer
	tools/fuzz $(FUZZTIME)

# gofumpt and golangci-lint, at the versions that tools/go.mod names. They are
# compiled once, which takes some minutes.
.bin/golangci-lint: tools/go.mod tools/go.sum
	mkdir -p .bin
	cd tools && go build -o ../.bin/ tool
	touch $@
