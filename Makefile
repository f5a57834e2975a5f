# The verbs of the repository. Each installs the Debian packages it needs that are missing.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help build install deb bench bench-cost bench-device bench-tools test check lint format damage fuzz sim vm vm-long vm-shell vm-self-test demo install-dependencies clean clean-vm

# The kernel of vm-shell, and what vm runs: make vm KERNEL=7 SCENARIO=name
KERNEL ?=
SCENARIO ?=

help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | sort | expand -t 22

build: ## compile the release program to .build/qed-ublk
	scripts/build

# Where install puts things.
PREFIX ?= /usr/local
DESTDIR ?=

install: ## install the program, its unit, udev rules, completions, manual and documents; PREFIX=/usr/local, DESTDIR=
	@[ -x .build/qed-ublk ] || scripts/build
	scripts/install-files '$(PREFIX)' '$(DESTDIR)'

deb: build ## make a Debian package of it: .build/qed-ublk_VERSION_ARCHITECTURE.deb
	@scripts/deb

test: ## all tests: unit tests, then real devices in virtual machines with two kernels
	@scripts/test

check: ## compile and run the unit tests only
	scripts/swift-test

lint: ## the form of everything, in seconds: Swift, scripts, and the rules of Tests/Tidy
	@scripts/lint

format: ## write the Swift files in their form, then lint
	@scripts/lint --format

fuzz: ## fuzz what reads images, with the address sanitizer; SECONDS_EACH=60, TARGET=repair, CANARY=1 plants faults
	scripts/fuzz $(if $(CANARY),--canary,--seconds $(or $(SECONDS_EACH),60) $(if $(TARGET),--target $(TARGET)))

damage: ## check and repair damaged images beside QEMU; IMAGES=10000, SEED=1
	QED_DAMAGE_IMAGES=$(or $(IMAGES),10000) QED_DAMAGE_SEED=$(or $(SEED),1) scripts/swift-test -c release \
		-Xswiftc -enable-testing --scratch-path .build-tests --filter DamageTests

sim: ## simulate power cuts, kills and faults; SEED=1, SECONDS_EACH=240, STATES=12000000, SABOTAGE=1 plants faults to be found
	scripts/simulate $(if $(SABOTAGE),--sabotage,--seed $(or $(SEED),1) --seconds $(or $(SECONDS_EACH),240) --states $(or $(STATES),12000000))

vm: ## run the scenarios on real devices; KERNEL=6.12 or 7, SCENARIO=part of a name
	scripts/install-dependencies test
	scripts/build --tests
	Tests/VM/run-scenarios $(if $(KERNEL),--kernel $(KERNEL)) $(SCENARIO)

vm-long: ## a scenario for longer; PROOF=kills, power-cuts, soak, faults, life-cycle, cycles, devices or memory, COUNT=, SECONDS_EACH=, SEED=1, KERNEL=
	scripts/install-dependencies test
	scripts/build --tests
	Tests/VM/prove $(PROOF) $(if $(COUNT),--count $(COUNT)) $(if $(SECONDS_EACH),--seconds $(SECONDS_EACH)) \
		$(if $(SEED),--seed $(SEED)) $(if $(KERNEL),--kernel $(KERNEL))

vm-shell: ## a shell in a virtual machine with ublk and the program; KERNEL=6.12 or 7
	scripts/install-dependencies test
	scripts/build
	Tests/VM/vm shell $(if $(KERNEL),--kernel $(KERNEL)) --file .build/qed-ublk

vm-self-test: ## test the virtual machine rig itself
	scripts/install-dependencies test
	Tests/VM/self-test $(KERNEL)

demo: build ## create an image, use it as a disk, measure it, check it with QEMU
	scripts/demo

bench: build ## compare the engine with QEMU's block layer and fio: a table of ratios with bars; ROUNDS=5
	scripts/install-dependencies bench
	bench/engine.py --rounds $(or $(ROUNDS),5)

bench-device: build ## compare the device with qemu-nbd, loop and a ublk server in C, in virtual machines; ROUNDS=5, KERNEL=7
	scripts/install-dependencies bench test
	bench/device.py --rounds $(or $(ROUNDS),5) $(if $(KERNEL),--kernel $(KERNEL))

bench-tools: build ## compare convert, compare and check with qemu-img: a table of ratios with bars; ROUNDS=5
	scripts/install-dependencies bench
	bench/tools.py --rounds $(or $(ROUNDS),5)

bench-cost: build ## what a request costs the engine beside a C program: instructions, allocations, processor time
	scripts/install-dependencies bench
	strip -g -o .build/qed-ublk-symbols "$$(swift build -c release --static-swift-stdlib --show-bin-path)/qed-ublk"
	bench/cost.py
	bench/allocations.py

install-dependencies: ## install the Debian packages to build and test with
	scripts/install-dependencies build test lint

clean: ## remove what was built; the virtual machine's kernels stay
	rm -rf .build .build-tests .build-tsan .build-fuzz .build-fuzz-canary .build-sabotage

clean-vm: ## remove the kernels and roots kept for the virtual machine
	rm -rf "$${QED_UBLK_CACHE:-$${XDG_CACHE_HOME:-$$HOME/.cache}/qed-ublk}/vm"
