//! Generates the greeter's client and server.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let proto = "proto/greeter.proto";
    println!("cargo::rerun-if-changed={proto}");
    let descriptors = protox::compile([proto], ["proto"])?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
