//! Runs the agent on another kernel, in qemu: an enrolled pod's calls must be taken by eBPF there, and spread. The
//! next files are [`kernel`], which finds the kernel, and [`initramfs`], which packs what runs on it.

mod initramfs;
mod kernel;

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::process::{step, succeeds};
use crate::workspace::Workspace;
use crate::{build, debian, ebpf, setup};

/// A machine that is emulated and does not end must end the test.
const LIMIT_SECONDS: u32 = 600;
/// What the guest says at the end, before the benchmark's exit status.
const VERDICT: &str = "kernel-test: exit status ";

#[derive(clap::Args)]
pub(crate) struct Options {
    /// The kernel's version, as the start of a package's: 6.1
    #[arg(long, default_value = "6.1")]
    kernel: String,
}

/// # Errors
/// If something is missing, a build fails, or calls are not taken or not spread on that kernel.
pub(crate) fn start(workspace: &Workspace, options: &Options) -> Result<()> {
    ensure!(std::env::consts::ARCH == "x86_64", "the emulated machine is an x86-64 one: run it on x86-64");
    ebpf::build(workspace, &setup::ebpf()?)?;
    build::agent(workspace, false)?;
    if !succeeds(Command::new("qemu-system-x86_64").arg("--version"))
        || !Path::new(initramfs::BUSYBOX).exists()
    {
        debian::install(debian::EMULATOR)?;
    }
    let image = kernel::image(workspace, &options.kernel)?;
    let folder = tempfile::tempdir().context("cannot make a folder for the initramfs")?;
    let archive = folder.path().join("initramfs");
    initramfs::pack(workspace, &init(), &archive)?;
    step(&format!("starting {}", image.display()));
    boot(&image, &archive)
}

/// The first process of the guest.
fn init() -> String {
    format!(
        "#!/usr/bin/sh
export PATH=/usr/bin HOME=/
busybox mount -t proc proc /proc
busybox mount -t sysfs sysfs /sys
busybox mount -t devtmpfs devtmpfs /dev
busybox mount -t cgroup2 cgroup2 /sys/fs/cgroup
ip link set lo up
busybox uname -sr
evenkeel check && evenkeel-bench --evenkeel /usr/bin/evenkeel --peers redirect --rounds 1 --scenario 8x16,stream-100 --seconds 1
echo '{VERDICT}'$?
busybox poweroff -f
"
    )
}

fn boot(image: &Path, archive: &Path) -> Result<()> {
    // Emulated even where KVM is: the same everywhere.
    let machine = ["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "2048", "-no-reboot"];
    let mut qemu = Command::new("timeout")
        .arg(LIMIT_SECONDS.to_string())
        .arg("qemu-system-x86_64")
        .args(machine)
        .args(["-display", "none", "-serial", "stdio", "-nic", "none"])
        .args(["-append", "console=ttyS0 quiet panic=-1", "-kernel"])
        .arg(image)
        .arg("-initrd")
        .arg(archive)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start qemu-system-x86_64")?;
    let console = qemu.stdout.take().context("the pipe was just made")?;
    let mut verdict = None;
    for line in BufReader::new(console).split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        println!("{}", line.trim_end());
        if let Some(status) = line.trim_end().strip_prefix(VERDICT) {
            verdict = Some(status.to_owned());
        }
    }
    qemu.wait()?;
    match verdict.as_deref() {
        Some("0") => Ok(()),
        Some(status) => bail!("on that kernel the run ended with exit status {status}"),
        None => bail!("the machine ended before the run did"),
    }
}
