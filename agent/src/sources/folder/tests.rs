//! The folder with real files, changed as people and tools change them. Each test waits for the next batch.

use super::*;
use crate::sources::rows::{Row, RowKey};
use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;
use tempfile::TempDir;

fn namespace(name: &str) -> String {
    format!("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}\n")
}

fn open(folder: &TempDir) -> (FolderSource, Vec<String>) {
    let (source, initial) = FolderSource::open(folder.path()).unwrap();
    (source, texts(&initial))
}

/// `+` what was set, `-` what was removed.
fn texts(changes: &[Change]) -> Vec<String> {
    let mut texts: Vec<String> = changes
        .iter()
        .map(|change| match change {
            Change::Set(row) => format!("+{}", row.key()),
            Change::Remove(key) => format!("-{key}"),
        })
        .collect();
    texts.sort();
    texts
}

async fn next(source: &mut FolderSource) -> Vec<String> {
    texts(&source.next().await)
}

/// All changes up to this one: on a busy machine a moment between two steps of a change may be seen.
async fn up_to(source: &mut FolderSource, last: &str) -> Vec<String> {
    let mut told = next(source).await;
    while !told.iter().any(|change| change == last) {
        told.extend(next(source).await);
    }
    told.sort();
    told
}

/// Puts a file in another's place, as careful tools do: to write over it would empty it first.
fn exchange(file: &Path, text: impl AsRef<[u8]>) {
    let unfinished = file.with_extension("tmp");
    fs::write(&unfinished, text).unwrap();
    fs::rename(unfinished, file).unwrap();
}

/// Waits until the folder has exactly this many problems, and returns them as text without the folder's name.
async fn problems(source: &mut FolderSource, folder: &TempDir, count: usize) -> Vec<String> {
    let problems = source.problems();
    loop {
        let current = problems.current();
        if current.len() == count {
            let prefix = format!("{}/", folder.path().display());
            return current.iter().map(|problem| problem.to_string().replace(&prefix, "")).collect();
        }
        tokio::select! {
            changes = source.next() => panic!("a change came instead of {count} problems: {changes:?}, {current:?}"),
            () = tokio::time::sleep(Duration::from_millis(5)) => {}
        }
    }
}

#[tokio::test]
async fn files_that_come_change_and_go_are_told() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("a.yaml"), namespace("a")).unwrap();
    let (mut source, initial) = open(&folder);
    assert_eq!(initial, ["+Namespace a"]);
    fs::write(folder.path().join("b.yml"), namespace("b")).unwrap();
    assert_eq!(next(&mut source).await, ["+Namespace b"]);
    fs::write(folder.path().join("a.yaml"), namespace("c")).unwrap();
    assert_eq!(up_to(&mut source, "+Namespace c").await, ["+Namespace c", "-Namespace a"]);
    fs::remove_file(folder.path().join("b.yml")).unwrap();
    assert_eq!(next(&mut source).await, ["-Namespace b"]);
}

#[tokio::test]
async fn a_change_of_a_row_is_told_with_the_row() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("a.yaml");
    fs::write(&file, namespace("a")).unwrap();
    let (mut source, _) = open(&folder);
    exchange(&file, namespace("a") + "  labels: {evenkeel.dev/enabled: \"true\"}\n");
    let changes = source.next().await;
    let [Change::Set(Row::Namespace(row))] = &changes[..] else { panic!("{changes:?}") };
    assert_eq!(row.enabled, crate::sources::rows::Enabled::Yes);
}

#[tokio::test]
async fn editors_leftovers_do_not_count_and_a_rename_over_a_file_is_one_change() {
    let folder = TempDir::new().unwrap();
    let file = |name: &str| folder.path().join(name);
    fs::write(file("a.yaml"), namespace("a")).unwrap();
    let (mut source, _) = open(&folder);
    // What vim does: a test file, a swap file, the old one aside, the new one in its place.
    fs::write(file("4913"), "").unwrap();
    fs::write(file(".a.yaml.swp"), [0, 159, 146, 150]).unwrap();
    fs::rename(file("a.yaml"), file("a.yaml~")).unwrap();
    fs::write(file("a.yaml"), namespace("b")).unwrap();
    assert_eq!(up_to(&mut source, "+Namespace b").await, ["+Namespace b", "-Namespace a"]);
    exchange(&file("a.yaml"), namespace("c"));
    assert_eq!(next(&mut source).await, ["+Namespace c", "-Namespace b"]);
    assert!(source.problems().current().is_empty());
}

