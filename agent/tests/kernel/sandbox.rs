//! Which network namespace is a pod's, and whether it still is.

use crate::app::App;
use crate::node::{Cgroup, can_run};
use evenkeel::kernel::pods::{self, PodCgroups};
use evenkeel::kernel::{KernelError, Netns, NotFound, Sandbox, address, cgroups};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread;

const UID: &str = "6ec0a7e5-0000-4000-8000-0000000002aa";

fn processes(kubepods: &Path) -> Result<Vec<u32>, KernelError> {
    PodCgroups::below(kubepods)?.processes_of(UID)
}

fn find(kubepods: &Path) -> Result<Sandbox, NotFound> {
    Sandbox::of(UID, &processes(kubepods)?)
}

/// A program of that name, in a cgroup, and in a network namespace: that of a process, or its own.
fn start(name: &str, cgroup: &Path, netns: Option<u32>) -> Child {
    let mut command = Command::new("sleep");
    command.arg("600").arg0(name);
    start_as(command, cgroup, netns)
}

fn start_as(mut command: Command, cgroup: &Path, netns: Option<u32>) -> Child {
    let enter = File::options().write(true).open(cgroup.join("cgroup.procs")).unwrap();
    let netns = netns.map(|pid| File::open(format!("/proc/{pid}/ns/net")).unwrap());
    let prepare = move || {
        // SAFETY: plain system calls, as is fit between fork and exec.
        let ready = unsafe {
            libc::write(enter.as_raw_fd(), b"0".as_ptr().cast(), 1) == 1
                && libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) == 0
                && match &netns {
                    Some(netns) => libc::setns(netns.as_raw_fd(), libc::CLONE_NEWNET) == 0,
                    None => libc::unshare(libc::CLONE_NEWNET) == 0,
                }
        };
        if ready { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    };
    // SAFETY: `prepare` allocates nothing and takes no lock.
    unsafe { command.pre_exec(prepare) }.spawn().unwrap()
}

fn end(mut process: Child) {
    process.kill().unwrap();
    process.wait().unwrap();
}

#[test]
fn a_path_leads_to_a_pods_namespace_or_nowhere_and_nothing_is_waited_for() {
    if !can_run() {
        return;
    }
    let mut cgroup = Cgroup::new();
    let pod = start("pause", &cgroup.make("pod"), None);
    let netns = format!("/proc/{}/ns/net", pod.id());
    let mut found = Sandbox::at(Path::new(&netns)).unwrap();
    assert_eq!(found.netns().cookie(), Netns::of_process(pod.id()).unwrap().cookie());
    // The first process' may be out of sight in a container.
    for own in ["/proc/1/ns/net", "/proc/self/ns/net"].into_iter().filter(|own| File::open(own).is_ok()) {
        assert_eq!(Sandbox::at(Path::new(own)).unwrap_err(), NotFound::InNodeNamespace, "{own}");
    }
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for none in [pipe.as_path(), Path::new("/proc/self/ns/mnt"), Path::new("/no/such")] {
        assert!(matches!(Sandbox::at(none), Err(NotFound::Refused(_))), "{}", none.display());
    }
    end(pod);
    assert!(!found.is_there(UID, || Ok::<_, KernelError>(vec![])).unwrap());
}

#[test]
fn a_container_within_a_container_is_not_the_pod() {
    if !can_run() {
        return;
    }
    let mut cgroup = Cgroup::new();
    let kubepods = cgroup.make("kubepods");
    let [sandbox, container, nested] = ["pause", "app", "app/docker/nested"]
        .map(|name| cgroup.make(&format!("kubepods/besteffort/pod{UID}/{name}")));
    // The nested one is the first, and all that there is: still it is none of the pod's.
    let nested = start("nested", &nested, None);
    assert_eq!(find(&kubepods).unwrap_err(), NotFound::NoProcess);

    let pause = start("pause", &sandbox, None);
    // An app may make a namespace of its own: its process is later than the sandbox's.
    let unshared = start("unshared", &container, None);
    let found = find(&kubepods).unwrap();
    assert_eq!(found.netns().cookie(), Netns::of_process(pause.id()).unwrap().cookie());
    [nested, unshared, pause].into_iter().for_each(end);
}

