"""Puts the native library into the wheel: the file that AMP_TOKEN_LIBRARY names while building.

Without it the wheel is pure Python and uses the system's library. AMP_WHEEL_PLATFORM says which systems the library
is for, where it was built for others than this one; bills of materials (*.cdx.json) that lie here go along.
"""

import os
import sysconfig
from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class BundleLibrary(BuildHookInterface):
    def initialize(self, version, build_data):
        library = os.environ.get("AMP_TOKEN_LIBRARY")
        if not library:
            return
        if not os.path.isfile(library):
            raise FileNotFoundError(f"AMP_TOKEN_LIBRARY names {library}, which is no file: build the library first")
        build_data["force_include"][library] = "amp_token/" + os.path.basename(library)
        build_data["pure_python"] = False
        # ctypes needs no particular Python, only this platform.
        platform = os.environ.get("AMP_WHEEL_PLATFORM") or sysconfig.get_platform()
        build_data["tag"] = "py3-none-" + platform.replace("-", "_").replace(".", "_")
        build_data["sbom_files"] += sorted(bill.name for bill in Path(self.root).glob("*.cdx.json"))
