# `make demo` shows the main job on real programs, `make test` proves it. Both install what they need first.

SHELL = /bin/sh
.DELETE_ON_ERROR:
.PHONY: help setup deps build test check demo bench fuzz programs loads stress catalogue soak judges ltp selftests pjdfstest release

CARGO = . scripts/cargo-path && cargo
# One place for the path of the binary that demo and programs run.
BINARY = target/release/sysemu

# What runs once more with the ptrace backend, which otherwise is for hosts without user notification. The conformance
# suite has all backends by itself.
BOTH_BACKENDS = --test hostile --test programs --test loads --test write_semantics --test runc

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile | expand -t 18

setup: ## install what is missing (Debian packages; says what it cannot install)
	@scripts/setup

deps: setup ## also what Debian 12 lacks, below target/: three versions of gVisor, two newer ones of runc
	@scripts/gvisor-deps
	@scripts/runc-deps
	@scripts/gvisor-newest || echo "deps: tests of the newest gVisor will be skipped"
	@scripts/runc-newest || echo "deps: tests of the newest runc will be skipped"

build: ## the optimised binary, target/release/sysemu
	@scripts/setup build
	@$(CARGO) build --release --bins

check: setup ## formatting, lints, documentation
	@$(CARGO) fmt --all --check
	@$(CARGO) clippy --workspace --all-targets -- -D warnings
	@. scripts/cargo-path && RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --quiet

# The static binary, the newest gVisor and the newer versions of runc are made here and not by the tests that run them, so
# that one sees what is being waited for.
test: check ## everything that decides whether a change is good
	@scripts/release >/dev/null
	@scripts/gvisor-newest || true
	@scripts/runc-deps || true
	@scripts/runc-newest || true
	@$(CARGO) test --workspace --no-fail-fast
	@. scripts/cargo-path && SYSEMU_BACKEND=ptrace cargo test --no-fail-fast $(BOTH_BACKENDS)

demo: setup ## before and after, on real programs
	@$(CARGO) build --release --bins --quiet
	@SYSEMU=$(BINARY) scripts/demo

bench: setup ## costs, as ratios to the floors of this machine
	@$(CARGO) build --release --bins --quiet
	@$(BINARY) bench

programs: setup ## the long form of the runs with real programs
	@$(CARGO) build --release --bins --quiet
	@. scripts/cargo-path && SYSEMU_LONG=1 SYSEMU=$$PWD/$(BINARY) cargo test --release --test programs

loads: deps ## the load of threads, children and signals fifty times, with both backends and inside gVisor
	@scripts/release >/dev/null
	@. scripts/cargo-path && SYSEMU_LONG=1 cargo test --test loads
	@. scripts/cargo-path && SYSEMU_LONG=1 SYSEMU_BACKEND=ptrace cargo test --test loads
	@. scripts/cargo-path && SYSEMU_LONG=1 cargo test --test gvisor -- loads::

stress: setup ## hostile circumstances at length, a million managed calls among them, with both backends
	@. scripts/cargo-path && SYSEMU_LONG=1 cargo test --test hostile --test write_hostile --test sequences
	@. scripts/cargo-path && SYSEMU_LONG=1 SYSEMU_BACKEND=ptrace cargo test --test hostile

catalogue: setup ## every sysctl of the catalogue against this kernel; for a machine of one's own: all are written to
	@. scripts/cargo-path && SYSEMU_LONG=1 SYSEMU_WRITE_HOST=1 cargo test --test catalogue_oracle -- --nocapture

# Whoever runs suites of others has built them: nothing of theirs is here. One case at a time: LTP's share loop devices.
OUTSIDE = $(CARGO) build --release --bins --quiet && SYSEMU=$$PWD/$(BINARY) cargo test --test judges -- --test-threads 1

judges: setup ## test suites of CPython, Go and stress-ng bare and under sysemu: the long form
	@$(CARGO) build --release --bins --quiet
	@. scripts/cargo-path && SYSEMU_LONG=1 SYSEMU=$$PWD/$(BINARY) cargo test --test judges

ltp: setup ## the same for the Linux Test Project, installed in LTPROOT
	@[ -d "$(LTPROOT)/runtest" ] || { echo "ltp: LTPROOT=FOLDER has to be where LTP is installed: in its sources" \
	    "run make autotools, ./configure --prefix=FOLDER, make, make install" >&2; exit 1; }
	@export LTPROOT="$(LTPROOT)"; $(OUTSIDE) ltp::

selftests: setup ## the same for the kernel's selftests, compiled in KSELFTESTS
	@[ -d "$(KSELFTESTS)/seccomp" ] || { echo "selftests: KSELFTESTS=FOLDER has to be tools/testing/selftests of Linux:" \
	    "run make -C FOLDER/seccomp, /openat2 and /proc there" >&2; exit 1; }
	@export KSELFTESTS="$(KSELFTESTS)"; $(OUTSIDE) selftests::

pjdfstest: setup ## the same for pjdfstest, compiled in PJDFSTEST
	@[ -x "$(PJDFSTEST)/pjdfstest" ] || { echo "pjdfstest: PJDFSTEST=FOLDER has to be its sources, compiled: run" \
	    "autoreconf -ifs, ./configure and make there" >&2; exit 1; }
	@export PJDFSTEST="$(PJDFSTEST)"; $(OUTSIDE) pjdfstest::

soak: setup ## the runs with real programs over and over, SOAK_ROUNDS times (default 20)
	@$(CARGO) build --release --bins --quiet
	@SYSEMU=$$PWD/$(BINARY) scripts/soak

fuzz: setup ## each fuzz target for FUZZ_SECONDS (default 60)
	@scripts/fuzz

release: ## the static binary
	@scripts/setup build
	@scripts/release
