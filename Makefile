# libamp_token. Start with `make demo`.
#
#   make             builds the library and the command under build/; needs cargo and a C compiler
#   make demo        builds them and shows what they do on the built-in emulator; installs nothing
#   make deps        installs the system packages for development (as root on Debian or Ubuntu; else lists them)
#   make test        runs all tests, after `make deps`
#   make install     PREFIX=/usr/local DESTDIR= LIBDIR=$(PREFIX)/lib
#   make uninstall   the same variables
#   make header      regenerates include/ after a change in src/capi/ or of a setting
#   make bench       BENCH_OUT=build/bench: compares the speed with other libraries; takes minutes
#   make scale       SCALE_OUT=build/scale: how cost grows with caches, threads, processes and machines; takes minutes
#   make soak        MINUTES=10 SEED=: many processes and threads, with servers that fail
#   make package     PACKAGES='deb wheel': .deb, .rpm, tarball, wheels, npm package and container image under build/packages/,
#                    for glibc 2.17 or later; by default all of them. PACKAGES=windows or macos: those for that system.
#                    ARCHITECTURES='x86_64 aarch64': by default only the first
#   make sizes       measures sizes and start-up times and updates the documentation; after `make package`
#   make deny        ADVISORIES=DIR: checks licences, versions and sources of the dependencies, and known vulnerabilities
#   make doxygen     the reference of the headers as HTML, under build/doxygen/
#   make docs        the documentation as a site with search, under build/site/
#   make clean       removes build/ and target/

VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
# The version of the ABI, in the name of the library. It changes only if programs must be recompiled.
ABI = 0

PREFIX = /usr/local
LIBDIR = $(PREFIX)/lib
BINDIR = $(PREFIX)/bin
INCLUDEDIR = $(PREFIX)/include
DATADIR = $(PREFIX)/share
DESTDIR =

# Cargo features of the library: `redis` adds the Redis store.
FEATURES =
# Those of every build here. All of its Rust code is the library's, so its memory is wiped before it is freed.
SHIPPED = zeroizing-allocator

# For `make soak`: the duration, and the seed of the order of faults (any number; default: random).
MINUTES = 10
SEED =

# For `make package`: the packages; packaging/package.sh has the list.
PACKAGES =
ARCHITECTURES =

# For `make deny`: the directory of a copy of RustSec's database of advisories, if there is one.
ADVISORIES =

# For `make bench`: the directory of the results. docs/bench holds the published ones.
BENCH_OUT = build/bench

# For `make scale`: the directory of the page. docs holds the published one.
SCALE_OUT = build/scale

# The build command, its options and its output: `make package` changes them to build for older systems.
CARGO = cargo
CARGO_FLAGS = --release
# What runs the command during an installation, if it is built for another processor: an emulator of that.
RUN =
# Where cargo puts the results, within its directory.
BUILT = release
CC = cc
PYTHON = python3
CFLAGS = -O2 -g
INSTALL = install

TARGET := $(or $(CARGO_TARGET_DIR),target)
# Cargo's directory for the library. A build of the command also makes a library, with other features and under the same
# name: in one directory, each would let cargo build the other again, with minutes of link-time optimization.
LIBRARY_TARGET = $(TARGET)/library
OUT = build

# The system that the library is for: the name that programs are linked with, the one that they load, the file, what the
# library calls itself until it is installed and then, and what a program needs that is linked with the static library.
SYSTEM := $(shell uname -s)
ifeq ($(SYSTEM),Darwin)
SO = libamp_token.dylib
SONAME = libamp_token.$(ABI).dylib
SOFILE = libamp_token.$(VERSION).dylib
BUILD_SONAME = @rpath/$(SONAME)
INSTALL_NAME = $(LIBDIR)/$(SONAME)
RUNPATH = @loader_path/../lib
STATIC_LIBS = -framework Security -framework CoreFoundation
else
SO = libamp_token.so
SONAME = $(SO).$(ABI)
SOFILE = $(SO).$(VERSION)
BUILD_SONAME = $(SONAME)
INSTALL_NAME = $(SONAME)
RUNPATH = $$ORIGIN/../lib
STATIC_LIBS = -lgcc_s -lutil -lrt -lpthread -lm -ldl -lc
endif
WARNINGS = -Wall -Wextra -Wpedantic -Werror
LINK = -Iinclude -L$(OUT)/lib -Wl,-rpath,'$(RUNPATH)' -lamp_token

