#!/usr/bin/env python3
"""sbom.py: lists the crates that are linked into a binary, as cargo resolves them.

    sbom.py sbom|notices|copyright FEATURES [TARGET] >FILE

``sbom`` writes a bill of materials (CycloneDX 1.5, JSON), ``notices`` the licence texts that must accompany a
binary, ``copyright`` the copyright file of a Debian package. FEATURES are the cargo features of the binary, or "";
TARGET is the target of rustc. A command for musl is linked with it statically: then musl is listed, too.
The output depends only on Cargo.lock, the crates and SOURCE_DATE_EPOCH.
"""

import datetime
import json
import os
import re
import subprocess
import sys
import tomllib
import uuid
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LICENCE_FILE = re.compile(r"(LICEN[CS]E|COPYING|NOTICE|COPYRIGHT|UNLICENSE)", re.IGNORECASE)
# If a crate offers several licences, the first of these is used.
PREFERRED = ["Apache-2.0", "MIT", "ISC", "BSD-3-Clause"]


def cargo(*arguments):
    command = [os.environ.get("CARGO", "cargo"), *arguments, "--locked"]
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


class Crate:
    def __init__(self, package, checksum):
        self.name, self.version, self.checksum = package["name"], package["version"], checksum
        self.dir = Path(package["manifest_path"]).parent
        self.repository, self.authors = package["repository"], package["authors"]
        self.ours = package["source"] is None
        self.licence = re.sub(r"\s*/\s*", " OR ", package["license"] or "")
        if not self.licence:
            sys.exit(f"{self.title} names no licence")

    @property
    def title(self):
        return f"{self.name} {self.version}"

    @property
    def purl(self):
        return f"pkg:cargo/{self.name}@{self.version}"

    def texts(self):
        """Its licence files: (name, text). For a crate of this repository they are in the top directory."""
        directory = ROOT if self.ours else self.dir
        files = sorted(file for file in directory.iterdir() if file.is_file() and LICENCE_FILE.match(file.name))
        return [(file.name, file.read_text("utf-8", "replace").replace("\r\n", "\n").strip("\n")) for file in files]

    def taken(self):
        """The licences that are used: one of each choice."""
        taken = []
        for part in self.licence.replace("(", "").replace(")", "").split(" AND "):
            choices = part.split(" OR ")
            chosen = next((licence for licence in PREFERRED if licence in choices), None)
            if chosen is None:
                sys.exit(f"{self.title}: none of {choices} is among {PREFERRED}, for which packages have texts")
            taken.append(chosen)
        return taken

    def copyrights(self):
        """The copyright lines of its licence files."""
        lines = []
        for _, text in self.texts():
            for line in text.splitlines():
                match = re.match(r"\W*Copyright\s+(?:\(c\)|©)?\s*(\d.*)", line, re.IGNORECASE)
                if match and match[1].strip(" .*") not in lines:
                    lines.append(match[1].strip(" .*"))
        # The text of Apache-2.0 has no copyright line.
        return lines or self.authors or [f"the {self.name} authors"]


