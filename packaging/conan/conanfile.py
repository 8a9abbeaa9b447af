"""A Conan recipe that packs the tarball of `make package`: nothing is compiled.

    conan create packaging/conan --version VERSION

The tarball is the one in build/packages of this checkout, or the file that AMP_TOKEN_TARBALL names.
"""

import os
from pathlib import Path

from conan import ConanFile
from conan.errors import ConanException, ConanInvalidConfiguration
from conan.tools.files import collect_libs, copy, unzip

ARCHITECTURES = {"x86_64": "x86_64", "armv8": "aarch64"}


class AmpTokenConan(ConanFile):
    name = "libamp_token"
    description = "Cached OAuth 2.0 access tokens for Amplience: the library and the command"
    license = "MIT OR Apache-2.0"
    topics = ("amplience", "oauth2", "access-token")
    package_type = "library"
    # The C ABI is that of the system, so the compiler and the build type make no difference.
    settings = "os", "arch"
    options = {"shared": [True, False]}
    default_options = {"shared": True}

    def validate(self):
        if self.settings.os != "Linux" or str(self.settings.arch) not in ARCHITECTURES:
            raise ConanInvalidConfiguration(f"there is a tarball for Linux on {' and '.join(ARCHITECTURES)} only")

    def export(self):
        # The recipe is copied into Conan's cache: the path of the checkout is known only here.
        packages = Path(self.recipe_folder).resolve().parent.parent / "build/packages"
        Path(self.export_folder, "packages").write_text(str(packages))

    def build(self):
        name = f"libamp_token-{self.version}-{ARCHITECTURES[str(self.settings.arch)]}-linux.tar.gz"
        packages = Path(self.recipe_folder, "packages").read_text()
        tarball = Path(os.environ.get("AMP_TOKEN_TARBALL") or Path(packages, name))
        if not tarball.is_file():
            raise ConanException(f"there is no {tarball}; run `make package PACKAGES=tarball`, or set AMP_TOKEN_TARBALL")
        unzip(self, str(tarball), destination=self.build_folder, strip_root=True)

    def package(self):
        library = "libamp_token.so*" if self.options.shared else "libamp_token.a"
        for pattern, folder in (("*", "include"), (library, "lib"), ("*", "bin")):
            copy(self, pattern, src=str(Path(self.build_folder, folder)), dst=str(Path(self.package_folder, folder)))
        copy(self, "*", src=str(Path(self.build_folder, "share/doc/libamp_token")), dst=str(Path(self.package_folder, "licenses")))

    def package_info(self):
        self.cpp_info.libs = collect_libs(self)
        self.cpp_info.set_property("cmake_file_name", "AmpToken")
        self.cpp_info.set_property("pkg_config_name", "amp_token")
        # As in the CMake package that the tarball has.
        if self.options.shared:
            self.cpp_info.set_property("cmake_target_name", "AmpToken::amp_token")
        else:
            self.cpp_info.set_property("cmake_target_name", "AmpToken::static")
            self.cpp_info.defines = ["AMP_STATIC"]
            self.cpp_info.system_libs = ["gcc_s", "util", "rt", "pthread", "m", "dl", "c"]
