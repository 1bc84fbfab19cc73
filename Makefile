# The front door. The build itself is Meson's: everything below only calls it.
#
#   make            build                          make check    all tests, one line per behaviour
#   make check-interop  its longer part: programs of others against our host
#   make check-guest    what needs a guest in QEMU (emulated: no KVM is used)
#   make demo       the main job, on a live disk   make bench    measured against restic and qemu-img
#   make demo-hyperv   the same over WMI, as a Hyper-V host is backed up
#   make demo-vm    a real guest under libvirt: taken in, backed up, its disk service killed, restored, booted (root)
#   make soak       30 minutes of kills and power cuts (SOAK_SECONDS=, SOAK_SEED=; SOAK_DIR= of an earlier one: the next seeds)
#   make mutants    deliberate bugs, each of which must be noticed
#   make fuzz       a CPU hour for every parser, a sixth of it as it is now (FUZZ_CPU_SECONDS=; goes on where it was stopped)
#   make deps       install what is missing        make install  PREFIX=/usr/local DESTDIR=
#
# NO_DEPS=1 installs nothing and only tells what is missing. BUILD= names the build folder, MESON_ARGS= goes to meson setup.

BUILD ?= build
PREFIX ?= /usr/local
MESON_ARGS ?=
JOBS ?= 2

all: tell-deps
	@$(MAKE) --no-print-directory build

deps:
	@.ci/deps build check bench
tell-deps:
	@.ci/deps --tell build
need-build:
	@.ci/deps build
need-check:
	@.ci/deps build check

$(BUILD)/build.ninja:
	@meson setup $(BUILD) --prefix $(PREFIX) $(MESON_ARGS) >/dev/null || { meson setup $(BUILD) --prefix $(PREFIX) $(MESON_ARGS); exit 1; }

build: $(BUILD)/build.ninja
	@ninja -C $(BUILD)

check: need-check
	@$(MAKE) --no-print-directory build
	@tests/run $(BUILD) check

# Programs that we did not write against refpoint-hostd --lab: python3-winrm, curl, tshark, libvirt's requests.
check-interop: need-check
	@$(MAKE) --no-print-directory build
	@tests/run $(BUILD) interop

# With a real guest, which tests/guest/build makes of Debian's packages. Root, because its disks are mounted.
check-guest:
	@.ci/deps build check guest
	@$(MAKE) --no-print-directory build
	@tests/run $(BUILD) guest

# The slower sets: more seeds, larger images, every independent program.
check-slow: need-check
	@$(MAKE) --no-print-directory build
	@tests/run $(BUILD) slow

soak: need-check
	@$(MAKE) --no-print-directory build
	@tests/soak/run $(BUILD)

# make demo BREAK=tracker: the tracker forgets one write, and the demo must notice.
demo: need-check
	@$(MAKE) --no-print-directory build
	@demo/run $(BUILD) $(if $(BREAK),--break $(BREAK))

# The same by the wire of Hyper-V: WMI over WS-Management, exports, a mounted share, restores to the host.
demo-hyperv: need-check
	@$(MAKE) --no-print-directory build
	@demo/demo-hyperv $(BUILD)

# A guest of Debian's packages under libvirt's embedded driver and QEMU, without KVM.
demo-vm:
	@.ci/deps build check guest
	@$(MAKE) --no-print-directory build
	@demo/demo-vm $(BUILD)

# Each deliberate bug of tests/mutants/mutants.py must be noticed by the tests named beside it.
mutants: need-check
	@tests/mutants/run $(BUILD)

# Every parser of outside bytes under libFuzzer with sanitizers; findings are kept in $(BUILD)/fuzzing.
fuzz:
	@.ci/deps build ci
	@fuzz/campaign $(BUILD)/fuzzing

bench: deps
	@.ci/deps guest
	@$(MAKE) --no-print-directory build
	@bench/run $(BUILD) $(PARTS)

install: need-build
	@$(MAKE) --no-print-directory build
	@meson configure $(BUILD) -Dprefix=$(PREFIX)
	meson install -C $(BUILD) --quiet $(if $(DESTDIR),--destdir $(abspath $(DESTDIR)))

clean:
	rm -rf $(BUILD)

.PHONY: all deps tell-deps need-build need-check build check check-interop check-guest check-slow soak mutants fuzz demo demo-hyperv demo-vm bench install clean
