# What a developer types. `make` alone lists the targets. Go, git and make are
# enough for everything but `test`, whose race detector needs a C compiler.

GO      ?= go
TOOLS   := .cache/bin
FUZZ    ?= 20s
BENCH   ?= .
PACKAGE ?= ./...

.DEFAULT_GOAL := help
.PHONY: help build run test check fmt vet lint cross tidy fuzz bench microbench clean cc

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build bin/ten
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/ten ./cmd/ten

run: build ## serve the notes example at http://alice.notes.localhost:8080
	@CGO_ENABLED=0 $(GO) build -trimpath -o bin/notes ./examples/notes
	@examples/notes/run.sh

test: cc $(TOOLS)/gotestsum ## run every test, with the race detector; ARTEFACTS=dir keeps pictures of the dashboard
	$(if $(ARTEFACTS),@rm -rf '$(ARTEFACTS)' && mkdir -p '$(ARTEFACTS)')
	CGO_ENABLED=1 $(TOOLS)/gotestsum --format pkgname-and-test-fails --format-hide-empty-pkg -- -race -timeout 30m $(if $(ARTEFACTS),-artifacts -outputdir '$(abspath $(ARTEFACTS))') $(PACKAGE)

check: fmt vet lint cross tidy ## everything short of the tests

fmt:
	@files="$$(gofmt -l .)" && test -z "$$files" || { echo "run gofmt -w on: $$files"; exit 1; }

vet:
	CGO_ENABLED=0 $(GO) vet ./...

lint: $(TOOLS)/golangci-lint
	CGO_ENABLED=0 $(TOOLS)/golangci-lint run ./...

# The production platform on its other architecture, and where people develop;
# vet compiles the tests as well.
cross:
	GOOS=linux GOARCH=arm64 CGO_ENABLED=0 $(GO) build ./...
	GOOS=darwin GOARCH=arm64 CGO_ENABLED=0 $(GO) build ./...
	GOOS=darwin GOARCH=arm64 CGO_ENABLED=0 $(GO) vet ./...

tidy:
	$(GO) mod tidy -diff
	$(GO) -C tools mod tidy -diff
	$(GO) -C bench/peers/caddy mod tidy -diff

fuzz: ## run each fuzz target for FUZZ=20s
	@set -e; for file in $$(grep -rl '^func Fuzz' --include='*_test.go' .); do \
		for target in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$$file"); do \
			echo "$$target in $${file%/*}"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZ) "$${file%/*}"; \
		done; \
	done

bench: ## measure beside nginx and others: SUITE=proxy,wake,… QUICK=1 (docs/performance.md)
	CGO_ENABLED=0 $(GO) build -o bin/bench ./bench
	PATH="$$PATH:$$(test -n "$(QUICK)" || tools/runsc.sh)" bin/bench -suite "$(SUITE)" $(if $(QUICK),-quick -results .cache/bench)

microbench: ## run Go's benchmarks whose names match BENCH=.
	CGO_ENABLED=0 $(GO) test -run '^$$' -bench '$(BENCH)' -benchmem -timeout 60m $(PACKAGE)

clean: ## remove what was built, the tools and the examples' data included
	rm -rf bin .cache

# The race detector is the one thing here that needs cgo.
cc:
	@command -v "$$($(GO) env CC)" >/dev/null || { \
		echo "make test: the race detector needs a C compiler, and there is no $$($(GO) env CC)."; \
		echo "hint: install one (Debian: apt-get install gcc libc6-dev), or run the tests without it: go test ./..."; \
		exit 1; }

# The tools are built once from the versions that tools/go.mod pins.
$(TOOLS)/golangci-lint: tools/go.mod tools/go.sum
	@echo "building golangci-lint, which takes a few minutes the first time"
	@cd tools && CGO_ENABLED=0 $(GO) build -o ../$@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint

$(TOOLS)/gotestsum: tools/go.mod tools/go.sum
	@cd tools && CGO_ENABLED=0 $(GO) build -o ../$@ gotest.tools/gotestsum
