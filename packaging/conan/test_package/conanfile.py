"""Compiles an example of this checkout with the package, and gets a token with it from the emulator of the package."""

import os
from pathlib import Path

from conan import ConanFile
from conan.errors import ConanException
from conan.tools.cmake import CMake, cmake_layout


class AmpTokenTest(ConanFile):
    settings = "os", "arch", "compiler", "build_type"
    generators = "CMakeDeps", "CMakeToolchain", "VirtualRunEnv"

    def requirements(self):
        self.requires(self.tested_reference_str)

    def layout(self):
        cmake_layout(self)

    def build(self):
        cmake = CMake(self)
        cmake.configure()
        cmake.build()

    def test(self):
        program = os.path.join(self.cpp.build.bindir, "get_token")
        command = Path(self.dependencies["libamp_token"].package_folder, "bin/amp-token")
        output = Path(self.build_folder, "token")
        self.run(f'"{command}" emulator -- "{os.path.abspath(program)}" >"{output}"', env="conanrun")
        if not output.read_text().startswith("eyJ"):
            raise ConanException("the program printed no token")
