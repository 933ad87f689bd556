//! Images made of programs that were built here, and the store from which the cluster's registry ([`super::registry`]) hands them to
//! the nodes under whatever name a manifest calls them by.

use crate::host;
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Media types of the OCI image specification.
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// What is in an image, and what runs in it.
#[derive(Clone, Debug, Default)]
pub struct Image {
    /// By their paths in the image.
    files: BTreeMap<PathBuf, PathBuf>,
    entrypoint: Vec<String>,
    arguments: Vec<String>,
}

impl Image {
    /// A program at the root of the image, under its own name, with the shared libraries that it asks for.
    ///
    /// # Errors
    /// When it is not there.
    pub fn of_program(program: &Path) -> Result<Self> {
        let program = host::existing(program, "an image is made of it")?;
        let name = Path::new("/").join(program.file_name().context("a program has a name")?);
        let entrypoint = vec![name.to_string_lossy().into_owned()];
        let mut files: BTreeMap<PathBuf, PathBuf> =
            shared_libraries(&program)?.into_iter().map(|library| (library.clone(), library)).collect();
        files.insert(name, program);
        Ok(Self { files, entrypoint, arguments: Vec::new() })
    }

    /// The same image with these arguments where a pod gives none.
    #[must_use]
    pub fn arguments(mut self, arguments: &[&str]) -> Self {
        self.arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        self
    }

    /// The one layer.
    fn layer(&self) -> Result<Vec<u8>> {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, source) in &self.files {
            let content = fs::read(source).with_context(|| source.display().to_string())?;
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o755);
            header.set_mtime(0);
            tar.append_data(&mut header, path.strip_prefix("/")?, content.as_slice())?;
        }
        let mut folder = tar::Header::new_gnu();
        folder.set_entry_type(tar::EntryType::Directory);
        folder.set_size(0);
        folder.set_mode(0o1777);
        tar.append_data(&mut folder, "tmp", std::io::empty())?;
        Ok(tar.into_inner()?)
    }
}

/// What the dynamic loader would load for it; nothing for a static program.
fn shared_libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let Ok(list) = host::run("ldd", &[&program.to_string_lossy()], "") else {
        return Ok(Vec::new());
    };
    // `libc.so.6 => /lib/…/libc.so.6 (0x…)`, or the loader's own path alone.
    let libraries = list.lines().filter_map(|line| line.split(" (").next()?.split("=> ").last());
    Ok(libraries.map(|path| PathBuf::from(path.trim())).filter(|path| path.is_absolute()).collect())
}

/// A folder of images by name and of their parts by digest.
#[derive(Clone, Debug)]
pub struct ImageStore {
    folder: PathBuf,
}

impl ImageStore {
    /// The store in that folder.
    pub fn at(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// Keeps an image under a name such as `quay.io/team/app:1`, or in short `app`.
    ///
    /// # Errors
    /// When a file of it cannot be read.
    pub fn add(&self, name: &str, image: &Image) -> Result<()> {
        let layer = image.layer()?;
        let layer_digest = self.add_blob(&layer)?;
        let config = json!({
            "architecture": architecture()?,
            "os": "linux",
            "config": {
                "Entrypoint": image.entrypoint,
                "Cmd": image.arguments,
                "Env": ["PATH=/"],
                "WorkingDir": "/",
            },
            "rootfs": {"type": "layers", "diff_ids": [layer_digest]},
        })
        .to_string();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {
                "mediaType": CONFIG, "digest": self.add_blob(config.as_bytes())?, "size": config.len(),
            },
            "layers": [{"mediaType": LAYER, "digest": layer_digest, "size": layer.len()}],
        })
        .to_string();
        let digest = self.add_blob(manifest.as_bytes())?;
        self.add_name(name, &json!({"mediaType": MANIFEST, "digest": digest, "size": manifest.len()}))
    }

    /// Whether there is an image of that name.
    pub fn has(&self, name: &str) -> bool {
        let Reference { registry, repository, tag } = Reference::parse(name);
        self.manifest(&registry, &repository, &tag).is_some()
    }

    /// Keeps the images of an archive in the OCI layout, under the names that it gives them.
    ///
    /// # Errors
    /// When it is no such archive.
    pub fn add_archive(&self, archive: &Path) -> Result<Vec<String>> {
        let mut index = None;
        let open = File::open(archive).with_context(|| archive.display().to_string())?;
        for entry in tar::Archive::new(open).entries()? {
            let mut entry = entry?;
            let path = entry.path()?.into_owned();
            let mut content = Vec::new();
            if path.starts_with("blobs/sha256") && entry.header().entry_type().is_file() {
                entry.read_to_end(&mut content)?;
                self.add_blob(&content)?;
            } else if path == Path::new("index.json") {
                entry.read_to_end(&mut content)?;
                index = Some(serde_json::from_slice::<Value>(&content).context("index.json")?);
            }
        }
        let index = index.with_context(|| format!("{}: no index.json", archive.display()))?;
        let mut names = Vec::new();
        for manifest in index["manifests"].as_array().into_iter().flatten() {
            let annotations = &manifest["annotations"];
            let name = annotations["io.containerd.image.name"]
                .as_str()
                .or_else(|| annotations["org.opencontainers.image.ref.name"].as_str())
                .with_context(|| format!("{}: an image without a name", archive.display()))?;
            self.add_name(name, manifest)?;
            names.push(Reference::parse(name).to_string());
        }
        Ok(names)
    }

    /// The descriptor and the bytes of a manifest, by a name or a digest.
    pub(super) fn manifest(
        &self,
        registry: &str,
        repository: &str,
        reference: &str,
    ) -> Option<(Value, Vec<u8>)> {
        let descriptor = if reference.starts_with("sha256:") {
            let manifest: Value = serde_json::from_slice(&self.blob(reference)?).ok()?;
            json!({"mediaType": manifest["mediaType"], "digest": reference})
        } else {
            let path = self.folder.join("names").join(registry).join(repository).join(reference);
            serde_json::from_slice(&fs::read(path).ok()?).ok()?
        };
        let bytes = self.blob(descriptor["digest"].as_str()?)?;
        Some((descriptor, bytes))
    }

    /// A part of an image by its digest.
    pub(super) fn blob(&self, digest: &str) -> Option<Vec<u8>> {
        let hex = digest.strip_prefix("sha256:")?;
        let valid = hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
        valid.then(|| fs::read(self.folder.join("blobs").join(hex)).ok())?
    }

    fn add_blob(&self, content: &[u8]) -> Result<String> {
        let hex: String = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
        let folder = self.folder.join("blobs");
        fs::create_dir_all(&folder)?;
        replace(&folder.join(&hex), content)?;
        Ok(format!("sha256:{hex}"))
    }

    fn add_name(&self, name: &str, descriptor: &Value) -> Result<()> {
        let reference = Reference::parse(name);
        let folder = self.folder.join("names").join(&reference.registry).join(&reference.repository);
        fs::create_dir_all(&folder)?;
        replace(&folder.join(&reference.tag), descriptor.to_string().as_bytes())
    }
}

