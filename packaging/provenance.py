#!/usr/bin/env python3
"""provenance.py: writes how packages were built, beside them, as an in-toto statement with SLSA's predicate.

    provenance.py DIRECTORY VERSION PACKAGES ARCHITECTURES FEATURES

The statement is not signed: it says what to build again to get the same bytes, and whoever publishes the packages may sign
it. It depends only on the packages, the commit and the tools, so that a second build gives the same statement.
"""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def output(*command):
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""


def sha256(path):
    return {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def main():
    if len(sys.argv) != 6:
        sys.exit(__doc__)
    directory, version, packages, architectures, features = sys.argv[1:]
    directory = Path(directory)
    commit = output("git", "rev-parse", "HEAD")
    sources = [{"name": name, "digest": sha256(ROOT / name)} for name in ("Cargo.lock", "packaging/requirements.txt")]
    if commit:
        source = {"name": "libamp_token", "digest": {"gitCommit": commit}}
        # A file that is changed but not committed makes the statement useless, so it must not look like one of use.
        if output("git", "status", "--porcelain", "--untracked-files=no"):
            source["annotations"] = {"uncommittedChanges": True}
        sources.insert(0, source)
    compiler = dict(line.split(": ", 1) for line in output("rustc", "-vV").splitlines() if ": " in line)
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": file.name, "digest": sha256(file)} for file in sorted(directory.iterdir())],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "urn:libamp_token:make-package:v1",
                "externalParameters": {"packages": packages, "architectures": architectures, "features": features},
                "internalParameters": {"SOURCE_DATE_EPOCH": os.environ["SOURCE_DATE_EPOCH"]},
                "resolvedDependencies": sources,
            },
            "runDetails": {
                "builder": {
                    "id": "urn:libamp_token:packaging/package.sh",
                    "version": {"rustc": compiler.get("release", ""), "rustc-commit": compiler.get("commit-hash", "")},
                },
            },
        },
    }
    path = directory / f"libamp_token-{version}.provenance.json"
    path.write_text(json.dumps(statement, indent=2) + "\n")


if __name__ == "__main__":
    main()
