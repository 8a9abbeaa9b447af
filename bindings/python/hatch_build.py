"""Puts the native library into the wheel: the file that AMP_TOKEN_LIBRARY names while building.

Without it the wheel is pure Python and uses the system's library.
"""

import os
import sysconfig

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
        build_data["tag"] = "py3-none-" + sysconfig.get_platform().replace("-", "_").replace(".", "_")
