//! How a pod is first heard of, and found.

use crate::app::App;
use crate::node::{Cgroup, can_run};
use evenkeel::kernel::pods::{self, PodCgroups};
use evenkeel::kernel::{Kernel, KernelError, LoadOptions, Netns, NotFound, PodEvent, PodEventKind, Sandbox};
use std::fs;

const UID: &str = "6ec0a7e5-0000-4000-8000";

fn next_of(events: &mut impl FnMut() -> PodEvent, uid: &str) -> PodEvent {
    // Other tests have pods, too.
    loop {
        let event = events();
        if event.uid == uid {
            return event;
        }
    }
}

#[test]
fn a_pods_first_process_is_announced_and_found() {
    if !can_run() {
        return;
    }
    let kernel = Kernel::load(&LoadOptions::default()).unwrap();
    let mut cgroup = Cgroup::new();
    let _links = kernel.attach(&cgroup.path).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _guard = runtime.enter();
    let mut events = kernel.pod_events().unwrap().into_async().unwrap();
    let mut next = || runtime.block_on(events.next()).unwrap();

    for (form, uid) in [
        (format!("kubepods/burstable/pod{UID}-000000000001/c0ffee"), format!("{UID}-000000000001")),
        (
            format!(
                "kubepods.slice/kubepods-pod{}_000000000002.slice/cri-containerd-c0ffee.scope",
                UID.replace('-', "_")
            ),
            format!("{UID}-000000000002"),
        ),
    ] {
        let container = cgroup.make(&form);
        let made = next_of(&mut next, &uid);
        assert_eq!(made.kind, PodEventKind::Made);
        assert!(!made.is_of_container());
        let made = next_of(&mut next, &uid);
        assert!(made.path.ends_with(&form) && made.is_of_container(), "{made:?}");
        assert_eq!(made.kind, PodEventKind::Made);
        let top = cgroup.path.join(form.split('/').next().unwrap());
        let processes = || PodCgroups::below(&top)?.processes_of(&uid);
        let find = || Sandbox::of(&uid, &processes().unwrap());
        assert_eq!(find().unwrap_err(), NotFound::NoProcess);

        let mut app = App::start(&container);
        let entered = next_of(&mut next, &uid);
        assert!(entered.path.ends_with(&form), "{entered:?}");
        assert_eq!(entered.kind, PodEventKind::Entered);
        // Between entering the cgroup and leaving the host's namespace there is no pod to find.
        let mut sandbox = loop {
            match find() {
                Ok(sandbox) => break sandbox,
                Err(not_found) => assert_eq!(not_found, NotFound::InNodeNamespace),
            }
        };
        assert_eq!(sandbox.netns().cookie(), Netns::of_process(app.pid()).unwrap().cookie());
        let by_process = pods::by_process().unwrap();
        assert_eq!(by_process[&uid], processes().unwrap(), "both ways lead there");
        assert!(sandbox.is_there::<KernelError>(&uid, || unreachable!("its process lives")).unwrap());

        app.kill();
        assert!(!sandbox.is_there(&uid, processes).unwrap());
        cgroup.clear();
        let removed = next_of(&mut next, &uid);
        assert!(removed.path.ends_with(&form), "{removed:?}");
        assert_eq!(removed.kind, PodEventKind::Removed);
        assert_eq!(find().unwrap_err(), NotFound::NoProcess);
    }
}

#[test]
fn the_next_worker_reads_on_where_the_last_one_stopped() {
    if !can_run() {
        return;
    }
    let kernel = Kernel::load(&LoadOptions::default()).unwrap();
    let mut cgroup = Cgroup::new();
    let _links = kernel.attach(&cgroup.path).unwrap();
    let uids = [1, 2, 3].map(|n| format!("{UID}-0000000001{n:02}"));
    let mut read = |kernel: &Kernel, uid: &str| {
        cgroup.make(&format!("kubepods/pod{uid}"));
        let mut events = kernel.pod_events().unwrap();
        let mut earlier = Vec::new();
        loop {
            match events.try_next() {
                Some(event) if event.uid == uid => return earlier,
                event => earlier.extend(event.map(|event| event.uid)),
            }
        }
    };
    read(&kernel, &uids[0]);
    let restored = Kernel::restore(kernel.hold().unwrap()).unwrap();
    drop(kernel);
    assert!(!read(&restored, &uids[1]).contains(&uids[0]), "what was read once is not read again");
    assert!(!read(&restored, &uids[2]).contains(&uids[1]));
}

#[test]
fn a_cgroup_of_no_pod_is_not_announced() {
    if !can_run() {
        return;
    }
    let kernel = Kernel::load(&LoadOptions::default()).unwrap();
    let mut cgroup = Cgroup::new();
    let _links = kernel.attach(&cgroup.path).unwrap();
    let mut events = kernel.pod_events().unwrap();
    cgroup.make("system.slice/cron.service");
    // A name of the longest length: the kernel's limit for a component.
    let long = format!("pod{}", "a".repeat(252));
    fs::create_dir(cgroup.path.join("kubepods-x")).unwrap();
    fs::remove_dir(cgroup.path.join("kubepods-x")).unwrap();
    cgroup.make(&long);
    let mut seen = Vec::new();
    while !seen.iter().any(|event: &PodEvent| event.path.ends_with(&long)) {
        seen.extend(events.try_next());
    }
    assert!(
        seen.iter().all(|event| !event.path.contains("cron") && !event.path.contains("kubepods-x")),
        "{seen:?}"
    );
}
