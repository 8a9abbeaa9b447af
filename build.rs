//! Generates the C header and amp_token.i, its declarations alone, into OUT_DIR, and passes the linker the flags of the
//! shared library.
//!
//! Users get the files that are checked in under include/. A test fails if they differ; AMP_UPDATE_HEADER=1 in the
//! environment of a build updates the checked-in ones. A plain build never writes into the source tree.

use std::env;
use std::fs;
use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for changed in ["build.rs", "cbindgen.toml", "src"] {
        println!("cargo:rerun-if-changed={changed}");
    }
    for variable in ["AMP_UPDATE_HEADER", "AMP_SONAME"] {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    link()?;
    header()
}

fn link() -> Result<(), env::VarError> {
    let elf = env::var("CARGO_CFG_TARGET_FAMILY")? == "unix" && env::var("CARGO_CFG_TARGET_VENDOR")? != "apple";
    if elf {
        // Helper threads and thread-local destructors may still run after a dlclose. Without
        // nodelete their code would be unmapped.
        for flag in ["-z,nodelete", "-z,now", "-z,relro", "-z,noexecstack"] {
            println!("cargo:rustc-cdylib-link-arg=-Wl,{flag}");
        }
        // The Makefile sets the SONAME, because it also creates the symbolic links that a program
        // linked with that name needs. A plain cargo build creates none.
        if let Ok(name) = env::var("AMP_SONAME") {
            println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,{name}");
        }
    }
    if env::var("CARGO_CFG_TARGET_VENDOR")? == "apple" {
        // Otherwise the path of the build would be the name by which programs find the library. There must be room for a
        // longer one, which an installation sets.
        let name = env::var("AMP_SONAME").unwrap_or_else(|_| "@rpath/libamp_token.dylib".to_owned());
        println!("cargo:rustc-cdylib-link-arg=-Wl,-install_name,{name},-headerpad_max_install_names");
    }
    Ok(())
}

/// Writes the header, and the declarations alone, as they are after the preprocessor: amp_token.i.
fn header() -> Result<(), Box<dyn std::error::Error>> {
    let root = env::var("CARGO_MANIFEST_DIR")?;
    let root = Path::new(&root);
    let mut config = cbindgen::Config::from_file(root.join("cbindgen.toml"))?;
    let declarations = declarations_only(config.clone());
    let part = |name: &str| env::var(format!("CARGO_PKG_VERSION_{name}"));
    let version = format!(
        "\n/* The version of this header; amp_version() returns that of the library. */\n\
         #define AMP_TOKEN_VERSION \"{}\"\n\
         #define AMP_TOKEN_VERSION_MAJOR {}\n#define AMP_TOKEN_VERSION_MINOR {}\n#define AMP_TOKEN_VERSION_PATCH {}\n\
         \n/* The version of the binary interface that this header describes;\n\
         \x20* amp_abi_version() returns that of the library. */\n\
         #define AMP_TOKEN_ABI_VERSION 0\n",
        env::var("CARGO_PKG_VERSION")?,
        part("MAJOR")?,
        part("MINOR")?,
        part("PATCH")?
    );
    config.after_includes = Some(config.after_includes.unwrap_or_default() + &version);
    config.header = config.header.map(|text| text.trim().to_owned());
    for (file, config) in [("amp_token.h", config), ("amp_token.i", declarations)] {
        let made = Path::new(&env::var("OUT_DIR")?).join(file);
        match cbindgen::Builder::new().with_crate(root).with_config(config).generate() {
            Ok(bindings) => {
                bindings.write_to_file(&made);
            }
            // rustc reports syntax errors better.
            Err(cbindgen::Error::ParseSyntaxError { .. }) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        if env::var_os("AMP_UPDATE_HEADER").is_some() {
            fs::create_dir_all(root.join("include"))?;
            fs::copy(made, root.join("include").join(file))?;
        }
    }
    Ok(())
}

/// The header without comments and directives, each function on one line: for the parsers of cffi, PHP's FFI and
/// LuaJIT, which know `bool` and the fixed-width integers and have no preprocessor.
fn declarations_only(mut config: cbindgen::Config) -> cbindgen::Config {
    config.header = None;
    config.after_includes = None;
    config.include_guard = None;
    config.sys_includes.clear();
    config.cpp_compat = false;
    config.documentation = false;
    config.line_length = 10_000;
    config.function.prefix = None;
    config.function.must_use = None;
    config
}
