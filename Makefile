# Thin verbs: what has a decision in it lives in tools/sel4-compose and
# tools/setup. `make` alone prints the help.

# What may be set on the command line or in the environment.
APP         ?=
BIN         ?=
WITH        ?=
CAPS        ?= console
KERNEL      ?= release
KERNELS     ?=
SEL4_PREFIX ?=
TIMEOUT     ?= 60
ICOUNT      ?=
MEMORY      ?=
SYSTEM      ?= system.toml
SCRIPT      ?=
HEADLESS    ?=
RECORDING   ?= build/recording
IMAGE       ?= build/image
JSON        ?=
EVERY       ?=
ALL         ?=
CLAIM       ?=
CONFIG      ?=
REQUIRE     ?=
LOG         ?=
ACCEPT      ?=
PROOF       ?=
SECONDS     ?= 10
CYCLES      ?= 2000
SEED        ?= 1
FUZZER      ?=
MUTANT      ?=

# capos-config then uses the bindings it ships; .cargo/config.toml says the same
# to Cargo started inside this directory.
export DOCS_RS = 1

# A registry that does not answer at once is asked again.
export CARGO_NET_RETRY ?= 10

# Compiling the tools takes minutes the first time, and then shows that it does.
compose = cargo run --locked $(if $(wildcard target/debug/sel4-compose),--quiet) \
	--package sel4-compose -- --kernel "$(KERNEL)" \
	$(if $(SEL4_PREFIX),--prefix "$(SEL4_PREFIX)") \
	$(if $(MEMORY),--memory "$(MEMORY)") $(if $(ICOUNT),--icount) $(if $(LOG),--log)
# A person at the terminal is stopped only where that was asked for.
patience = $(if $(filter file,$(origin TIMEOUT)),,--timeout "$(TIMEOUT)")
evidence = cargo run --quiet --package evidence --
application = "$(or $(APP),capos-rt-smoke)" $(if $(BIN),--bin "$(BIN)") \
	$(if $(WITH),--with "$(WITH)") \
	--caps "$(CAPS)" --timeout "$(TIMEOUT)"

.PHONY: help setup check test bench simulate recording system image inspect app gdb sites clean \
	audit proof-check claims assurance doctor reproduce \
	packages rust soak storm reference fuzz-smoke mutants coverage
.DEFAULT_GOAL := help

help:
	@echo 'make simulate    boot a system in QEMU, with its terminal on yours'
	@echo '                   SYSTEM=...   its description (system.toml)'
	@echo '                   SCRIPT=...   file of lines to type at its terminal'
	@echo '                   HEADLESS=1   need no terminal, show what its terminal shows'
	@echo 'make recording   picture and text of what its terminal shows, for SCRIPT=...'
	@echo '                   RECORDING=...  files without suffix (build/recording)'
	@echo 'make system      check the description SYSTEM, build nothing'
	@echo 'make image       build its image'
	@echo '                   IMAGE=...    directory it goes to (build/image)'
	@echo 'make inspect     who holds which capability, memory and hardware of SYSTEM'
	@echo '                   SYSTEM=...   may be a built image as well;  JSON=1'
	@echo 'make app         run one application as the only program'
	@echo '                   APP=...      ELF file or Cargo package directory'
	@echo '                   CAPS="..."   its kernel capabilities, name or name=source (console)'
	@echo '                   BIN=...      the program, if the package has several'
	@echo '                   WITH="..."   applications it can start, named as APP is'
	@echo 'make gdb         the same, paused until a debugger attaches'
	@echo 'make test        all checks, host tests and guest scenarios'
	@echo '                   PROOF="..."  only these scenarios'
	@echo '                   JOBS=...     machines that run at a time (the processors)'
	@echo '                   KERNELS="bundled DIR"  on each of these kernels in turn:'
	@echo '                                bundled, or an installed seL4; absent ones are skipped'
	@echo 'make bench       what everything costs, beside seL4 itself; a report and plots'
	@echo '                   ACCEPT=1     make test compares with these counts from now on'
	@echo 'make soak        start and end programs without end, then compare the books'
	@echo '                   CYCLES=2000  how many;  SEED=1 another order of things'
	@echo 'make storm       type 10 MB of noise at the login prompt and in the shell'
	@echo 'make check       format and lints only'
	@echo 'make fuzz-smoke  each fuzzer for a bounded time (needs a nightly toolchain)'
	@echo '                   SECONDS=10   per fuzzer;  FUZZER="..." only these'
	@echo 'make mutants     break rules of the core on purpose; tests must notice each'
	@echo '                   MUTANT="..." only these'
	@echo 'make coverage    line coverage of the core'
	@echo 'make doctor      what stops this machine or kernel from running a system, and the repair'
	@echo 'make audit       run SYSTEM and compare what its processes really hold with the books'
	@echo '                   EVERY=ms     also while it runs;  SCRIPT=...  lines to type'
	@echo 'make proof-check how far the kernel is from the configuration the proofs are about'
	@echo '                   CONFIG=...   a prefix or a gen_config.json;  JSON=1'
	@echo '                   REQUIRE=1    fail unless it is that configuration'
	@echo 'make claims      run the evidence for what claims.toml says'
	@echo '                   ALL=1        also what takes minutes;  CLAIM="..." only these'
	@echo 'make assurance   count the trusted code for docs/assurance.md'
	@echo 'make reproduce   build the image of SYSTEM twice, from nothing, in two folders; print'
	@echo '                   the digests and fail unless they are the same'
	@echo 'make reference   write docs/reference/*.md from the code'
	@echo 'make setup       install what is missing and build everything once'
	@echo 'make sites       show the system call sites of the ELF file APP'
	@echo 'make clean       remove everything that was built'
	@echo
	@echo 'TIMEOUT=60       seconds before a guest is stopped (a person at its terminal never)'
	@echo 'KERNEL=release   bundled seL4: release, debug, sysenter or smp'
	@echo 'SEL4_PREFIX=dir  an installed seL4 instead of a bundled one'
	@echo 'MEMORY=...       memory of the machine in MiB (what the system says, or 512)'
	@echo 'ICOUNT=1         count time in instructions (repeatable)'
	@echo 'LOG=1            show the log of the root task as well'

