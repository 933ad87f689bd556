//! Servers and clients that run inside pods.

fn main() -> anyhow::Result<()> {
    evenkeel_tests::peer::run(std::env::args().skip(1))
}
