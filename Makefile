# Everything a fresh Debian 12 with Rust and root needs. `make demo` and `make test` install the
# missing Debian packages themselves.

CARGO ?= cargo
PACKAGES_BUILD = clang gcc libc6-dev libelf-dev libssl-dev llvm m4 make pkg-config zlib1g-dev
PACKAGES_LAB = arping bpftool curl ethtool iproute2 iputils-ping keepalived kmod nginx-light openssl procps prometheus \
	systemd tcpdump util-linux
# Guests: QEMU, and what unpacks kernels and programs for them.
PACKAGES_GUEST = binutils debian-archive-keyring qemu-system-x86 xz-utils
DEMO_REPORT ?= demo-report.html
MEASURING = $(basename $(notdir $(wildcard tests/tests/*.rs)))

# The licence, ban and source checks need no network once this is built.
CARGO_DENY = 0.20.2

.DEFAULT_GOAL := help
.PHONY: help demo lint test test-fast-path test-long test-kernels test-nic docs-nic docs-schema bench bench-lvs build packages packages-build

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "%-16s %s\n", $$1, $$2}'

demo: packages ## show the balancer at work in namespaces; writes demo-report.html
	$(CARGO) build --release --locked -p pointsman -p lab
	target/release/pointsman-lab demo --report $(DEMO_REPORT)

lint: packages-lint ## format, clippy, docs, purity, shell scripts, dependencies
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" $(CARGO) doc --locked --workspace --no-deps --document-private-items
	.ci/purity
	shellcheck $$(git grep -lE '^#!/bin/(ba)?sh')
	$(CARGO) deny --version >/dev/null 2>&1 || $(CARGO) install --locked cargo-deny --version $(CARGO_DENY)
	$(CARGO) deny --locked check bans licenses sources

# Unit and property tests first, then the system tests that wait, some at a time, then those that
# measure time: one at a time. A failure in one file does not stop the others.
test: packages ## all tests
	$(CARGO) build --locked -p pointsman -p lab
	$(CARGO) test --locked --workspace --exclude tests
	failed=; $(CARGO) test --locked -p tests --test waiting -- --test-threads=5 || failed=1; \
	$(CARGO) test --locked -p tests --no-fail-fast --lib $(MEASURING:%=--test %) \
		-- --test-threads=1 || failed=1; \
	$(WITH_FAST_PATH) && test -z "$$failed"

# Those whose packets the XDP program may forward instead of a worker, once more with that.
FAST_PATH = forwarding_bytes forwarding_other_hosts health_kill health_reset health_silent interfaces lifecycle_nic \
	persistence_burst persistence_queues vrrp_load

WITH_FAST_PATH = POINTSMAN_FAST_PATH=on $(CARGO) test --locked -p tests --no-fail-fast \
	$(FAST_PATH:%=--test %) -- --test-threads=1

test-fast-path: packages ## the tests of the packet path with the XDP program forwarding known flows
	$(CARGO) build --locked -p pointsman -p lab
	$(WITH_FAST_PATH)

# The same with 20 runs of every timing test, and the long soaks.
test-long: export POINTSMAN_LONG = 1
test-long: FAST_PATH = $(MEASURING) waiting
test-long: test test-kernels test-nic ## timing tests 20 times, soaks, all kernels and network cards

# Guests under QEMU, one after the other; a summary at the end. POINTSMAN_ROWS=igb: only rows with that
# text.
MACHINES = $(CARGO) test --locked -p tests --test machines

test-kernels: packages ## Debian's kernels in guests: forwarding, take-over, overload, systemd
	$(CARGO) build --locked -p pointsman
	$(MACHINES) -- --nocapture --test-threads=1 kernels takeover

test-nic: packages ## emulated network cards in guests: modes, sizes, life cycle
	$(CARGO) build --locked -p pointsman
	$(MACHINES) -- --nocapture --test-threads=1 cards

docs-nic: packages ## write docs/network-cards.md from a run of all network cards
	$(CARGO) build --locked -p pointsman
	POINTSMAN_DOCS=$(CURDIR)/docs $(MACHINES) -- --nocapture --exact cards

docs-schema: packages-build ## write the JSON Schemas in docs/
	POINTSMAN_WRITE_SCHEMAS=1 $(CARGO) test --locked -p api --test schema

bench: packages build ## the packet path in memory, and the balancer on a veth beside bare loops
	$(CARGO) bench --locked -p bench

# Boots one of Debian's kernels under QEMU, about 15 minutes; some of its tests: ONLY="--only httpd".
bench-lvs: packages ## Pointsman and LVS with keepalived in one guest; writes bench/results/lvs.md
	$(CARGO) build --release --locked -p pointsman -p bench-lvs
	target/release/bench-lvs $(ONLY)

build: packages-build ## the release binary
	$(CARGO) build --release --locked -p pointsman

packages-lint: packages-build
	.ci/packages shellcheck

packages-build:
	.ci/packages $(PACKAGES_BUILD)

packages:
	.ci/packages $(PACKAGES_BUILD) $(PACKAGES_LAB) $(PACKAGES_GUEST)