#[tokio::test]
async fn a_mounted_config_map_changes_as_a_whole() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name);
    let generation = |name: &str, objects: [&str; 2]| {
        fs::create_dir(path(name)).unwrap();
        for (file, object) in ["one.yaml", "two.yaml"].iter().zip(objects) {
            fs::write(path(name).join(file), namespace(object)).unwrap();
        }
    };
    generation("..first", ["a", "b"]);
    symlink("..first", path("..data")).unwrap();
    for file in ["one.yaml", "two.yaml"] {
        symlink(Path::new("..data").join(file), path(file)).unwrap();
    }
    let (mut source, initial) = open(&folder);
    assert_eq!(initial, ["+Namespace a", "+Namespace b"]);
    // The objects change places: a state from both generations would hold one of them twice.
    generation("..second", ["b", "c"]);
    symlink("..second", path("..data_tmp")).unwrap();
    fs::rename(path("..data_tmp"), path("..data")).unwrap();
    fs::remove_dir_all(path("..first")).unwrap();
    assert_eq!(next(&mut source).await, ["+Namespace c", "-Namespace a"]);
}

#[tokio::test]
async fn a_folder_that_is_exchanged_by_a_symbolic_link_is_followed() {
    let outer = TempDir::new().unwrap();
    for name in ["v1", "v2"] {
        fs::create_dir(outer.path().join(name)).unwrap();
        fs::write(outer.path().join(name).join("a.yaml"), namespace(name)).unwrap();
    }
    let link = outer.path().join("current");
    symlink("v1", &link).unwrap();
    let (mut source, initial) = FolderSource::open(&link).unwrap();
    assert_eq!(texts(&initial), ["+Namespace v1"]);
    symlink("v2", outer.path().join("next")).unwrap();
    fs::rename(outer.path().join("next"), &link).unwrap();
    assert_eq!(next(&mut source).await, ["+Namespace v2", "-Namespace v1"]);
    fs::write(outer.path().join("v2/b.yaml"), namespace("later")).unwrap();
    assert_eq!(next(&mut source).await, ["+Namespace later"]);
}

#[tokio::test]
async fn a_broken_file_keeps_the_last_good_state_of_everything_until_it_is_mended() {
    let folder = TempDir::new().unwrap();
    let file = |name: &str| folder.path().join(name);
    fs::write(file("a.yaml"), namespace("a")).unwrap();
    let (mut source, _) = open(&folder);
    fs::write(file("b.yaml"), namespace("b") + "---\nkind: [\n").unwrap();
    let told = problems(&mut source, &folder, 1).await;
    assert!(told[0].starts_with("b.yaml:"), "{told:?}");
    assert!(told[0].ends_with("; the folder's last good state goes on"), "{told:?}");
    // Nothing else counts either as long as it lasts.
    fs::write(file("a.yaml"), namespace("a2")).unwrap();
    fs::write(file("c.yaml"), "kind: x\n").unwrap();
    assert_eq!(problems(&mut source, &folder, 2).await.len(), 2);
    fs::remove_file(file("c.yaml")).unwrap();
    exchange(&file("b.yaml"), namespace("b"));
    assert_eq!(next(&mut source).await, ["+Namespace a2", "+Namespace b", "-Namespace a"]);
    assert!(source.problems().current().is_empty());
}

#[tokio::test]
async fn a_folder_that_is_broken_from_the_start_says_nothing_until_it_is_mended() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("a.yaml"), namespace("a")).unwrap();
    fs::write(folder.path().join("b.yaml"), "- 1\n").unwrap();
    let (mut source, initial) = open(&folder);
    assert_eq!(initial, [] as [&str; 0]);
    assert_eq!(source.problems().current().len(), 1);
    fs::remove_file(folder.path().join("b.yaml")).unwrap();
    assert_eq!(next(&mut source).await, ["+Namespace a"]);
}

