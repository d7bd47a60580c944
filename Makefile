# Drystone's commands. `make help` lists them. Every target but deps runs without
# a network once deps has run.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

TAGS := webkit2_41
LINT := golangci-lint
LINT_VERSION := v2.15.0
export PATH := $(CURDIR)/bin/tools:$(PATH)
export CGO_ENABLED ?= 1

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS := -s -w -X drystone.example/drystone/backend/model.Version=$(VERSION)
DEMO_DIR ?= /var/tmp/drystone-demo

.PHONY: help
help: ## list the commands
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: deps
deps: ## install what is missing to build, run and test (root, Debian 12)
	@build/deps.sh $(LINT_VERSION)

.PHONY: build
build: frontend ## make bin/drystoned, bin/drystone, bin/drystone-desktop
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./backend/cmd/drystoned ./backend/cmd/drystone
	go build -trimpath -tags desktop,production,$(TAGS) -ldflags '$(LDFLAGS)' -o bin/drystone-desktop .

.PHONY: build-nodes
build-nodes: frontend # the daemon and the CLI only
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./backend/cmd/drystoned ./backend/cmd/drystone

.PHONY: build-windows
build-windows: frontend ## make bin/drystone-desktop.exe
	CGO_ENABLED=0 GOOS=windows GOARCH=amd64 go build -trimpath -tags desktop,production \
		-ldflags '$(LDFLAGS) -H windowsgui' -o bin/drystone-desktop.exe .

# A version of a package begins with a number; without a tag there is none.
PACKAGE_VERSION := $(if $(findstring .,$(VERSION)),$(VERSION:v%=%),0.0.0~$(VERSION))
NFPM := go run github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.45.0
.PHONY: packages
packages: build ## make the Debian packages in bin/packages
	@mkdir -p bin/packages
	for p in node desktop; do \
		PACKAGE_VERSION='$(PACKAGE_VERSION)' $(NFPM) package --config packaging/$$p.yaml --packager deb --target bin/packages; \
	done

FRONTEND_SOURCES := $(shell find frontend -path frontend/node_modules -prune -o -path frontend/dist -prune -o -type f -print)
.PHONY: frontend
frontend: bin/.frontend
bin/.frontend: $(FRONTEND_SOURCES)
	cd frontend && npm run build
	@mkdir -p bin && touch $@

.PHONY: check
check: ## formatting, vet, lint, layering, types: what every commit passes
	@test -z "$$(gofmt -l backend desktop tests main.go)" || { gofmt -l backend desktop tests main.go; exit 1; }
	go vet -tags $(TAGS) ./...
	$(LINT) run --build-tags $(TAGS) ./...
	go test ./backend/archtest
	cd frontend && npm run --silent typecheck && npm run --silent lint

# Tests of clusters that take long for what they add; make nightly runs them.
export NIGHTLY_CLUSTERS := ^TestFirmwareIsChanged$$

.PHONY: test
test: deps build ## everything that must pass
	@tests/run.sh

.PHONY: bugs
bugs: deps ## plant mistakes in the code, one at a time: each must be caught by its test
	go run ./tests/bugs

.PHONY: conformance
conformance: deps build-nodes ## what tools of others find of a volume, at length (root)
	go test -count=1 -v -timeout 1h ./tests/conformance -conformance.long

MINUTES ?= 30
.PHONY: endurance
endurance: deps build-nodes ## load that is verified, with snapshots, scrubs and dying nodes, for MINUTES (30; root)
	go test -count=1 -v -timeout 0 ./tests/endurance -endurance.minutes=$(MINUTES)

.PHONY: lab
lab: deps build-nodes ## guests whose nodes fail, on three hosts of namespaces: 40 migrations, 40 killed daemons, a drain of ten (root)
	@tests/guest/build.sh bin/guest
	go test -count=1 -v -timeout 2h ./tests/lab -lab.all -lab.tours=20 -lab.rounds=40 -lab.seed=$$(date +%j)
	go test -count=1 -v -timeout 30m -run 'TestDrain$$' ./tests/cluster -drain.guests=10

.PHONY: bench
bench: deps build-nodes ## the speed table, beside qemu-nbd on a raw file in the same run
	go run ./tests/bench

.PHONY: demo
demo: deps build ## a three-node cluster with a running guest on this machine (root)
	@tests/demo/up.sh $(DEMO_DIR)

.PHONY: demo-down
demo-down: ## stop the demo and remove it
	@tests/demo/down.sh $(DEMO_DIR)

.PHONY: nightly
nightly: deps build ## the long runs: 500 seeds, large bounds, every fault of the network, 200 clones, power cuts, planted mistakes, a map of 10 TiB, the lab
	go test -count=1 -v -timeout 2h ./tests/model -model.large -model.walks=100000
	go test -count=1 -timeout 1h -run TestEveryShortHistory ./backend/block/disk -disk.exhaustive
	go test -count=1 -timeout 3h ./backend/block/volume -sim.seeds=500
	go test -count=1 -timeout 3h ./backend/sim -sim.seeds=500
	go test -count=1 -v -timeout 20m -run 'TestNetwork$$' ./tests/cluster -network.all
	go run ./tests/bugs
	go test -count=1 -v -timeout 1h -run 'TestPower$$' ./tests/cluster -power.rounds=60 -power.seed=$$(date +%j)
	go test -count=1 -v -timeout 20m -run 'TestClones$$' ./tests/cluster -clones=200
	go test -count=1 -v -timeout 30m -run '$(NIGHTLY_CLUSTERS)' ./tests/cluster
	go test -count=1 -v -timeout 1h -run 'TestBigMap' ./backend/block/disk -map.gib=10240 -map.count=false -map.writes=100000
	$(MAKE) lab