all: library command

# Installs what `make test` needs.
deps:
	scripts/install-deps.sh

# The shared library under its full name, the two links that the linker and the loader look for, and the static
# library. Cargo decides whether anything must be built. Only these two crate types: with a Rust library among
# them, cargo would not apply link-time optimization to the others. What a running program has loaded is not overwritten.
library:
	@scripts/install-deps.sh --check cargo cc
	CARGO_TARGET_DIR=$(LIBRARY_TARGET) AMP_SONAME=$(BUILD_SONAME) $(CARGO) rustc $(CARGO_FLAGS) --lib --crate-type cdylib,staticlib --features '$(SHIPPED) $(FEATURES)'
	@mkdir -p $(OUT)/lib
	@rm -f $(OUT)/lib/$(SOFILE)
	@cp -p $(LIBRARY_TARGET)/$(BUILT)/libamp_token.a $(OUT)/lib/
	@cp -p $(LIBRARY_TARGET)/$(BUILT)/$(SO) $(OUT)/lib/$(SOFILE)
	@ln -sf $(SOFILE) $(OUT)/lib/$(SONAME)
	@ln -sf $(SONAME) $(OUT)/lib/$(SO)

command:
	@scripts/install-deps.sh --check cargo cc
	AMP_SONAME=$(BUILD_SONAME) $(CARGO) build $(CARGO_FLAGS) --features 'cli,emulator,redis,serve $(SHIPPED) $(FEATURES)' --bin amp-token
	@mkdir -p $(OUT)/bin
	@rm -f $(OUT)/bin/amp-token
	@cp -p $(TARGET)/$(BUILT)/amp-token $(OUT)/bin/

# The examples. Those that need libcurl or a C++ compiler are left out where that is missing.
examples: library
	@mkdir -p $(OUT)/bin
	$(CC) -std=c99 -Wstrict-prototypes $(WARNINGS) $(CFLAGS) bindings/c/get_token.c -o $(OUT)/bin/get_token $(LINK)
ifneq ($(shell printf '\043include <curl/curl.h>\n' | $(CC) -E - >/dev/null 2>&1 && echo yes),)
	$(CC) -std=c99 -Wstrict-prototypes $(WARNINGS) $(CFLAGS) bindings/c/list_hubs.c -o $(OUT)/bin/list_hubs $(LINK) -lcurl
	$(CC) -std=c99 -Wstrict-prototypes $(WARNINGS) $(CFLAGS) bindings/c/upload_item.c -o $(OUT)/bin/upload_item $(LINK) -lcurl
	$(CC) -std=c99 -Wstrict-prototypes $(WARNINGS) $(CFLAGS) bindings/c/curl_transport.c -o $(OUT)/bin/curl_transport $(LINK) -lcurl
else
	@echo "left out: list_hubs.c, upload_item.c and curl_transport.c, because libcurl's headers are not installed"
endif
ifneq ($(shell command -v $(CXX)),)
	$(CXX) -std=c++11 $(WARNINGS) $(CFLAGS) bindings/cpp/publish.cpp -o $(OUT)/bin/publish -Ibindings/cpp $(LINK) -pthread
	$(CXX) -std=c++11 $(WARNINGS) $(CFLAGS) bindings/cpp/get_token.cpp -o $(OUT)/bin/get_token_cpp -Ibindings/cpp $(LINK)
else
	@echo "left out: the C++ examples, because $(CXX) is not installed"
endif

demo:
	@scripts/demo.sh $(OUT)

