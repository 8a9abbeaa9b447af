"""Adds the native library to the wheel: the file that AMP_TOKEN_LIBRARY names during the build.

Without the variable the wheel is pure Python, and uses the system's library. AMP_WHEEL_PLATFORM is the platform tag of
the library, if it was built for another system than this one. The SBOMs (*.cdx.json) in this directory are added too.
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
            raise FileNotFoundError(f"AMP_TOKEN_LIBRARY: {library} is not a file; build the library first")
        build_data["force_include"][library] = "amp_token/" + os.path.basename(library)
        build_data["pure_python"] = False
        # ctypes works with every version of Python; only the platform must match.
        platform = os.environ.get("AMP_WHEEL_PLATFORM") or sysconfig.get_platform()
        build_data["tag"] = "py3-none-" + platform.replace("-", "_").replace(".", "_")
        build_data["sbom_files"] += sorted(sbom.name for sbom in Path(self.root).glob("*.cdx.json"))
