# SPDX-License-Identifier: Apache-2.0
# Warren: build, demo, tests and benchmarks. `make help` lists the targets; V=1 shows the commands.
# SAN=address (with undefined) or SAN=thread builds into build/san-<name>/ instead of build/.

SHELL := /bin/sh
ifeq ($(SAN),)
B := build
else
B := build/san-$(SAN)
endif
Q := $(if $(V),,@)
CC ?= gcc
CLANG := $(firstword $(shell command -v clang clang-19 clang-18 clang-17 clang-16 clang-15 clang-14 2>/dev/null) clang-14)
LLVM_STRIP := $(firstword $(shell command -v llvm-strip llvm-strip-19 llvm-strip-18 llvm-strip-17 llvm-strip-16 llvm-strip-15 llvm-strip-14 2>/dev/null) llvm-strip-14)
CLANG_FORMAT := $(firstword $(shell command -v clang-format-14 clang-format 2>/dev/null))
# Ubuntu's /usr/sbin/bpftool only looks for the one of the running kernel, which a container does not have.
BPFTOOL := $(firstword $(wildcard /usr/lib/linux-tools/*/bpftool /usr/sbin/bpftool /usr/local/sbin/bpftool) bpftool)
PYTHON := /usr/bin/python3
PREFIX ?= /usr/local

WARN := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wvla -Werror
CPPFLAGS += -D_GNU_SOURCE -Iinclude -I. -I$(B)
CFLAGS ?= -O2 -g
# Undefined first: Ubuntu's gcc defines level 3 by itself, and a redefinition is an error here.
HARDEN := -fstack-protector-strong -U_FORTIFY_SOURCE $(if $(SAN),,-D_FORTIFY_SOURCE=2) -fPIE
ALL_CFLAGS = -std=gnu11 $(WARN) $(HARDEN) $(CFLAGS) $(SAN_FLAGS) $(LLHTTP_CFLAGS)
comma := ,
SAN_FLAGS := $(if $(filter address,$(SAN)),-fsanitize=address$(comma)undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer,$(if $(SAN),-fsanitize=$(SAN) -fno-omit-frame-pointer))
LDFLAGS += -pie -Wl,-z,relro,-z,now $(SAN_FLAGS)
LIBS_ENGINE := -lnghttp2 -lssl -lcrypto -lyaml -lcjson -lpthread
LIBS_AGENT := -lbpf -lelf -lz -lnl-route-3 -lnl-3 -lcap
CPPFLAGS += -I/usr/include/libnl3

-include agent/engine/admin/llhttp.mk

ENGINE_SRCS := $(wildcard agent/engine/*/*.c)
ENGINE_OBJS := $(ENGINE_SRCS:%.c=$(B)/%.o) $(patsubst %.c,$(B)/llhttp/%.o,$(notdir $(LLHTTP_SRCS)))
CAPTURE_OBJS := $(patsubst %.c,$(B)/%.o,$(wildcard agent/capture/*.c))
AGENT_OBJS := $(patsubst %.c,$(B)/%.o,$(wildcard agent/*.c agent/enroll/*.c))
CTL_OBJS := $(patsubst %.c,$(B)/%.o,$(wildcard tools/warrenctl/*.c))
BPF_SRCS := $(wildcard bpf/*.bpf.c)
SKELS := $(BPF_SRCS:bpf/%.bpf.c=$(B)/bpf/%.skel.h)
UNIT := $(patsubst tests/unit/%.c,$(B)/tests/unit/%,$(wildcard tests/unit/test_*.c))
BPF_TESTS := $(patsubst tests/bpf/%.c,$(B)/tests/bpf/%,$(wildcard tests/bpf/*.c))
TEST_TOOLS := $(B)/tests/traffic
INTEROP_TOOLS := $(patsubst tests/interop/%.c,$(B)/tests/interop/%,$(wildcard tests/interop/*.c))
BENCH_TOOLS := $(patsubst tests/bench/%.c,$(B)/bench/%,$(wildcard tests/bench/*.c))
FUZZERS := $(patsubst tests/fuzz/%.c,build/fuzz/%,$(wildcard tests/fuzz/fuzz_*.c))
BINARIES := $(B)/warren-agent $(B)/warrenctl

.PHONY: all help deps demo demo-shell test test-san soak unit bench fuzz mutants check fmt install clean test-programs
.DELETE_ON_ERROR:
.SECONDARY:

# Who builds comes after deps in a make of its own, which finds the new packages; what builds more comes after all, so
# that no two makes write one file. So `make -j2 all test-programs check` works.
all: deps ## build/warren-agent and build/warrenctl
	$(Q)$(MAKE) --no-print-directory binaries

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

deps: ## install the distribution's packages that are missing (needs root)
	$(Q)tests/lib/deps.sh

# -s: what is up to date need not be said before the one screen.
demo: deps ## two nodes, four pods, real traffic: what happened, in one screen
	$(Q)$(MAKE) $(if $(V),,-s) --no-print-directory demo-programs
	$(Q)env WR_BUILD=$(B) $(PYTHON) tests/lib/demo.py

demo-shell: deps ## the same, left running with a shell inside
	$(Q)$(MAKE) $(if $(V),,-s) --no-print-directory demo-programs
	$(Q)env WR_BUILD=$(B) $(PYTHON) tests/lib/demo.py --shell

test: test-programs check ## everything: unit, BPF, end to end, interoperability
	$(Q)WR_BUILD=$(B) $(PYTHON) tests/run

test-san: deps ## the suite under ASan+UBSan, then under TSan, with small bulk sizes
	$(Q)for s in address thread; do \
		$(MAKE) --no-print-directory SAN=$$s test-programs && \
		WR_SCALE=0.1 WR_SAN=$$s WR_BUILD=build/san-$$s $(PYTHON) tests/run || exit 1; done

soak: test-programs ## five minutes of renewals every few seconds under one open connection
	$(Q)WR_SOAK=1 WR_BUILD=$(B) $(PYTHON) tests/run --no-fallbacks test_one_stream_lives_through_renewals

test-programs: all ## what tests/run needs: then WR_BUILD=build tests/run FILTER
	$(Q)$(MAKE) --no-print-directory test-binaries

unit: all ## the unit tests alone
	$(Q)$(MAKE) --no-print-directory $(UNIT)
	$(Q)r=0; for t in $(UNIT); do ./$$t || r=1; done; exit $$r

bench: test-programs ## tables of what it costs, and JSON under build/; TABLES=policy, proxy: only those
	$(Q)$(MAKE) --no-print-directory $(BENCH_TOOLS)
	$(Q)$(PYTHON) tests/bench/bench.py $(if $(TABLES),--tables=$(TABLES))

FUZZ_SECONDS ?= 60
fuzz: deps ## every fuzz target for FUZZ_SECONDS each
	$(Q)$(MAKE) --no-print-directory $(FUZZERS)
	$(Q)for f in $(FUZZERS); do n=$${f##*/fuzz_}; mkdir -p build/fuzz/corpus/$$n; \
		$$f -max_total_time=$(FUZZ_SECONDS) -print_final_stats=1 build/fuzz/corpus/$$n tests/fuzz/corpus/$$n || exit 1; done

mutants: deps ## small errors put into the policy compiler: each must be caught
	$(Q)$(PYTHON) tests/mutants/mutants.py

check: all ## layering, licence headers, wording, targets, README, format
	$(Q)for c in tests/check/*.py tests/check/*.sh; do [ ! -e $$c ] || ./$$c $(B) || exit 1; done

fmt: ## format the C sources
	@[ -n "$(CLANG_FORMAT)" ] || { echo "fmt: clang-format is missing: apt-get install clang-format-14" >&2; exit 1; }
	$(Q)find agent bpf include tests tools -name '*.[ch]' -print0 | xargs -0 $(CLANG_FORMAT) -i

install: all ## into $(DESTDIR)$(PREFIX)
	install -D -m 755 $(B)/warren-agent $(DESTDIR)$(PREFIX)/sbin/warren-agent
	install -D -m 755 $(B)/warrenctl $(DESTDIR)$(PREFIX)/sbin/warrenctl

clean: ## remove build/
	rm -rf build

# --- rules ---

.PHONY: binaries test-binaries demo-programs
binaries: $(BINARIES) ; @:
test-binaries: $(UNIT) $(BPF_TESTS) $(TEST_TOOLS) $(INTEROP_TOOLS) ; @:
demo-programs: $(BINARIES) $(TEST_TOOLS) ; @:

$(B)/%.o: %.c
	@mkdir -p $(@D)
	@[ -n "$(V)" ] || echo "  CC      $<"
	$(Q)$(CC) $(CPPFLAGS) $(ALL_CFLAGS) -MMD -MP -c $< -o $@

$(B)/llhttp/%.o: $(firstword $(dir $(LLHTTP_SRCS)))%.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) -std=gnu11 -w $(HARDEN) $(CFLAGS) $(SAN_FLAGS) $(LLHTTP_CFLAGS) -c $< -o $@

$(B)/libengine.a: $(ENGINE_OBJS)
	@[ -n "$(V)" ] || echo "  AR      $@"
	$(Q)rm -f $@ && ar rcs $@ $(ENGINE_OBJS)

$(B)/bpf/%.bpf.o: bpf/%.bpf.c $(wildcard bpf/lib/*.h include/abi/*.h vmlinux/*.h)
	@mkdir -p $(@D)
	@[ -n "$(V)" ] || echo "  BPF     $<"
	$(Q)$(CLANG) -g -O2 -target bpf -D__TARGET_ARCH_x86 -Wall -Werror -Iinclude -Ivmlinux -Ibpf -c $< -o $@
	$(Q)$(LLVM_STRIP) -g $@

$(B)/bpf/%.skel.h: $(B)/bpf/%.bpf.o
	$(Q)$(BPFTOOL) gen skeleton $< name $* > $@

$(CAPTURE_OBJS) $(CTL_OBJS): | $(SKELS)
$(patsubst tests/bpf/%.c,$(B)/tests/bpf/%.o,$(wildcard tests/bpf/*.c)): | $(SKELS)

$(B)/warren-agent: $(AGENT_OBJS) $(CAPTURE_OBJS) $(B)/libengine.a
	@[ -n "$(V)" ] || echo "  LD      $@"
	$(Q)$(CC) $(LDFLAGS) $^ $(LIBS_ENGINE) $(LIBS_AGENT) -o $@

$(B)/warrenctl: $(CTL_OBJS) $(CAPTURE_OBJS) $(B)/libengine.a
	@[ -n "$(V)" ] || echo "  LD      $@"
	$(Q)$(CC) $(LDFLAGS) $^ $(LIBS_ENGINE) $(LIBS_AGENT) -o $@

# Unit tests of agent/ files link those objects too; the archive drops what a test does not use.
$(B)/libagent.a: $(filter-out $(B)/agent/main.o,$(AGENT_OBJS)) $(CAPTURE_OBJS)
	$(Q)rm -f $@ && ar rcs $@ $^

$(B)/tests/unit/%: tests/unit/%.c $(B)/libagent.a $(B)/libengine.a
	@mkdir -p $(@D)
	@[ -n "$(V)" ] || echo "  TEST    $<"
	$(Q)$(CC) $(CPPFLAGS) $(ALL_CFLAGS) $(LDFLAGS) -MMD -MP -MF $@.d $< $(B)/libagent.a $(B)/libengine.a -lcmocka $(LIBS_ENGINE) $(LIBS_AGENT) -o $@

$(B)/tests/bpf/%: tests/bpf/%.c $(SKELS) $(CAPTURE_OBJS) $(B)/libengine.a
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(ALL_CFLAGS) $(LDFLAGS) -MMD -MP -MF $@.d $< $(CAPTURE_OBJS) $(B)/libengine.a -lcmocka $(LIBS_ENGINE) $(LIBS_AGENT) -o $@

$(B)/tests/interop/%: tests/interop/%.c $(B)/libengine.a
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(ALL_CFLAGS) $(LDFLAGS) -MMD -MP -MF $@.d $< $(B)/libengine.a $(LIBS_ENGINE) -o $@

$(B)/tests/traffic: $(wildcard tests/lib/traffic/*.[ch])
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(ALL_CFLAGS) $(LDFLAGS) $(filter %.c,$^) -lpthread -o $@

$(B)/bench/%: tests/bench/%.c $(B)/libengine.a
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(ALL_CFLAGS) $(LDFLAGS) -MMD -MP -MF $@.d $< $(B)/libengine.a $(LIBS_ENGINE) -o $@

# Fuzzers compile the engine with clang's sanitizers in one go: rarely built, so no objects are kept.
build/fuzz/%: tests/fuzz/%.c $(ENGINE_SRCS)
	@mkdir -p $(@D)
	@[ -n "$(V)" ] || echo "  FUZZ    $<"
	$(Q)$(CLANG) $(CPPFLAGS) -std=gnu11 -O1 -g -fsanitize=fuzzer,address,undefined $(LLHTTP_CFLAGS) $< $(ENGINE_SRCS) $(LLHTTP_SRCS) $(LIBS_ENGINE) -o $@

-include $(ENGINE_OBJS:.o=.d) $(AGENT_OBJS:.o=.d) $(CAPTURE_OBJS:.o=.d) $(CTL_OBJS:.o=.d)
-include $(addsuffix .d,$(UNIT) $(BPF_TESTS) $(INTEROP_TOOLS) $(BENCH_TOOLS))