#[test]
fn a_pass_over_all_processes_takes_no_nested_container_for_the_pod_either() {
    /// No other test's, since the pass sees them all.
    const OWN_UID: &str = "6ec0a7e5-0000-4000-8000-0000000002ab";
    if !can_run() {
        return;
    }
    let mut cgroup = Cgroup::new();
    let [container, nested] =
        ["app", "app/docker/nested"].map(|name| cgroup.make(&format!("kubepods/pod{OWN_UID}/{name}")));
    let nested = start("nested", &nested, None);
    assert_eq!(pods::by_process().unwrap().get(OWN_UID), None);
    assert_eq!(Sandbox::of(OWN_UID, &[nested.id()]).unwrap_err(), NotFound::NoProcess);
    let own = start("app", &container, None);
    assert_eq!(pods::by_process().unwrap()[OWN_UID], [own.id()]);
    [own, nested].into_iter().for_each(end);
}

#[test]
fn programs_and_cgroups_may_have_names_of_any_bytes() {
    /// No other test's, since the pass sees them all.
    const OWN_UID: &str = "6ec0a7e5-0000-4000-8000-0000000002ac";
    const NAME: &[u8] = b"caf\xe9";
    if !can_run() {
        return;
    }
    let mut cgroup = Cgroup::new();
    let pod = cgroup.make(&format!("kubepods/pod{OWN_UID}/app"));
    let nested = cgroup.make_of_bytes(&pod, NAME);
    // The kernel has the name of the file that is run.
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join(OsStr::from_bytes(NAME));
    symlink("/bin/sleep", &program).unwrap();
    let mut command = Command::new(program);
    command.arg("600");
    let process = start_as(command, &nested, None);
    let stat = || fs::read(format!("/proc/{}/stat", process.id())).unwrap();
    while !stat().windows(NAME.len()).any(|part| part == NAME) {
        thread::yield_now();
    }
    assert_eq!(pods::by_process().unwrap()[OWN_UID], [process.id()]);
    let found = Sandbox::of(OWN_UID, &[process.id()]).unwrap();
    assert_eq!(found.netns().cookie(), Netns::of_process(process.id()).unwrap().cookie());
    end(process);
}

#[test]
fn without_the_right_to_look_the_refusal_is_named() {
    if !can_run() {
        return;
    }
    let mut cgroup = Cgroup::new();
    let kubepods = cgroup.make("kubepods");
    let pause = start("pause", &cgroup.make(&format!("kubepods/pod{UID}/sandbox")), None);
    // Rights are a thread's.
    let find_without = || {
        let mut rights = capabilities(None).unwrap();
        rights.effective.remove(CapabilitySet::SYS_PTRACE);
        set_capabilities(None, rights).unwrap();
        find(&kubepods)
    };
    let not_found = thread::scope(|scope| scope.spawn(find_without).join().unwrap()).unwrap_err();
    let NotFound::Refused(text) = not_found else { panic!("{not_found:?}") };
    assert!(text.contains("Permission denied") && text.contains("CAP_SYS_PTRACE"), "{text}");
    assert!(find(&kubepods).is_ok());
    end(pause);
}

#[test]
fn a_sandbox_at_a_path_is_there_while_the_path_leads_to_it() {
    if !can_run() {
        return;
    }
    let mut cgroup = Cgroup::new();
    let pod = cgroup.make("pod");
    let [one, other] = ["one", "other"].map(|name| start(name, &pod, None));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("netns");
    let lead_to = |target: &Path| {
        let _ = fs::remove_file(&path);
        symlink(target, &path).unwrap();
    };
    let netns = |of: &Child| PathBuf::from(format!("/proc/{}/ns/net", of.id()));
    lead_to(&netns(&one));
    let mut sandbox = Sandbox::at(&path).unwrap();
    let mut is_there =
        || sandbox.is_there::<KernelError>(UID, || unreachable!("a path is asked, no process"));
    assert!(is_there().unwrap());
    lead_to(&path);
    assert!(is_there().is_err(), "a path that cannot be followed says nothing of the pod");
    lead_to(&netns(&other));
    assert!(!is_there().unwrap());
    lead_to(Path::new("/proc/self/status"));
    assert!(!is_there().unwrap(), "no network namespace");
    fs::remove_file(&path).unwrap();
    assert!(!is_there().unwrap());
    [one, other].into_iter().for_each(end);
}

