#!/usr/bin/env bash
# check-package-recipes.sh [conan] [homebrew] [vcpkg]: checks the recipes of package managers, by default all of them. Conan itself
# is installed and used. Homebrew and vcpkg are not: what their recipes call is replaced, and does what its documentation says.
#
#   conan     packs the tarball, with the shared and with the static library, and compiles a program with each; it gets a token
#   homebrew  checks the fields of the formula, and runs its installation and its test
#   vcpkg     checks the fields of the manifest, and runs the port for each system whose archive there is; a program that is
#             compiled with the result of that for Linux gets a token
#
# `conan` and `vcpkg` need the archives that `make package` has built.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/install-deps.sh cc make cmake ruby
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
work=$(mktemp -d)
trap 'rm -rf "$work" packaging/conan/test_package/{build,CMakeUserPresets.json}' EXIT
# quietly COMMAND…: shows the output only if the command fails.
quietly() { "$@" >"$work/log" 2>&1 || { tail -n 40 "$work/log"; return 1; }; }

conan() {
    local conan shared
    conan=$(packaging/tools.sh packaging/conan)/conan
    export CONAN_HOME=$work/conan
    quietly "$conan" profile detect
    for shared in True False; do
        quietly "$conan" create packaging/conan --version "$version" --options "libamp_token/*:shared=$shared"
        echo "shared=$shared: a program that Conan compiled with the package got a token"
    done
}

homebrew() {
    ! command -v rubocop >/dev/null || quietly rubocop --only Layout,Lint --except Layout/SpaceAroundOperators packaging/homebrew/amp-token.rb
    LD_LIBRARY_PATH=$work/prefix/lib ruby - packaging/homebrew/amp-token.rb "$version" "$work" <<'RUBY'
require "pathname"
require "shellwords"
RECIPE, VERSION, WORK = ARGV
# What the formula uses of Homebrew.
class Formula
  FIELDS = {}
  %i[desc homepage url sha256 license].each { |field| define_singleton_method(field) { |value| FIELDS[field] = value } }
  def self.depends_on(dependency) = FIELDS[:depends_on] = dependency
  def self.test(&block) = FIELDS[:test] = block
  def version = VERSION
  def prefix = Pathname(WORK)/"prefix"
  def bin = prefix/"bin"
  def lib = prefix/"lib"
  def include = prefix/"include"
  def testpath = Pathname(WORK)
  def system(*command)
    Kernel.system(*command, out: File::NULL) or abort "failed: #{command.shelljoin}"
  end
  def shell_output(command)
    output = `#{command}`
    $?.success? ? output : abort("failed: #{command}")
  end
  def assert_equal(expected, found) = expected == found || abort("expected #{expected}, found #{found}")
  def assert_match(part, whole) = whole.include?(part) || abort("#{part} is not in #{whole}")
end
def ENV.cc = "cc"

load RECIPE
fields = Formula::FIELDS
check = ->(holds, rule) { holds or abort "the formula: #{rule}" }
# The rules of `brew audit` and `brew style`.
check.(fields[:desc].length <= 80 && fields[:desc] !~ /\A(a|an|the) |\.\z|amp-token/i, "a description of at most 80 characters, without an article, a full stop or the name")
check.(fields.fetch(:homepage).start_with?("https://"), "a homepage")
check.(fields.fetch(:url).end_with?("-#{VERSION}.tar.gz"), "the URL has version #{VERSION}")
check.(fields.fetch(:sha256) =~ /\A\h{64}\z/, "a SHA-256")
check.(fields.fetch(:license) == { any_of: %w[MIT Apache-2.0] }, "the licences of Cargo.toml")
check.(fields.fetch(:depends_on) == { "rust" => :build }, "it depends on Rust to build")
formula = AmpToken.new
formula.install
Dir.chdir(WORK) { formula.instance_eval(&fields.fetch(:test)) }
puts "the formula installs the library and the command, and its test passes"
RUBY
}

vcpkg() {
    local triplet archive found=
    # Of the schema of vcpkg.json: the members that a port has, and how they look.
    python3 - packaging/vcpkg/vcpkg.json "$version" <<'PYTHON'
import json, re, sys
manifest, version = json.load(open(sys.argv[1])), sys.argv[2]
optional = {"$comment", "port-version", "maintainers", "homepage", "documentation", "dependencies", "features", "default-features"}
required = {"name", "version", "description", "license", "supports"}
assert required <= manifest.keys() <= required | optional, manifest.keys()
assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", manifest["name"]), manifest["name"]
assert manifest["version"] == version, f"its version is {manifest['version']}, not {version}"
assert all(isinstance(line, str) for line in manifest["description"])
assert f'license = "{manifest["license"]}"' in open("Cargo.toml").read(), manifest["license"]
assert re.fullmatch(r"[a-z0-9 ()|&!]+", manifest["supports"]), manifest["supports"]
PYTHON
    for triplet in x64-linux arm64-linux x64-windows arm64-osx; do
        case $triplet in
            x64-linux) archive=x86_64-linux.tar.gz ;;
            *linux) archive=aarch64-linux.tar.gz ;;
            *windows) archive=x86_64-windows.zip ;;
            *osx) archive=universal-macos.tar.gz ;;
        esac
        [ -e "build/packages/libamp_token-$version-$archive" ] || continue
        found=yes
        quietly cmake -DPORTFILE="$PWD/packaging/vcpkg/portfile.cmake" -DVERSION="$version" -DTRIPLET="$triplet" -DOUT="$work/$triplet" \
            -P scripts/vcpkg-stubs.cmake
        (cd "$work/$triplet" && test -s share/amp-token/copyright && test -s share/amp-token/usage && test -s include/amp_token.h)
        # As vcpkg checks: no directory is empty, and CMake packages are below share/ only.
        [ -z "$(cd "$work/$triplet" && find . -type d -empty -o -path './lib/*.cmake' -o -path './bin/*.exe')" ]
        echo "$triplet: the port installs $(cd "$work/$triplet" && find . -type f | wc -l) files"
    done
    [ -n "$found" ] || { echo "there is no archive in build/packages; run \`make package\`"; return 1; }
    [ -d "$work/x64-linux" ] || return 0
    mkdir "$work/program"
    cat >"$work/program/CMakeLists.txt" <<CMAKE
cmake_minimum_required(VERSION 3.13)
project(use C)
$(grep -E '^ +(find_package|target_link_libraries)' packaging/vcpkg/usage | sed '1a add_executable(main "'"$PWD"'/bindings/c/get_token.c")')
CMAKE
    quietly cmake -S "$work/program" -B "$work/program/build" -DCMAKE_PREFIX_PATH="$work/x64-linux"
    quietly cmake --build "$work/program/build"
    "$work/x64-linux/tools/amp-token/amp-token" emulator -- "$work/program/build/main" | grep -q .
    echo "a program that CMake compiled with the port got a token"
}

[ $# -gt 0 ] || set -- conan homebrew vcpkg
for part in "$@"; do
    echo "== $part"
    "$part"
done
