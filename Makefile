# libamp_token. The two commands for everything: `make demo` and `make test`.
#
#   make             the library, the command and the emulator, under build/
#   make demo        the main job, shown on the embedded emulator
#   make test        all tests
#   make bench       speed, side by side with other libraries (takes minutes)
#   make soak        MINUTES=10 SEED=: many processes and threads, with servers that misbehave
#   make install     PREFIX=/usr/local DESTDIR= LIBDIR=$(PREFIX)/lib
#   make uninstall
#   make header      rewrites include/amp_token.h after a change of src/capi/
#   make package     .deb, tarball and wheels, under build/packages/, for systems with glibc 2.17 or later
#   make sizes       measures sizes and start-up, and rewrites the table in README.md
#   make supply-chain  licences, versions and sources of what is linked in
#   make doxygen     the header as web pages, under build/doxygen/

VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
# The number in the library's name. It changes only when programs must be built again.
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

# Of `make soak`: how long, and the order of the faults (any number; random).
MINUTES = 10
SEED =

# What builds, how, and where that ends up: `make package` builds for older systems than this one.
CARGO = cargo
CARGO_FLAGS = --release
RELEASE = $(TARGET)/release
CC = cc
PYTHON = python3
CFLAGS = -O2 -g
INSTALL = install

TARGET := $(or $(CARGO_TARGET_DIR),target)
OUT = build
SO = libamp_token.so
WARNINGS = -Wall -Wextra -Wpedantic -Werror
LINK = -Iinclude -L$(OUT)/lib -Wl,-rpath,'$$ORIGIN/../lib' -lamp_token

all: library command

# The shared library under its full name, the two links that linker and loader look for, and the
# static library. Cargo decides itself whether there is anything to do. Only these two kinds: along with
# a Rust library, which cannot be optimized as a whole, cargo would not do it for them either.
library:
	@scripts/install-deps.sh cargo cc
	AMP_SONAME=$(SO).$(ABI) $(CARGO) rustc $(CARGO_FLAGS) --lib --crate-type cdylib,staticlib --features '$(SHIPPED) $(FEATURES)'
	@mkdir -p $(OUT)/lib
	@cp -p $(RELEASE)/libamp_token.a $(OUT)/lib/
	@cp -p $(RELEASE)/$(SO) $(OUT)/lib/$(SO).$(VERSION)
	@ln -sf $(SO).$(VERSION) $(OUT)/lib/$(SO).$(ABI)
	@ln -sf $(SO).$(ABI) $(OUT)/lib/$(SO)

command:
	@scripts/install-deps.sh cargo cc
	AMP_SONAME=$(SO).$(ABI) $(CARGO) build $(CARGO_FLAGS) --features 'cli,emulator,redis $(SHIPPED) $(FEATURES)' --bin amp-token
	@mkdir -p $(OUT)/bin
	@cp -p $(RELEASE)/amp-token $(OUT)/bin/

examples: library
	@scripts/install-deps.sh cc c++ curl curl-headers
	@mkdir -p $(OUT)/bin
	$(CC) -std=c99 -Wstrict-prototypes $(WARNINGS) $(CFLAGS) bindings/c/get_token.c -o $(OUT)/bin/get_token $(LINK)
	$(CC) -std=c99 -Wstrict-prototypes $(WARNINGS) $(CFLAGS) bindings/c/list_hubs.c -o $(OUT)/bin/list_hubs $(LINK) -lcurl
	$(CC) -std=c99 -Wstrict-prototypes $(WARNINGS) $(CFLAGS) bindings/c/upload_item.c -o $(OUT)/bin/upload_item $(LINK) -lcurl
	$(CXX) -std=c++11 $(WARNINGS) $(CFLAGS) bindings/cpp/publish.cpp -o $(OUT)/bin/publish -Ibindings/cpp $(LINK) -pthread
	$(CXX) -std=c++11 $(WARNINGS) $(CFLAGS) bindings/cpp/get_token.cpp -o $(OUT)/bin/get_token_cpp -Ibindings/cpp $(LINK)

demo: all examples
	@scripts/install-deps.sh python3 curl
	@scripts/with-emulator.sh $(OUT)/bin/amp-token scripts/demo.sh $(OUT)

test:
	@scripts/install-deps.sh cargo cc c++ nm abidiff curl curl-headers python3 python3-venv valgrind strace redis-server openssl tinyproxy make
	scripts/test.sh

bench: library command examples
	@scripts/install-deps.sh cargo cc curl jq curl-headers python3 python3-venv
	benches/run.py

soak: command
	@scripts/install-deps.sh cargo cc python3 redis-server
	@$(MAKE) --no-print-directory library FEATURES=redis OUT=$(OUT)/soak
	$(CC) -std=c99 -Wstrict-prototypes $(WARNINGS) $(CFLAGS) tests/soak/worker.c -o $(OUT)/soak/worker -Iinclude -L$(OUT)/soak/lib -lamp_token -pthread
	OUT=$(OUT)/soak MINUTES='$(MINUTES)' SEED='$(SEED)' tests/soak/soak.py $(OUT)/soak/lib $(OUT)/bin/amp-token $(OUT)/soak/worker