class Musl:
    """The C library in a command that is linked statically: the one that Rust carries. zig has its sources, and the licence."""

    name, version, licence = "musl", "1.2.5", "MIT"

    def __init__(self, target):
        sysroot = Path(subprocess.run(["rustc", "--print", "sysroot"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip())
        archive = sysroot / "lib/rustlib" / target / "lib/self-contained/libc.a"
        if f"{self.version}\0".encode() not in archive.read_bytes():
            sys.exit(f"Rust's musl is not {self.version} any more: {archive}")
        tools = Path(subprocess.run([ROOT / "packaging/tools.sh"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip())
        (directory,) = tools.parent.glob("lib/python3*/site-packages/ziglang/lib/libc/musl")
        if f'"{self.version}"' not in (directory / "src/internal/version.h").read_text():
            sys.exit(f"zig's musl is not {self.version} any more")
        self.text = (directory / "COPYRIGHT").read_text("utf-8").strip("\n")

    @property
    def title(self):
        return f"{self.name} {self.version}"

    def copyrights(self):
        return re.findall(r"Copyright © (.*)", self.text)[:1]


def musl_of(features, target):
    """Shared libraries use the system's musl."""
    return Musl(target) if "musl" in target and "cli" in features.split(",") else None


def linked(features, target):
    """The crates that are compiled into the binary, sorted, and their dependencies."""
    tree = cargo("tree", "-p", "amp_token", "-e", "normal,no-proc-macro", "--target", target,
                 "--features", features, "--prefix", "none", "-f", "{p}")  # fmt: skip
    wanted = {tuple(line.split()[:2]) for line in tree.splitlines() if line}
    metadata = json.loads(cargo("metadata", "--format-version", "1", "--features", features))
    lock = tomllib.loads((ROOT / "Cargo.lock").read_text())
    sums = {(package["name"], package["version"]): package.get("checksum") for package in lock["package"]}
    crates = {}
    for package in metadata["packages"]:
        key = package["name"], package["version"]
        if (key[0], "v" + key[1]) in wanted:
            crates[package["id"]] = Crate(package, sums[key])
    if len(crates) != len(wanted):
        sys.exit(f"cargo tree names {len(wanted)} crates, and cargo metadata knows {len(crates)} of them")
    needs = {}
    for node in metadata["resolve"]["nodes"]:
        if node["id"] in crates:
            normal = [need["pkg"] for need in node["deps"] if any(kind["kind"] is None for kind in need["dep_kinds"])]
            needs[crates[node["id"]].purl] = sorted(crates[pkg].purl for pkg in normal if pkg in crates)
    return sorted(crates.values(), key=lambda crate: (crate.name, crate.version)), needs


def rust_version():
    return subprocess.run(["rustc", "--version"], check=True, stdout=subprocess.PIPE, text=True).stdout.split()[1]


def sbom(crates, needs, musl):
    def component(crate):
        entry = {
            "type": "library",
            "bom-ref": crate.purl,
            "name": crate.name,
            "version": crate.version,
            "purl": crate.purl,
            "licenses": [{"expression": crate.licence}],
        }
        if crate.checksum:
            entry["hashes"] = [{"alg": "SHA-256", "content": crate.checksum}]
        if crate.repository:
            entry["externalReferences"] = [{"type": "vcs", "url": crate.repository}]
        return entry

    rust = {
        "type": "library",
        "bom-ref": "rust-std",
        "name": "rust-std",
        "version": rust_version(),
        "description": "The Rust standard library",
        "licenses": [{"expression": "MIT OR Apache-2.0"}],
    }
    system = [rust]
    if musl:
        system.append(
            {
                "type": "library",
                "bom-ref": "musl",
                "name": musl.name,
                "version": musl.version,
                "description": "The C library, linked statically",
                "licenses": [{"expression": musl.licence}],
            }
        )
    main = next(crate for crate in crates if crate.name == "amp_token")
    made = datetime.datetime.fromtimestamp(int(os.environ.get("SOURCE_DATE_EPOCH", 0)), datetime.timezone.utc)
    bill = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"timestamp": made.strftime("%Y-%m-%dT%H:%M:%SZ"), "component": component(main)},
        "components": [component(crate) for crate in crates if crate is not main] + system,
        "dependencies": [{"ref": ref, "dependsOn": [*needed, *(part["bom-ref"] for part in system)]} for ref, needed in sorted(needs.items())],
    }
    # The same contents have the same serial number.
    bill["serialNumber"] = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(bill, sort_keys=True)).urn
    return json.dumps(bill, indent=2) + "\n"


def notices(crates, _, musl):
    """Each text once, after the names of the crates that it applies to."""
    holders = {}
    without = []
    for crate in crates:
        if crate.ours:
            continue
        texts = crate.texts()
        if not texts:
            without.append(crate)
        for _, text in texts:
            holders.setdefault(text, []).append(crate.title)
    if musl:
        holders[musl.text] = [musl.title]
    parts = [
        "The binaries of libamp_token contain third-party code under the following licences.\n\n"
        f"The Rust standard library {rust_version()}: copyright the Rust project's contributors, MIT OR Apache-2.0;\n"
        "compiler runtime and unwinder of the LLVM project: Apache-2.0 WITH LLVM-exception.\n"
        + "".join(
            f"{crate.title}: {', '.join(crate.copyrights())}; {crate.licence}, whose text is below\n" for crate in without
        )
    ]
    for text, names in sorted(holders.items(), key=lambda item: item[1]):
        parts.append(", ".join(sorted(set(names))) + "\n\n" + text + "\n")
    return ("\n" + "-" * 78 + "\n\n").join(parts)


def copyright(crates, _, musl):
    """In Debian's machine-readable format. Third-party sources have the paths of cargo's registry directory."""

    def indented(text):
        return "".join(f" {line.rstrip() or '.'}\n" for line in text.splitlines())

    def stanza(files, owners, licence):
        return f"Files: {files}\nCopyright: " + "\n ".join(owners) + f"\nLicense: {licence}\n"

    ours = next(crate for crate in crates if crate.name == "amp_token")
    others = [crate for crate in crates if not crate.ours]
    parts = [
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n"
        "Upstream-Name: libamp_token\n"
        "Comment: Third-party sources are crates that are linked in; each file name here starts with the name\n"
        " and version of the crate. If a crate may be used under one of several licences, the one that is used\n"
        " is named. Their own texts are in third-party-notices.gz next to this file.\n",
        stanza("*", ours.copyrights(), "MIT or Apache-2.0"),
    ]
    if musl:
        parts.append(stanza(f"musl-{musl.version}/*", musl.copyrights(), musl.licence))
    bodies = {}
    for crate in others:
        taken = crate.taken()
        parts.append(stanza(f"{crate.name}-{crate.version}/*", crate.copyrights(), " and ".join(taken)))
        texts = crate.texts()
        if len(taken) == 1 and len(texts) == 1:
            bodies.setdefault(taken[0], texts[0][1])
    bodies["MIT"] = dict(ours.texts())["LICENSE-MIT"]
    bodies["Apache-2.0"] = "On Debian systems the text is in /usr/share/common-licenses/Apache-2.0."
    for licence in sorted({licence for crate in others for licence in crate.taken()} | {"MIT", "Apache-2.0"}):
        lines = [line for line in bodies[licence].splitlines() if not re.match(r"\W*Copyright|\W*All rights", line)]
        parts.append(f"License: {licence}\n" + indented("\n".join(lines).strip("\n")))
    return "\n".join(parts)


if __name__ == "__main__":
    kinds = {"sbom": sbom, "notices": notices, "copyright": copyright}
    if len(sys.argv) not in (3, 4) or sys.argv[1] not in kinds:
        sys.exit(__doc__)
    kind, features, target = [*sys.argv[1:], "x86_64-unknown-linux-gnu"][:3]
    sys.stdout.write(kinds[kind](*linked(features, target), musl_of(features, target)))
