#!/usr/bin/env python3
"""oci.py: writes a container image with the command and nothing else, as an OCI layout in a tar archive.

    oci.py VERSION FILE ARCHITECTURE=COMMAND=DOCS…

The image has the command, the licences (the files in DOCS), and the CA certificates of this system, which are not a part of
libamp_token: they are renewed by building the image again. The same files and SOURCE_DATE_EPOCH give the same bytes.

Made without a daemon and without root. index.json names one index, and that the image of each architecture: an index.json
with several images is "more than one image" to skopeo (its issue 2463).
"""

import hashlib
import io
import json
import os
import sys
import tarfile
from datetime import datetime, timezone
from gzip import GzipFile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
EPOCH = int(os.environ.get("SOURCE_DATE_EPOCH", 0))
PLATFORMS = {
    "x86_64": {"architecture": "amd64", "os": "linux"},
    "aarch64": {"architecture": "arm64", "os": "linux", "variant": "v8"},
}
# No name: there is no /etc/passwd. It owns its home directory, where the store is.
USER = 65532
HOME = "home"


def archive(entries):
    """A tar archive of {path: (bytes, mode, owner)}; None instead of bytes is a directory."""
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path, (content, mode, owner) in sorted(entries.items()):
            entry = tarfile.TarInfo(path)
            entry.mtime, entry.mode, entry.uid, entry.gid = EPOCH, mode, owner, owner
            if content is None:
                entry.type = tarfile.DIRTYPE
            else:
                entry.size = len(content)
            tar.addfile(entry, None if content is None else io.BytesIO(content))
    return output.getvalue()


def layer(command, docs):
    entries = {
        "etc/ssl/certs/ca-certificates.crt": (CERTIFICATES.read_bytes(), 0o644, 0),
        HOME: (None, 0o700, USER),
        "tmp": (None, 0o1777, 0),
        "usr/bin/amp-token": (Path(command).read_bytes(), 0o755, 0),
    }
    for file in [*sorted(Path(docs).iterdir()), ROOT / "LICENSE-MIT", ROOT / "LICENSE-APACHE"]:
        entries[f"usr/share/doc/amp-token/{file.name}"] = (file.read_bytes(), 0o644, 0)
    for path in list(entries):
        for parent in Path(path).parents:
            if parent.name:
                entries.setdefault(str(parent), (None, 0o755, 0))
    return archive(entries)


def compressed(content):
    output = io.BytesIO()
    with GzipFile(fileobj=output, mode="wb", compresslevel=9, mtime=0) as stream:
        stream.write(content)
    return output.getvalue()


def image(version, images):
    """The files of the layout."""
    files = {"oci-layout": json.dumps({"imageLayoutVersion": "1.0.0"}).encode()}

    def blob(content, kind, **more):
        digest = hashlib.sha256(content).hexdigest()
        files[f"blobs/sha256/{digest}"] = content
        media_type = f"application/vnd.oci.image.{kind}"
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content), **more}

    def document(content, kind, **more):
        return blob(json.dumps(content, sort_keys=True).encode(), kind, **more)

    created = datetime.fromtimestamp(EPOCH, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    labels = {
        "org.opencontainers.image.title": "amp-token",
        "org.opencontainers.image.version": version,
        "org.opencontainers.image.licenses": "MIT OR Apache-2.0",
        "org.opencontainers.image.created": created,
    }
    manifests = []
    for name, command, docs in images:
        platform, content = PLATFORMS[name], layer(command, docs)
        settings = {
            "Entrypoint": ["/usr/bin/amp-token"],
            "Env": ["PATH=/usr/bin", f"HOME=/{HOME}"],
            "Labels": labels,
            "User": f"{USER}:{USER}",
            "WorkingDir": f"/{HOME}",
        }
        config = {
            **platform,
            "created": created,
            "config": settings,
            "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(content).hexdigest()]},
            "history": [{"created": created, "created_by": "packaging/oci.py"}],
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": document(config, "config.v1+json"),
            "layers": [blob(compressed(content), "layer.v1.tar+gzip")],
            "annotations": labels,
        }
        manifests.append(document(manifest, "manifest.v1+json", platform=platform))
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json"}
    nested = document({**index, "manifests": manifests, "annotations": labels}, "index.v1+json")
    named = {**nested, "annotations": {"org.opencontainers.image.ref.name": version}}
    files["index.json"] = json.dumps({**index, "manifests": [named]}, sort_keys=True).encode()
    return files


def main():
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    version, output, *images = sys.argv[1:]
    files = image(version, [argument.split("=") for argument in images])
    Path(output).write_bytes(archive({path: (content, 0o644, 0) for path, content in files.items()}))


if __name__ == "__main__":
    main()