setup: packages rust
	@$(compose) setup

check: packages rust
	@$(compose) lint
	@$(evidence) wording

test: packages rust
	@$(compose) test $(foreach kernel,$(KERNELS),--on "$(kernel)") \
		$(if $(JOBS),--jobs "$(JOBS)") $(PROOF)

bench: packages rust
	@$(compose) bench $(if $(ACCEPT),--accept)

soak: packages rust
	@$(compose) test --caps "cycles-$(CYCLES)=timer seed-$(SEED)=timer" soak

storm: packages rust
	@$(compose) test login-storm-10mb

simulate: packages rust
	@$(compose) run "$(SYSTEM)" $(patience) $(if $(SCRIPT),--script "$(SCRIPT)") \
		$(if $(HEADLESS),--headless)

recording: packages rust
	@$(if $(SCRIPT),,echo 'make recording needs SCRIPT=, the lines to type at the terminal' >&2; exit 2)
	@$(compose) run "$(SYSTEM)" $(patience) --script "$(SCRIPT)" --record "$(RECORDING)"

system: packages rust
	@$(compose) check "$(SYSTEM)"

image: packages rust
	@$(compose) build "$(SYSTEM)" --output "$(IMAGE)"

app: packages rust
	@$(if $(APP),,echo 'make app needs APP=, an ELF file or a Cargo package directory' >&2; exit 2)
	@$(compose) app $(application)

gdb: packages rust
	@sh tools/setup/packages.sh gdb
	@$(compose) gdb $(application)

fuzz-smoke: packages rust
	@$(evidence) fuzz-smoke --seconds "$(SECONDS)" $(FUZZER)

mutants: packages rust
	@$(evidence) mutants $(MUTANT)

coverage: packages rust
	@$(evidence) coverage

reference: rust
	@$(evidence) reference
	@$(compose) tables

inspect: packages rust
	@$(compose) inspect "$(SYSTEM)" $(if $(JSON),--json)

doctor: rust
	@$(compose) doctor $(if $(JSON),--json)

audit: packages rust
	@$(compose) audit "$(SYSTEM)" $(if $(EVERY),--every "$(EVERY)") \
		$(if $(SCRIPT),--script "$(SCRIPT)") --timeout "$(TIMEOUT)"

proof-check: packages rust
	@$(compose) proof-check $(if $(CONFIG),"$(CONFIG)") $(if $(REQUIRE),--require) \
		$(if $(JSON),--json)

claims: packages rust
	@$(evidence) claims $(if $(ALL),--all) $(CLAIM)

assurance: rust
	@$(evidence) assurance

reproduce: packages rust
	@cargo build --quiet --locked --package sel4-compose
	@sh tools/setup/reproduce.sh target/debug/sel4-compose "$(SYSTEM)"

sites: rust
	@$(compose) sites "$(APP)"

clean:
	rm -rf build target tests/apps/target

# Cargo needs a C compiler, so this comes first.
packages:
	@sh tools/setup/packages.sh

rust:
	@command -v cargo >/dev/null || { echo 'Rust is missing: install rustup from https://rustup.rs and try again; it fetches the version in rust-toolchain.toml by itself' >&2; exit 1; }
