# The formula of Homebrew for the library and the command. They are built from the sources, with the system's compiler
# and Homebrew's Rust, on macOS and on Linux.
#
# There is no public release yet. A release fills in `homepage`, `url` and `sha256`: of a tarball of the sources, which
# `git archive --prefix=libamp_token-VERSION/ --output=libamp_token-VERSION.tar.gz vVERSION` makes.
class AmpToken < Formula
  desc "Always a valid access token for Amplience: a C library and a command"
  homepage "https://amp-token.invalid/"
  url "https://amp-token.invalid/libamp_token-0.1.0.tar.gz"
  sha256 "0000000000000000000000000000000000000000000000000000000000000000"
  license any_of: ["MIT", "Apache-2.0"]

  depends_on "rust" => :build

  def install
    system "make", "install", "PREFIX=#{prefix}", "CARGO_FLAGS=--release --locked"
  end

  test do
    # The emulator listens on a loopback address only.
    assert_match "Bearer", shell_output("#{bin}/amp-token emulator -- #{bin}/amp-token header")

    (testpath/"version.c").write <<~C
      #include <amp_token.h>
      #include <stdio.h>
      int main(void) { puts(amp_version()); return 0; }
    C
    system ENV.cc, "version.c", "-I#{include}", "-L#{lib}", "-lamp_token", "-o", "version"
    assert_equal version.to_s, shell_output("./version").chomp
  end
end
