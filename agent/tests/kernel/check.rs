//! What `evenkeel check` finds.

use crate::node::{Cgroup, Node, can_run, eventually};
use evenkeel::kernel::cgroups;
use evenkeel::kernel::check;
use evenkeel::kernel::legacy::{self, Effect};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::Path;

#[test]
fn this_node_has_all_that_is_needed() {
    if !can_run() {
        return;
    }
    let cgroup = Cgroup::new();
    let probes = check::probe(Some(&cgroup.path));
    assert_eq!(probes.len(), 11);
    for probe in probes {
        assert!(probe.ok, "{probe:?}");
    }
    let missing = check::probe(Some(Path::new("/sys/fs/cgroup/no/such/cgroup")));
    let attaching = missing.iter().find(|probe| probe.name == "attaching").unwrap();
    assert!(!attaching.ok && attaching.detail.contains("/no/such/cgroup"), "{attaching:?}");
}

#[test]
fn an_attachment_of_the_old_kind_is_named_with_its_effect() {
    if !can_run() {
        return;
    }
    let node = Node::start();
    let mount = cgroups::cgroup2_mount().unwrap();
    let mut elsewhere = Cgroup::new();
    let below = elsewhere.make("kubepods/pod1");
    let found = |at: &Path| legacy::attachments(&mount, at).unwrap();
    assert_eq!(found(&elsewhere.path), []);

    let program = program_fd(&node);
    for (flags, at_effect, below_effect) in
        [(0, Effect::Refuses, Effect::Refuses), (1, Effect::Refuses, Effect::IsReplaced)]
    {
        attach_the_old_way(&program, &elsewhere.path, flags);
        let [legacy] = found(&elsewhere.path).try_into().unwrap();
        assert_eq!((legacy.cgroup.as_path(), legacy.attach_type), (elsewhere.path.as_path(), "connect4"));
        assert_eq!((legacy.programs.len(), legacy.effect), (1, at_effect));
        assert_eq!(found(&below).pop().unwrap().effect, below_effect);
        // And it is so.
        assert!(node.kernel.attach(&elsewhere.path).is_err());
        assert_eq!(node.kernel.attach(&below).is_ok(), below_effect == Effect::IsReplaced);
        detach_the_old_way(&program, &elsewhere.path);
    }
    attach_the_old_way(&program, &below, 0);
    assert_eq!(found(&elsewhere.path).pop().unwrap().effect, Effect::Replaces);
    detach_the_old_way(&program, &below);
}

fn program_fd(node: &Node) -> std::os::fd::OwnedFd {
    let held = node.kernel.hold().unwrap();
    held.into_iter().find(|held| held.label.ends_with("connect4")).unwrap().fd
}

#[repr(C)]
struct Attach {
    target: i32,
    program: i32,
    attach_type: u32,
    flags: u32,
}

const BPF_PROG_ATTACH: i32 = 8;
const BPF_PROG_DETACH: i32 = 9;

fn attach_the_old_way(program: &std::os::fd::OwnedFd, cgroup: &Path, flags: u32) {
    // A link that is gone here refuses it, for as long as it is anywhere else.
    eventually("the links are gone", || match bpf(BPF_PROG_ATTACH, program, cgroup, flags) {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => false,
        attached => {
            attached.unwrap();
            true
        }
    });
}

fn detach_the_old_way(program: &std::os::fd::OwnedFd, cgroup: &Path) {
    bpf(BPF_PROG_DETACH, program, cgroup, 0).unwrap();
}

fn bpf(command: i32, program: &std::os::fd::OwnedFd, cgroup: &Path, flags: u32) -> io::Result<()> {
    let cgroup = File::open(cgroup).unwrap();
    let connect4 = 10;
    let attributes =
        Attach { target: cgroup.as_raw_fd(), program: program.as_raw_fd(), attach_type: connect4, flags };
    // SAFETY: the structure is a prefix of `union bpf_attr` for both commands.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw const attributes, size_of::<Attach>()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