test: deps
	scripts/test.sh

bench:
	@scripts/install-deps.sh cargo cc curl jq curl-headers python3 python3-venv
	@$(MAKE) --no-print-directory library command
	benches/run.py --out '$(BENCH_OUT)'

scale:
	@scripts/install-deps.sh cargo cc curl jq curl-headers python3 redis-server
	@$(MAKE) --no-print-directory library command
	benches/scale.py --out '$(SCALE_OUT)'

soak: command
	@scripts/install-deps.sh cargo cc python3 redis-server
	@$(MAKE) --no-print-directory library FEATURES=redis OUT=$(OUT)/soak
	$(CC) -std=c99 -Wstrict-prototypes $(WARNINGS) $(CFLAGS) tests/soak/worker.c -o $(OUT)/soak/worker -Iinclude -L$(OUT)/soak/lib -lamp_token -pthread
	OUT=$(OUT)/soak MINUTES='$(MINUTES)' SEED='$(SEED)' tests/soak/soak.py $(OUT)/soak/lib $(OUT)/bin/amp-token $(OUT)/soak/worker

header:
	AMP_UPDATE_HEADER=1 $(CARGO) test --quiet --test header -- the_header_matches the_declarations the_description

install: all install-built

# Installs what is built already, without cargo. The paths are quoted because PREFIX may contain spaces.
install-built: install-metadata
	$(INSTALL) -d "$(DESTDIR)$(INCLUDEDIR)" "$(DESTDIR)$(LIBDIR)" "$(DESTDIR)$(BINDIR)"
	$(INSTALL) -d "$(DESTDIR)$(DATADIR)/man/man1" "$(DESTDIR)$(DATADIR)/doc/libamp_token"
	$(INSTALL) -d "$(DESTDIR)$(DATADIR)/bash-completion/completions" "$(DESTDIR)$(DATADIR)/zsh/site-functions" "$(DESTDIR)$(DATADIR)/fish/vendor_completions.d"
	$(INSTALL) -m 644 include/amp_token.h include/amp_token.i include/amp_token.json bindings/cpp/amp_token.hpp "$(DESTDIR)$(INCLUDEDIR)/"
	$(INSTALL) -m 644 $(OUT)/lib/libamp_token.a "$(DESTDIR)$(LIBDIR)/"
	$(INSTALL) -m 755 $(OUT)/lib/$(SOFILE) "$(DESTDIR)$(LIBDIR)/"
ifneq ($(INSTALL_NAME),$(BUILD_SONAME))
	install_name_tool -id "$(INSTALL_NAME)" "$(DESTDIR)$(LIBDIR)/$(SOFILE)"
endif
	ln -sf $(SOFILE) "$(DESTDIR)$(LIBDIR)/$(SONAME)"
	ln -sf $(SONAME) "$(DESTDIR)$(LIBDIR)/$(SO)"
	$(INSTALL) -m 755 $(OUT)/bin/amp-token "$(DESTDIR)$(BINDIR)/"
	$(RUN) $(OUT)/bin/amp-token man > "$(DESTDIR)$(DATADIR)/man/man1/amp-token.1"
	$(RUN) $(OUT)/bin/amp-token completions bash > "$(DESTDIR)$(DATADIR)/bash-completion/completions/amp-token"
	$(RUN) $(OUT)/bin/amp-token completions zsh > "$(DESTDIR)$(DATADIR)/zsh/site-functions/_amp-token"
	$(RUN) $(OUT)/bin/amp-token completions fish > "$(DESTDIR)$(DATADIR)/fish/vendor_completions.d/amp-token.fish"
	$(INSTALL) -m 644 README.md CHANGELOG.md LICENSE-MIT LICENSE-APACHE docs/testing-your-program.md "$(DESTDIR)$(DATADIR)/doc/libamp_token/"
	$(INSTALL) -m 644 tests/emulator/README.md "$(DESTDIR)$(DATADIR)/doc/libamp_token/emulator.md"
	@packaging/ldconfig.sh "$(DESTDIR)" "$(LIBDIR)" $(SONAME)