#[test]
fn a_sandbox_is_there_while_any_process_of_the_pod_is_in_it() {
    if !can_run() {
        return;
    }
    let mut cgroup = Cgroup::new();
    let kubepods = cgroup.make("kubepods");
    let pod = cgroup.make(&format!("kubepods/pod{UID}/sandbox"));
    let first = start("runc-init", &pod, None);
    let mut sandbox = find(&kubepods).unwrap();
    let second = start("pause", &pod, Some(first.id()));
    end(first);
    assert!(sandbox.is_there(UID, || processes(&kubepods)).unwrap(), "another process is in it");
    let its_witness = || unreachable!("that one is its witness now");
    assert!(sandbox.is_there::<KernelError>(UID, its_witness).unwrap());

    // Killed and made anew: the same pod, another namespace.
    end(second);
    let unknown = || Err(KernelError::NoObject);
    assert!(sandbox.is_there(UID, unknown).is_err(), "that says nothing of the pod");
    let anew = start("pause", &pod, None);
    assert!(!sandbox.is_there(UID, || processes(&kubepods)).unwrap());
    let found = find(&kubepods).unwrap();
    assert_ne!(found.netns().cookie(), sandbox.netns().cookie());
    let none_of_its = || Ok::<_, KernelError>(vec![std::process::id()]);
    assert!(!sandbox.is_there(UID, none_of_its).unwrap(), "nor is a process of no pod in it");
    end(anew);
}

#[test]
fn a_pod_on_another_kernel_is_told_by_its_first_process() {
    if !can_run() {
        return;
    }
    let mut cgroup = Cgroup::new();
    let kubepods = cgroup.make("kubepods");
    let pod = cgroup.make(&format!("kubepods/pod{UID}/sandbox"));
    let gvisor = start("/usr/bin/runsc-sandbox", &pod, None);
    // The program's name is there once it has been executed.
    let not_found = loop {
        match find(&kubepods) {
            Err(not_found @ NotFound::SandboxedRuntime(_)) => break not_found,
            _ => std::thread::yield_now(),
        }
    };
    assert_eq!(not_found, NotFound::SandboxedRuntime("runsc-sandbox".into()));
    end(gvisor);
    // A virtual machine that an ordinary pod runs is its app's business.
    let pause = start("pause", &pod, None);
    let machine = start("qemu-system-x86_64", &pod, Some(pause.id()));
    assert!(find(&kubepods).is_ok());
    [machine, pause].into_iter().for_each(end);
}

#[test]
fn of_several_nodes_on_one_kernel_the_agents_own_is_found() {
    if !can_run() {
        return;
    }
    let mut cgroup = Cgroup::new();
    let [one, other] = ["node-1/kubepods", "node-2/kubepods"].map(|name| cgroup.make(name));
    let own = cgroup.make(&format!("node-2/kubepods/besteffort/pod{UID}/agent"));
    assert_eq!(cgroups::kubepods(&cgroup.path, None), None, "nothing tells which");
    assert_eq!(cgroups::kubepods(&cgroup.path, Some(UID)), Some(other.clone()), "its own pod does");
    let process = start("pause", &own, None);
    assert_eq!(cgroups::kubepods(&cgroup.path, None), Some(other), "and a process that it sees");
    assert_eq!(cgroups::kubepods(&cgroup.path.join("node-1"), None), Some(one), "one alone needs no telling");
    end(process);
}

#[test]
fn a_pods_own_address_is_known_before_the_source_knows_it() {
    if !can_run() {
        return;
    }
    let mut cgroup = Cgroup::new();
    let pod = App::start(&cgroup.make(&format!("kubepods/pod{UID}/app")));
    let netns = Netns::of_process(pod.pid()).unwrap();
    assert_eq!((address::own_v4(&netns, 1), address::own_v6(&netns, 1)), (None, None), "no way out");
    pod.ip("link set lo up");
    pod.ip("link add eth0 type veth peer name far");
    pod.ip("addr add 10.77.0.2/24 dev eth0");
    pod.ip("addr add fd77::2/64 dev eth0 nodad");
    pod.ip("link set eth0 up");
    pod.ip("link set far up");
    pod.ip("route add default via 10.77.0.1");
    pod.ip("-6 route add default via fd77::1");
    assert_eq!(address::own_v4(&netns, 1), Some("10.77.0.2".parse().unwrap()));
    assert_eq!(address::own_v6(&netns, 1), Some("fd77::2".parse().unwrap()));
}
