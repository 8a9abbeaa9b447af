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
    Ok(())
}
