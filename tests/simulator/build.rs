//! Compiles the library of this package for the simulator, with the Redis store.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cfg=simulator");
    println!("cargo:rustc-cfg=feature=\"redis\"");
}
