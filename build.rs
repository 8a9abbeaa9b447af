//! Passes the linker the flags of the shared library.

use std::env;

fn main() -> Result<(), env::VarError> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=AMP_SONAME");
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
