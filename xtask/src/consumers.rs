//! Programs of others that read what the agent tells, for the suite `consumers`: Prometheus as Debian has it, unpacked and not
//! installed, as an installed one would run as a service; and Jaeger, built from its Go module. Both are kept in the cache
//! ([`crate::cache`]).

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;

use anyhow::{Result, ensure};

use crate::go_module::GoModule;
use crate::process::step;
use crate::workspace::Workspace;
use crate::{cache, debian};

/// Names the folder of `prometheus` and `promtool` to the tests.
pub(crate) const PROMETHEUS_VARIABLE: &str = "EVENKEEL_PROMETHEUS";
/// Names the folder of Jaeger's `all-in-one` to them.
pub(crate) const JAEGER_VARIABLE: &str = "EVENKEEL_JAEGER";

const JAEGER: GoModule = GoModule {
    name: "jaeger",
    module: "tests/peers/jaeger",
    packages: &["github.com/jaegertracing/jaeger/cmd/all-in-one"],
    link: "consumers/jaeger",
    told: "building Jaeger (once, about four minutes)",
};

/// The folder of `prometheus` and `promtool`, fetched now if the cache has not the version that Debian's archive has.
///
/// # Errors
/// If this is no Debian, or the package cannot be fetched.
pub(crate) fn prometheus(workspace: &Workspace) -> Result<PathBuf> {
    ensure!(
        debian::is_here(),
        "this machine has no apt-get: bring Prometheus yourself, and name the folder of prometheus and promtool in \
         {PROMETHEUS_VARIABLE}"
    );
    let unpacked = debian::fetch(|| {
        let version = debian::version(debian::PROMETHEUS)?;
        let mut hasher = DefaultHasher::new();
        version.hash(&mut hasher);
        cache::find_or_build(workspace, "prometheus", hasher.finish(), "consumers/prometheus", |folder| {
            step(&format!("fetching Debian's {} {version}", debian::PROMETHEUS));
            debian::unpack(debian::PROMETHEUS, &version, folder)
        })
    })?;
    Ok(unpacked.join("usr/bin"))
}

/// The folder of Jaeger's `all-in-one`, built now if the cache has none of this version.
///
/// # Errors
/// If Go is missing or too old, or the build fails.
pub(crate) fn jaeger(workspace: &Workspace) -> Result<PathBuf> {
    JAEGER.find_or_build(workspace)
}