#[tokio::test]
async fn an_object_that_is_there_twice_names_both_places() {
    let folder = TempDir::new().unwrap();
    let file = |name: &str| folder.path().join(name);
    fs::write(file("a.yaml"), namespace("a")).unwrap();
    let (mut source, _) = open(&folder);
    fs::write(file("b.yaml"), format!("# a comment\n---\n{}", namespace("a"))).unwrap();
    let told = problems(&mut source, &folder, 1).await;
    assert_eq!(told, ["b.yaml:3: Namespace a: is in a.yaml:1, too; the folder's last good state goes on"]);
    fs::remove_file(file("a.yaml")).unwrap();
    // The same row from another file is no change; the problem goes.
    assert_eq!(problems(&mut source, &folder, 0).await, [] as [&str; 0]);
}

#[tokio::test]
async fn two_pods_with_one_uid_are_told() {
    let folder = TempDir::new().unwrap();
    let pod = |name: &str| format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, uid: u1}}\n");
    fs::write(folder.path().join("pods.yaml"), format!("{}---\n{}", pod("a"), pod("b"))).unwrap();
    let (mut source, initial) = open(&folder);
    assert_eq!(initial, [] as [&str; 0]);
    let told = problems(&mut source, &folder, 1).await;
    assert!(told[0].contains("Pod default/b: has the UID u1, which Pod default/a has, too"), "{told:?}");
}

#[tokio::test]
async fn a_folder_that_goes_keeps_its_last_state_and_is_read_again_when_it_is_back() {
    let outer = TempDir::new().unwrap();
    let folder = outer.path().join("folder");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("a.yaml"), namespace("a")).unwrap();
    let (mut source, _) = FolderSource::open(&folder).unwrap();
    fs::rename(&folder, outer.path().join("aside")).unwrap();
    let told = problems(&mut source, &outer, 1).await;
    assert!(told[0].starts_with("folder: can't read the folder: No such file"), "{told:?}");
    assert!(told[0].ends_with("its last state goes on"), "{told:?}");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("a.yaml"), namespace("a")).unwrap();
    fs::write(folder.join("b.yaml"), namespace("b")).unwrap();
    up_to(&mut source, "+Namespace b").await;
    assert!(source.problems().current().is_empty());
}

#[tokio::test]
async fn what_is_no_file_or_too_large_is_told_and_read_no_further() {
    let folder = TempDir::new().unwrap();
    fs::create_dir(folder.path().join("sub.yaml")).unwrap();
    fs::write(folder.path().join("a.yaml"), namespace("a")).unwrap();
    let (mut source, initial) = open(&folder);
    assert_eq!(initial, ["+Namespace a"], "a folder within the folder is left alone");
    symlink("nowhere", folder.path().join("b.yaml")).unwrap();
    fs::File::create(folder.path().join("c.yaml")).unwrap().set_len(read::MAX_FILE_BYTES + 1).unwrap();
    symlink("/dev/null", folder.path().join("d.yaml")).unwrap();
    let told = problems(&mut source, &folder, 3).await;
    assert!(told[0].starts_with("b.yaml: can't read it: No such file"), "{told:?}");
    assert!(told[1].starts_with("c.yaml: can't read it: it is larger than 128 MiB"), "{told:?}");
    assert!(told[2].starts_with("d.yaml: can't read it: it is not a file"), "{told:?}");
}

#[test]
fn a_folder_that_is_not_there_is_an_error_that_names_it() {
    let folder = TempDir::new().unwrap();
    let missing = folder.path().join("missing");
    let error = FolderSource::open(&missing).unwrap_err().to_string();
    assert!(
        error.starts_with(&format!("can't read the folder {}: No such file", missing.display())),
        "{error}"
    );
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let error = FolderSource::open(&file).unwrap_err().to_string();
    assert!(error.contains("Not a directory"), "{error}");
}

#[tokio::test]
async fn the_key_of_a_pod_without_a_uid_is_its_name() {
    let folder = TempDir::new().unwrap();
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: cart, namespace: shop}\n";
    fs::write(folder.path().join("pod.yaml"), pod).unwrap();
    let (_source, initial) = FolderSource::open(folder.path()).unwrap();
    let [Change::Set(row)] = &initial[..] else { panic!("{initial:?}") };
    assert_eq!(row.key(), RowKey::Pod("shop/cart".into()));
}
