# What CI runs, and what one runs by hand. Tests that need a redis-server are skipped where there is
# none, unless READTHROUGH_REQUIRE_REDIS=1.

MODULES  := $(dir $(wildcard go.mod */go.mod */*/go.mod))
GOLANGCI := go run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
FUZZTIME ?= 10s
BENCH    ?= # flags of the report: make bench BENCH='-only hit'

.PHONY: test race lint fuzz bench examples cover ci
.NOTPARALLEL:

test: ## the README's command
	go test ./...

race: ## every module under the race detector
	set -e; for m in $(MODULES); do echo "== $$m: race"; go -C $$m test -race -timeout 15m ./...; done

lint: ## gofmt, vet, and the linters of .golangci.yml, staticcheck among them
	@unformatted=$$(gofmt -l .); [ -z "$$unformatted" ] || { echo "not gofmt'd: $$unformatted"; exit 1; }
	set -e; for m in $(MODULES); do echo "== $$m: vet, lint"; (cd $$m; go vet ./...; $(GOLANGCI) run ./...); done

fuzz: ## each fuzz target for FUZZTIME
	@set -e; grep -rlE --include='*_test.go' '^func Fuzz' . | while read -r file; do \
		for target in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\).*/\1/p' "$$file"); do \
			echo "== $${file%/*} $$target"; \
			go -C "$${file%/*}" test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1s . </dev/null; \
		done; \
	done

bench: ## measures, and writes docs/benchmarks.md
	go run -C bench ./report $(BENCH)

examples: ## the README's other command
	go run -C examples ./bookstore

cover: ## coverage of all packages by all tests
	go test -coverprofile=coverage.out -coverpkg=./... ./...
	go tool cover -func=coverage.out | tail -1

ci: lint test examples race fuzz
