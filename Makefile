# Everything a fresh Debian 12 with Rust and root needs. `make demo` and `make test` install the
# missing Debian packages themselves.

CARGO ?= cargo
PACKAGES_BUILD = clang gcc libc6-dev libelf-dev llvm m4 make pkg-config zlib1g-dev
PACKAGES_LAB = arping bpftool curl ethtool iproute2 iputils-ping keepalived kmod nginx-light openssl procps prometheus \
	tcpdump util-linux
DEMO_REPORT ?= demo-report.html
MEASURING = $(basename $(notdir $(wildcard tests/tests/*.rs)))

.PHONY: demo test test-long bench build packages packages-build

demo: packages
	$(CARGO) build --release --locked -p pointsman -p lab
	target/release/pointsman-lab demo --report $(DEMO_REPORT)

# Unit and property tests first, then the system tests that wait, some at a time, then those that
# measure time: one at a time. A failure in one file does not stop the others.
test: packages
	$(CARGO) build --locked -p pointsman -p lab
	$(CARGO) test --locked --workspace --exclude tests
	failed=; $(CARGO) test --locked -p tests --test waiting -- --test-threads=5 || failed=1; \
	$(CARGO) test --locked -p tests --no-fail-fast --lib $(MEASURING:%=--test %) \
		-- --test-threads=1 && test -z "$$failed"

# The same with 20 runs of every timing test, and the long soaks.
test-long: export POINTSMAN_LONG = 1
test-long: test

bench: packages-build
	$(CARGO) bench --locked -p bench

build: packages-build
	$(CARGO) build --release --locked -p pointsman

packages-build:
	.ci/packages $(PACKAGES_BUILD)

packages:
	.ci/packages $(PACKAGES_BUILD) $(PACKAGES_LAB)
