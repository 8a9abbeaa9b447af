#!/usr/bin/env python3
"""sizes.py [TABLE…]: measures what is shipped, and what it is made of; rewrites the tables of docs/binary-size.md, or those
that are named.

Run by `make sizes`, after `make package`. Builds the library many times, in its own target directory: about ten minutes.
"""

import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections import Counter
from operator import truediv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
os.chdir(ROOT)
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", "target")).resolve() / "sizes"
START = ROOT / "build/sizes/startup"
ARCHITECTURES = [name for name in ("x86_64", "aarch64") if (ROOT / f"build/packages-{name}/bin/amp-token").exists()]
SHIPPED = ROOT / "build/packages-x86_64"
COMMAND_FEATURES = "cli,emulator,redis,serve"
PACKAGES = ROOT / "build/packages"
SYSTEM_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
# In the names of packages.
ALIASES = {"x86_64": "x86_64|amd64", "aarch64": "aarch64|arm64"}
STANDARD = {"std", "core", "alloc"}
# The feature of all that is shipped, as the Makefile has it.
SHIPPED_FEATURE = "zeroizing-allocator"


def run(*command, **environment):
    done = subprocess.run(command, env={**os.environ, **environment}, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout


def cargo(*arguments, **settings):
    """Builds, and returns the time in seconds. The settings are those of the release profile."""
    environment = {f"CARGO_PROFILE_RELEASE_{name.upper()}": value for name, value in settings.items() if name != "flags"}
    start = time.monotonic()
    run("cargo", *arguments, "--release", "--quiet", CARGO_TARGET_DIR=str(TARGET), RUSTFLAGS=settings.get("flags", ""),
        **environment)  # fmt: skip
    return time.monotonic() - start


def library(features="", **settings):
    cargo("rustc", "--lib", "--crate-type", "cdylib", "--features", f"{SHIPPED_FEATURE} {features}",
          **settings)  # fmt: skip
    return TARGET / "release/libamp_token.so"


def once(*command):
    """What startup.c prints: nanoseconds or bytes."""
    done = subprocess.run([*map(str, command)], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    return float(done.stderr)


def median(times, *command):
    return statistics.median(once(*command) for _ in range(times))


def kilobytes(size):
    return f"{(size.stat().st_size if isinstance(size, Path) else size) / 1000:,.0f} kB"


def milliseconds(nanoseconds):
    return f"{nanoseconds / 1e6:.2f} ms"


def table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(map(str, line)) + " |\n" for line in lines)


def shipped():
    """The sizes and times of what is shipped."""
    files = {"the shared library": "lib/libamp_token.so", "the static library": "lib/libamp_token.a", "the command": "bin/amp-token"}
    rows = {what: {arch: ROOT / f"build/packages-{arch}" / path for arch in ARCHITECTURES} for what, path in files.items()}
    for package in sorted(PACKAGES.iterdir()):
        if package.name == "SHA256SUMS" or package.suffix == ".json":
            continue
        # The same package for several architectures is one row; one that is for all of them has one size.
        name = re.sub("|".join(ALIASES.values()), "…", package.name)
        of = [arch for arch in ARCHITECTURES if re.search(ALIASES[arch], package.name)]
        rows.setdefault(f"`{name}`", {}).update(dict.fromkeys(of or ARCHITECTURES[:1], package))
    sizes = [[what, *(kilobytes(row[arch]) if arch in row else "" for arch in ARCHITECTURES)] for what, row in rows.items()]
    so, command = SHIPPED / "lib/libamp_token.so", SHIPPED / "bin/amp-token"
    times = [
        ["`dlopen` and `amp_version()`", milliseconds(median(201, START, "load", so))],
        ["`amp-token --version`, from start to end", milliseconds(median(201, START, "run", command, "--version"))],
        ["`true`, from start to end, for comparison", milliseconds(median(201, START, "run", "true"))],
    ]
    return table(["file", *ARCHITECTURES], sizes) + "\n" + table(["what, on x86-64", "measured"], times)


def linkage():
    """The command as it is shipped, linked statically with musl, beside one for this machine's glibc, and a program that
    requests a token with the oauth2 crate."""
    cargo("build", "--bin", "amp-token", "--features", f"{SHIPPED_FEATURE},{COMMAND_FEATURES}")
    cargo("build", "--manifest-path", "benches/peers/native/Cargo.toml", "--bin", "oauth2_rwlock")
    commands = [SHIPPED / "bin/amp-token", TARGET / "release/amp-token", TARGET / "release/oauth2_rwlock"]
    measured = run("scripts/with-emulator.sh", str(commands[0]), "--tls", "scripts/sizes.py", "--with-system-store", *map(str, commands))
    sizes = ["size", *map(kilobytes, commands), *(f"{commands[0].stat().st_size / other.stat().st_size:.2f}" for other in commands[1:])]
    head = ["the command", "static, musl", "glibc", "`oauth2` crate", "static : glibc", "static : crate"]
    return table(head, [sizes, *json.loads(measured)])


def with_system_store(*commands):
    """Goes on as compare(), where the system's bundle has the emulator's certificate."""
    bundle = START.parent / "bundle.pem"
    bundle.write_text(SYSTEM_BUNDLE.read_text() + Path(os.environ["AMPLIENCE_CA_FILE"]).read_text())
    mount = f"mount --bind {bundle} {SYSTEM_BUNDLE} && exec \"$0\" \"$@\""
    os.execvp("unshare", ["unshare", "--mount", "--map-root-user", "sh", "-c", mount, sys.argv[0], "--compare", *commands])


def compare(static, glibc, crate):
    """In the environment of an emulator: one after the other, many times. The crate's program trusts one certificate,
    because the roots that could be built into it do not include the emulator's."""
    for name in ("CLIENT_ID", "CLIENT_SECRET", "AUTH_URL", "CA_FILE"):
        os.environ[name] = os.environ[f"AMPLIENCE_{name}"]
    del os.environ["AMPLIENCE_CA_FILE"]
    version, get = ["--version"], ["get", "--store", "none"]
    rows = []
    for what, mode, commands, shown in (
        ("`amp-token --version`, from start to end", "run", [[static, *version], [glibc, *version]], milliseconds),
        ("a token over HTTPS, from start to end", "run", [[static, *get], [glibc, *get], [crate]], milliseconds),
        ("the most memory of that", "memory", [[static, *get], [glibc, *get], [crate]], kilobytes),
    ):
        rounds = [[once(START, mode, *command) for command in commands] for _ in range(101)]
        columns = list(zip(*rounds, strict=True))
        medians = [shown(statistics.median(column)) for column in columns]
        ratios = [f"{statistics.median(map(truediv, columns[0], column)):.2f}" for column in columns[1:]]
        blank = [""] * (3 - len(columns))
        rows.append([what, *medians, *blank, *ratios, *blank])
    print(json.dumps(rows))


def sections(so):
    found = re.findall(r"\] (\.\S+)\s+\S+\s+\S+\s+\S+\s+([0-9a-f]+)", run("readelf", "-SW", str(so)))
    return {name: int(size, 16) for name, size in found}


def weights():
    """The size of the code by crate, from the symbols of a library that is not stripped; then everything else."""
    so = library(strip="none", flags="-C symbol-mangling-version=v0")
    code = Counter()
    for line in run("nm", "-C", "-S", "--defined-only", str(so)).splitlines():
        match = re.match(r"[0-9a-f]+ ([0-9a-f]+) [tTwW] (.*)", line)
        if not match:
            continue
        size, name = int(match[1], 16), match[2]
        names = re.findall(r"(?<![\w:])([a-z_][a-z0-9_]*)(?=::)", name)
        # A generic function of the standard library counts for the crate in its type arguments.
        crate = next((crate for crate in names if crate not in STANDARD), "the standard library" if names else None)
        if name.startswith("ring_core_"):
            crate = "ring"
        elif name.startswith("amp_"):
            crate = "amp_token"
        code[crate or "symbols that are not Rust's"] += size
    parts = sections(so)
    rest = parts[".text"] - sum(code.values())
    few = {name: size for name, size in code.items() if size < 8000}
    rows = [[f"`{name}`" if " " not in name else name, kilobytes(size)] for name, size in code.most_common() if name not in few]
    rows.append([f"{len(few)} more crates", kilobytes(sum(few.values()))])
    if rest > 0:
        rows.append(["code without a symbol", kilobytes(rest)])
    unwind = sum(parts.get(name, 0) for name in (".eh_frame", ".eh_frame_hdr", ".gcc_except_table"))
    rows += [
        ["constants, tables and strings (`.rodata`, `.data.rel.ro`)", kilobytes(parts[".rodata"] + parts[".data.rel.ro"])],
        ["relocations", kilobytes(parts[".rela.dyn"])],
        ["unwind tables, which stop a panic at the C boundary", kilobytes(unwind)],
    ]
    found = [name for name in code if re.match(r"clap|amp_emulator|rsa|rcgen|hyper|tokio|prometheus", name)]
    presence = "none" if not found else "FOUND: " + ", ".join(found)
    rows.append(["`clap`, `amp_emulator`, `hyper`, `tokio` and their dependencies", presence])
    return table(["part of the shared library", "size"], rows)


def features():
    rows = []
    for names in ("cli", "cli,redis", "cli,emulator,redis", COMMAND_FEATURES):
        cargo("build", "--bin", "amp-token", "--features", f"{SHIPPED_FEATURE} {names}")
        rows.append([f"`{names}`", kilobytes(TARGET / "release/amp-token")])
    redis = kilobytes(library("cli,redis"))
    both = kilobytes(library("cli,emulator"))
    plain = kilobytes(library())
    return table(["the command, built with", "size"], rows) + "\n" + table(
        ["the shared library, built with", "size"],
        [["no further feature, as shipped", plain], ["`cli,emulator`", both], ["`cli,redis`", redis]],
    )  # fmt: skip


def choices():
    rows = []
    for level in ("s", "z", "3"):
        for lto in ("fat", "thin"):
            start = time.monotonic()
            so = library(opt_level=level, lto=lto)
            took = time.monotonic() - start
            get = median(5, "scripts/with-emulator.sh", SHIPPED / "bin/amp-token", START, "get", so)
            rows.append([f"`{level}`", lto, kilobytes(so), milliseconds(median(101, START, "load", so)), f"{get:.0f} ns"])
            print(rows[-1], f"built in {took:.0f} s", flush=True)
    return table(["`opt-level`", "`lto`", "shared library", "`dlopen`", "a cached get, copied"], rows)


def between(path, marker, text):
    """Replaces the text between <!-- marker: … --> and <!-- end of marker -->."""
    file = ROOT / path
    kept = re.sub(
        rf"(<!-- {marker}:[^>]*-->\n).*?(<!-- end of {marker} -->)",
        lambda match: match[1] + text + match[2],
        file.read_text(),
        flags=re.DOTALL,
    )
    file.write_text(kept)


TABLES = {"sizes": shipped, "linkage": linkage, "weights": weights, "features": features, "choices": choices}


def main(names):
    START.parent.mkdir(parents=True, exist_ok=True)
    run("cc", "-O2", "-Wall", "-Wextra", "-Iinclude", "benches/startup.c", "-o", str(START), "-ldl")
    for name in names or TABLES:
        between("docs/binary-size.md", name, TABLES[name]())


if __name__ == "__main__":
    # The certificates of this system are where they are on a user's machine.
    for variable in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        os.environ.pop(variable, None)
    if sys.argv[1:2] == ["--compare"]:
        compare(*sys.argv[2:])
    elif sys.argv[1:2] == ["--with-system-store"]:
        with_system_store(*sys.argv[2:])
    else:
        main(sys.argv[1:])