header:
	AMP_UPDATE_HEADER=1 $(CARGO) build

# What may stand in the way of a path with spaces is quoted; PREFIX may hold them.
install: all install-built

# What is built already, without asking cargo.
install-built:
	$(INSTALL) -d "$(DESTDIR)$(INCLUDEDIR)" "$(DESTDIR)$(LIBDIR)/pkgconfig" "$(DESTDIR)$(LIBDIR)/cmake/AmpToken" "$(DESTDIR)$(BINDIR)"
	$(INSTALL) -d "$(DESTDIR)$(DATADIR)/man/man1" "$(DESTDIR)$(DATADIR)/doc/libamp_token"
	$(INSTALL) -d "$(DESTDIR)$(DATADIR)/bash-completion/completions" "$(DESTDIR)$(DATADIR)/zsh/site-functions" "$(DESTDIR)$(DATADIR)/fish/vendor_completions.d"
	$(INSTALL) -m 644 include/amp_token.h bindings/cpp/amp_token.hpp "$(DESTDIR)$(INCLUDEDIR)/"
	$(INSTALL) -m 644 $(OUT)/lib/libamp_token.a "$(DESTDIR)$(LIBDIR)/"
	$(INSTALL) -m 755 $(OUT)/lib/$(SO).$(VERSION) "$(DESTDIR)$(LIBDIR)/"
	ln -sf $(SO).$(VERSION) "$(DESTDIR)$(LIBDIR)/$(SO).$(ABI)"
	ln -sf $(SO).$(ABI) "$(DESTDIR)$(LIBDIR)/$(SO)"
	sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@LIBDIR@|$(LIBDIR)|' -e 's|@INCLUDEDIR@|$(INCLUDEDIR)|' -e 's|@VERSION@|$(VERSION)|' packaging/amp_token.pc.in > "$(DESTDIR)$(LIBDIR)/pkgconfig/amp_token.pc"
	sed -e 's|@LIBDIR@|$(LIBDIR)|' -e 's|@INCLUDEDIR@|$(INCLUDEDIR)|' -e 's|@ABI@|$(ABI)|' packaging/AmpTokenConfig.cmake.in > "$(DESTDIR)$(LIBDIR)/cmake/AmpToken/AmpTokenConfig.cmake"
	sed -e 's|@VERSION@|$(VERSION)|' packaging/AmpTokenConfigVersion.cmake.in > "$(DESTDIR)$(LIBDIR)/cmake/AmpToken/AmpTokenConfigVersion.cmake"
	$(INSTALL) -m 755 $(OUT)/bin/amp-token "$(DESTDIR)$(BINDIR)/"
	$(OUT)/bin/amp-token generate man > "$(DESTDIR)$(DATADIR)/man/man1/amp-token.1"
	$(OUT)/bin/amp-token generate bash > "$(DESTDIR)$(DATADIR)/bash-completion/completions/amp-token"
	$(OUT)/bin/amp-token generate zsh > "$(DESTDIR)$(DATADIR)/zsh/site-functions/_amp-token"
	$(OUT)/bin/amp-token generate fish > "$(DESTDIR)$(DATADIR)/fish/vendor_completions.d/amp-token.fish"
	$(INSTALL) -m 644 README.md CHANGELOG.md LICENSE-MIT LICENSE-APACHE "$(DESTDIR)$(DATADIR)/doc/libamp_token/"

uninstall:
	rm -f "$(DESTDIR)$(INCLUDEDIR)/amp_token.h" "$(DESTDIR)$(INCLUDEDIR)/amp_token.hpp"
	rm -f "$(DESTDIR)$(LIBDIR)/libamp_token.a" "$(DESTDIR)$(LIBDIR)/$(SO)" "$(DESTDIR)$(LIBDIR)/$(SO).$(ABI)" "$(DESTDIR)$(LIBDIR)/$(SO).$(VERSION)"
	rm -f "$(DESTDIR)$(LIBDIR)/pkgconfig/amp_token.pc" "$(DESTDIR)$(BINDIR)/amp-token" "$(DESTDIR)$(DATADIR)/man/man1/amp-token.1"
	rm -f "$(DESTDIR)$(DATADIR)/bash-completion/completions/amp-token" "$(DESTDIR)$(DATADIR)/zsh/site-functions/_amp-token" "$(DESTDIR)$(DATADIR)/fish/vendor_completions.d/amp-token.fish"
	rm -rf "$(DESTDIR)$(LIBDIR)/cmake/AmpToken" "$(DESTDIR)$(DATADIR)/doc/libamp_token"

package:
	FEATURES='$(FEATURES)' packaging/package.sh

sizes: package
	scripts/sizes.py

supply-chain:
	"$$(packaging/tools.sh)/cargo-deny" check licenses bans sources

# A word of the header that Doxygen does not understand is an error.
doxygen:
	@scripts/install-deps.sh doxygen
	@mkdir -p $(OUT)
	doxygen packaging/Doxyfile

clean:
	rm -rf $(OUT)
	$(CARGO) clean

# Two runs of cargo write to the same places.
.NOTPARALLEL:

.PHONY: all library command examples demo test bench soak header install install-built uninstall package sizes supply-chain \
	doxygen clean
