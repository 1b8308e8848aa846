# Every module of this repository: the library, and what go.work adds to it.
MODULES := $(shell go list -m -f '{{.Dir}}')

# The race detector needs a C compiler. Without one the tests still run, except in CI.
RACE := $(if $(CI),-race,$(if $(filter 1,$(shell go env CGO_ENABLED)),-race))

FUZZTIME    ?= 20s
CRASHTIME   ?= 1h
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOVULNCHECK := golang.org/x/vuln/cmd/govulncheck@v1.9.0

# Packages of TypeScript, in the order in which they need each other.
WEB := client/typescript examples/react test/browser

.PHONY: help test test-go emulators test-web check lint fmt fuzz bench bench-smoke crash fleet vuln examples aws-local dynamodb-local

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 16

test: test-go test-web ## run all tests: Go, TypeScript, and both in nginx and Chromium

# Modules in test/ build programs and read files of which Go's cache of test results knows nothing:
# -count=1 has them run each time.
test-go: emulators ## run the tests of all Go modules (nginx and Caddy are installed if they are missing)
	@.ci/packages nginx caddy
	@$(if $(RACE),,echo "no C compiler found: testing without the race detector";) \
	set -e; for dir in $(MODULES); do (cd $$dir && go test -timeout 20m $(RACE) $$(case $$dir in (*/test/*) echo -count=1;; esac) ./...); done

emulators: ## install what stands in for AWS in tests, unless it is there
	@.ci/packages node npm
	@cd internal/awstest/emulators && { [ node_modules/.package-lock.json -nt package-lock.json ] || \
	{ echo "installing emulators of SQS and DynamoDB"; npm ci --no-audit --no-fund --loglevel=error; }; }

test-web: ## check and test the npm packages (Chromium is installed if it is missing)
	@.ci/packages node npm chromium
	@set -e; for dir in $(WEB); do echo "== $$dir"; (cd $$dir && npm ci --no-audit --no-fund --loglevel=error && npm run --silent check); done

check: lint test fuzz examples bench-smoke vuln ## all that CI checks

lint: ## formatting, vet, staticcheck, tidy modules
	@out=$$(gofmt -l .); test -z "$$out" || { echo "not formatted, run 'make fmt':"; echo "$$out"; exit 1; }
	@set -e; for dir in $(MODULES); do (cd $$dir && go vet ./... && go run $(STATICCHECK) ./... && go mod tidy -diff); done

fmt: ## format all Go files
	gofmt -w .

fuzz: ## run every fuzz target for FUZZTIME (20s)
	@.ci/fuzz $(FUZZTIME)

bench: emulators ## measure against the floor and print a table
	cd bench && go run .

bench-smoke: emulators ## the short measurement, one JSON object
	cd bench && go run . -quick -json

crash: ## kill, stop and restart a fleet at random for CRASHTIME (1h), and check all guarantees
	cd test/crash && go run ./cmd/crash -time $(CRASHTIME)

fleet: ## start 3 nats-servers, 2 gateways and 3 workers on loopback
	cd test/crash && go run ./cmd/fleet

vuln: ## known vulnerabilities in what the code calls
	@GOBIN=$(CURDIR)/bin go install $(GOVULNCHECK)
	@.ci/vuln bin/govulncheck

dynamodb-local: ## run the tests of progress/dynamolog on DynamoDB Local, too (takes Java)
	@.ci/dynamodb-local

aws-local: emulators ## run examples/aws on emulators of SQS and DynamoDB
	go build -o bin/ ./examples/aws
	@bin/aws -local

examples: emulators ## build the examples, run the quickstart and examples/aws once
	go build -o bin/ ./examples/...
	bin/quickstart -once -addr 127.0.0.1:0
	bin/aws -local -once -addr 127.0.0.1:0