# What pkg-config and CMake read.
install-metadata:
	$(INSTALL) -d "$(DESTDIR)$(LIBDIR)/pkgconfig" "$(DESTDIR)$(LIBDIR)/cmake/AmpToken"
	sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@LIBDIR@|$(LIBDIR)|' -e 's|@INCLUDEDIR@|$(INCLUDEDIR)|' -e 's|@VERSION@|$(VERSION)|' -e 's|@STATIC_LIBS@|$(STATIC_LIBS)|' packaging/amp_token.pc.in > "$(DESTDIR)$(LIBDIR)/pkgconfig/amp_token.pc"
	sed -e 's|@LIBDIR@|$(LIBDIR)|' -e 's|@INCLUDEDIR@|$(INCLUDEDIR)|' -e 's|@SO@|$(SO)|' -e 's|@SONAME@|$(INSTALL_NAME)|' -e 's|@STATIC_LIBS@|$(STATIC_LIBS)|' packaging/AmpTokenConfig.cmake.in > "$(DESTDIR)$(LIBDIR)/cmake/AmpToken/AmpTokenConfig.cmake"
	sed -e 's|@VERSION@|$(VERSION)|' packaging/AmpTokenConfigVersion.cmake.in > "$(DESTDIR)$(LIBDIR)/cmake/AmpToken/AmpTokenConfigVersion.cmake"

uninstall:
	rm -f "$(DESTDIR)$(INCLUDEDIR)/amp_token.h" "$(DESTDIR)$(INCLUDEDIR)/amp_token.i" "$(DESTDIR)$(INCLUDEDIR)/amp_token.json" "$(DESTDIR)$(INCLUDEDIR)/amp_token.hpp"
	rm -f "$(DESTDIR)$(LIBDIR)/libamp_token.a" "$(DESTDIR)$(LIBDIR)/$(SO)" "$(DESTDIR)$(LIBDIR)/$(SONAME)" "$(DESTDIR)$(LIBDIR)/$(SOFILE)"
	rm -f "$(DESTDIR)$(LIBDIR)/pkgconfig/amp_token.pc" "$(DESTDIR)$(BINDIR)/amp-token" "$(DESTDIR)$(DATADIR)/man/man1/amp-token.1"
	rm -f "$(DESTDIR)$(DATADIR)/bash-completion/completions/amp-token" "$(DESTDIR)$(DATADIR)/zsh/site-functions/_amp-token" "$(DESTDIR)$(DATADIR)/fish/vendor_completions.d/amp-token.fish"
	rm -rf "$(DESTDIR)$(LIBDIR)/cmake/AmpToken" "$(DESTDIR)$(DATADIR)/doc/libamp_token"

package:
ifneq ($(filter windows macos,$(PACKAGES)),)
	FEATURES='$(FEATURES)' packaging/$(PACKAGES).sh
else
	@FEATURES='$(FEATURES)' PACKAGES='$(PACKAGES)' ARCHITECTURES='$(ARCHITECTURES)' packaging/package.sh
endif

sizes: package
	scripts/sizes.py

deny:
	@packaging/deny.sh '$(ADVISORIES)'

# The old name.
supply-chain: deny

# Warnings of Doxygen are errors.
doxygen:
	@scripts/install-deps.sh doxygen
	@mkdir -p $(OUT)
	doxygen packaging/Doxyfile

# README, docs/ and the references of C, C++ and Python. A warning of MkDocs or a broken link is an error.
docs:
	@scripts/install-deps.sh python3 python3-venv
	PYTHON='$(PYTHON)' scripts/docs.sh

clean:
	rm -rf $(OUT)
	$(CARGO) clean

# Several runs of cargo write to the same files.
.NOTPARALLEL:

.PHONY: all deps library command examples demo test bench scale soak header install install-built install-metadata uninstall package sizes \
	deny supply-chain doxygen docs clean
