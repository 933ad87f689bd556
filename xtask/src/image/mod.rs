//! The agent's image, made without a container engine and bit for bit the same each time: [`rootfs`] says what is in it,
//! [`archive`] writes it as `ctr images import`, `docker load` and `podman load` take it.

mod archive;
mod rootfs;

use std::env::consts::ARCH;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::process::{answer, run, step};
use crate::workspace::{self, Workspace};
use crate::{build, ebpf, setup};
use rootfs::RootFs;

/// The image's name where no other is asked for: what the chart and the kustomize base run.
const NAME: &str = concat!("evenkeel:", env!("CARGO_PKG_VERSION"));

/// As all builds have it: profiles by stack go by frame pointers.
const FRAME_POINTERS: &str = "-Cforce-frame-pointers=yes";

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Take the agent as the tests run it: quick to build, larger, slower
    #[arg(long, conflicts_with = "binary")]
    debug: bool,
    /// Take this agent, and build nothing
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// The image's name and tag
    #[arg(long, value_name = "NAME:TAG", default_value = NAME, value_parser = archive::Reference::parse)]
    name: archive::Reference,
    /// The archive to write; by default target/image/evenkeel-ARCHITECTURE.tar
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write the image's files into a folder instead, for a Dockerfile
    #[arg(long, value_name = "DIR", conflicts_with = "output")]
    files: Option<PathBuf>,
}

/// # Errors
/// If something is missing, a build fails, or the image cannot be written.
pub(crate) fn start(workspace: &Workspace, options: &Options) -> Result<()> {
    let folder = workspace.target.join("image");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let binary = match &options.binary {
        Some(binary) => binary.clone(),
        None => built(workspace, &folder, options.debug)?,
    };
    let rootfs = RootFs::of_agent(&binary)?;
    if let Some(files) = &options.files {
        rootfs.write_to(files)?;
        step(&format!("{}: {} bytes", files.display(), rootfs.bytes()));
        return Ok(());
    }
    let output = options.output.clone().unwrap_or_else(|| folder.join(format!("evenkeel-{ARCH}.tar")));
    let image = archive::write(&rootfs, &options.name, &output)?;
    step(&format!(
        "{}: {} {}, {} bytes (unpacked {})",
        output.display(),
        options.name,
        image.digest,
        image.bytes,
        rootfs.bytes(),
    ));
    Ok(())
}

/// The image of the agent as the tests run it: quick to build. Gives the archive.
///
/// # Errors
/// As [`start`].
pub(crate) fn of_tests_agent(workspace: &Workspace) -> Result<PathBuf> {
    let output = workspace.target.join("image").join(format!("evenkeel-debug-{ARCH}.tar"));
    let name = archive::Reference::parse(NAME).map_err(anyhow::Error::msg)?;
    start(
        workspace,
        &Options { debug: true, binary: None, name, output: Some(output.clone()), files: None },
    )?;
    Ok(output)
}

/// The agent, built as asked for, without what only a debugger reads.
fn built(workspace: &Workspace, folder: &Path, debug: bool) -> Result<PathBuf> {
    ebpf::build(workspace, &setup::ebpf()?)?;
    let agent = if debug {
        build::agent(workspace, false)?;
        workspace.agent(false)
    } else {
        release(workspace, folder)?
    };
    stripped(&agent, folder)
}

/// The agent without line tables, which are four fifths of the file. Function names stay, for profilers and crashes.
fn stripped(agent: &Path, folder: &Path) -> Result<PathBuf> {
    let stripped = folder.join("evenkeel");
    run(std::process::Command::new("strip").arg("--strip-debug").arg("-o").arg(&stripped).arg(agent))?;
    Ok(stripped)
}