/// Replaces a file at once: a node may be reading it.
fn replace(path: &Path, content: &[u8]) -> Result<()> {
    let fresh = path.with_extension("fresh");
    fs::write(&fresh, content).with_context(|| fresh.display().to_string())?;
    fs::rename(&fresh, path).with_context(|| path.display().to_string())
}

/// This machine's, as images call it.
fn architecture() -> Result<&'static str> {
    match std::env::consts::ARCH {
        "x86_64" => Ok("amd64"),
        "aarch64" => Ok("arm64"),
        other => bail!("no images are made for {other}"),
    }
}

/// An image's name in full.
#[derive(Debug, PartialEq, Eq)]
struct Reference {
    registry: String,
    repository: String,
    tag: String,
}

impl Reference {
    /// Fills in what a short name leaves out, as container engines do.
    fn parse(name: &str) -> Self {
        let (path, tag) = match name.rsplit_once(':') {
            // A colon before a slash is a registry's port.
            Some((path, tag)) if !tag.contains('/') => (path, tag),
            _ => (name, "latest"),
        };
        let (registry, repository) = match path.split_once('/') {
            Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => (host, rest.to_owned()),
            Some(_) => ("docker.io", path.to_owned()),
            None => ("docker.io", format!("library/{path}")),
        };
        Self { registry: registry.to_owned(), repository, tag: tag.to_owned() }
    }
}

impl std::fmt::Display for Reference {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}/{}:{}", self.registry, self.repository, self.tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_filled_in() {
        for (name, full) in [
            ("app", "docker.io/library/app:latest"),
            ("team/app:1", "docker.io/team/app:1"),
            ("quay.io/team/app", "quay.io/team/app:latest"),
            ("localhost:5000/app:1", "localhost:5000/app:1"),
            ("docker.io/library/evenkeel:0.1.0", "docker.io/library/evenkeel:0.1.0"),
        ] {
            assert_eq!(Reference::parse(name).to_string(), full);
        }
    }

    #[test]
    fn an_image_is_found_by_its_name_and_by_its_digest() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = ImageStore::at(folder.path());
        let image = Image::of_program(&std::env::current_exe().expect("a path")).expect("it is there");
        store.add("quay.io/team/app", &image).expect("it can be read");
        let (descriptor, manifest) = store.manifest("quay.io", "team/app", "latest").expect("it was added");
        let digest = descriptor["digest"].as_str().expect("a string");
        assert_eq!(store.blob(digest), Some(manifest.clone()));
        let (_, by_digest) = store.manifest("quay.io", "team/app", digest).expect("it was added");
        assert_eq!(by_digest, manifest);
        assert!(store.manifest("quay.io", "team/app", "2").is_none());
    }

    #[test]
    fn a_digest_is_no_way_out_of_the_store() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        assert_eq!(ImageStore::at(folder.path()).blob("sha256:../../etc/passwd"), None);
    }
}