/// A release in which no path of this machine is: in a folder of its own, for flags of its own build all anew.
fn release(workspace: &Workspace, target: &Path) -> Result<PathBuf> {
    step("building the agent as a release");
    let sysroot = PathBuf::from(answer(std::process::Command::new("rustc").args(["--print", "sysroot"]))?);
    let remapped = [
        (sysroot.as_path(), "/rust"),
        (&workspace::cargo_home()?, "/cargo"),
        (&workspace.root, "/evenkeel"),
        (target, "/target"),
    ]
    .map(|(path, name)| format!("--remap-path-prefix={}={name}", path.display()));
    // These take the place of those in `.cargo/config.toml`.
    let flags: Vec<_> = [FRAME_POINTERS.to_owned()].into_iter().chain(remapped).collect();
    run(workspace
        .cargo()
        .env("CARGO_TARGET_DIR", target)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        .args(["build", "--release", "--package", "evenkeel"]))?;
    Ok(target.join("release/evenkeel"))
}

#[cfg(test)]
mod tests {
    use std::env;
    use std::os::unix::fs::PermissionsExt as _;
    use std::process::Command;

    use super::*;

    /// The agent of this build.
    fn agent() -> PathBuf {
        let built = || Workspace::find().unwrap().agent(false);
        let agent = env::var_os("EVENKEEL_BIN").map_or_else(built, PathBuf::from);
        assert!(agent.is_file(), "{} is not there: build it with `cargo xtask build`", agent.display());
        agent
    }

    #[test]
    fn the_same_agent_makes_the_same_image_whenever_wherever_and_by_whomever_it_was_copied() {
        let folder = tempfile::tempdir().unwrap();
        // As it is shipped: to compress the rest takes longer than all else here.
        let agent = stripped(&agent(), folder.path()).unwrap();
        let name = archive::Reference::parse(NAME).unwrap();
        let images = ["one", "another-longer-folder"].map(|sub| {
            let sub = folder.path().join(sub);
            fs::create_dir(&sub).unwrap();
            let copy = sub.join(format!("agent-in-{}", sub.file_name().unwrap().display()));
            fs::copy(&agent, &copy).unwrap();
            fs::set_permissions(&copy, fs::Permissions::from_mode(0o700)).unwrap();
            let long_ago =
                std::time::UNIX_EPOCH + std::time::Duration::from_secs(sub.as_os_str().len() as u64);
            fs::File::options().write(true).open(&copy).unwrap().set_modified(long_ago).unwrap();
            let output = sub.join("image.tar");
            let image = archive::write(&RootFs::of_agent(&copy).unwrap(), &name, &output).unwrap();
            (image, fs::read(output).unwrap())
        });
        let [(one, one_bytes), (other, other_bytes)] = images;
        assert_eq!(one, other);
        assert!(one_bytes == other_bytes, "the archives differ");
    }

    #[test]
    fn the_agent_runs_with_nothing_but_the_images_files() {
        let folder = tempfile::tempdir().unwrap();
        RootFs::of_agent(&agent()).unwrap().write_to(folder.path()).unwrap();
        let said =
            answer(Command::new("chroot").arg(folder.path()).args(["/usr/local/bin/evenkeel", "--version"]));
        assert_eq!(said.unwrap(), concat!("evenkeel ", env!("CARGO_PKG_VERSION")));
    }

    #[test]
    fn the_image_holds_the_agent_its_libraries_and_its_licence_only() {
        let rootfs = RootFs::of_agent(&agent()).unwrap();
        let others: Vec<_> = rootfs
            .files()
            .map(|(path, _)| path)
            .filter(|path| {
                let name = path.rsplit('/').next().unwrap_or_default();
                !["evenkeel", "LICENSE"].contains(&name) && !name.contains(".so.")
            })
            .collect();
        assert!(others.is_empty(), "{others:?}");
    }

    #[test]
    fn what_is_no_program_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let text = folder.path().join("notes.txt");
        fs::write(&text, "no program").unwrap();
        let error = RootFs::of_agent(&text).err().unwrap();
        assert!(format!("{error:#}").contains("notes.txt is no program for Linux"), "{error:#}");
    }
}
