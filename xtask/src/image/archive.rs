//! An image as one file: an OCI image layout (image-spec 1.1) that is a `docker save` archive too.
//!
//! Everything that differs from machine to machine or from run to run is fixed: order, owners, time stamps.

use std::collections::BTreeSet;
use std::env::consts::ARCH;
use std::fmt;
use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

use super::rootfs::{AGENT, RootFs};

const FOLDER_MODE: u32 = 0o755;
const FILE_MODE: u32 = 0o644;
/// The time that all say who have none to say.
const CREATED: &str = "1970-01-01T00:00:00Z";
/// What a name without a registry stands for; containerd wants it in full.
const DEFAULT_REGISTRY: &str = "docker.io";

/// An image's name and tag.
#[derive(Clone, Debug)]
pub(super) struct Reference {
    name: String,
    tag: String,
}

impl Reference {
    /// Reads `NAME:TAG`.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let (name, tag) = text.rsplit_once(':').with_context(|| format!("{text:?} has no tag: NAME:TAG"))?;
        ensure!(!name.is_empty() && !tag.is_empty() && !tag.contains('/'), "{text:?} is not NAME:TAG");
        Ok(Self { name: name.to_owned(), tag: tag.to_owned() })
    }

    /// The name with its registry, as `docker.io/library/evenkeel:0.1.0`.
    fn full(&self) -> String {
        let first = self.name.split('/').next().unwrap_or_default();
        if !self.name.contains('/') {
            format!("{DEFAULT_REGISTRY}/library/{self}")
        } else if first.contains(['.', ':']) || first == "localhost" {
            self.to_string()
        } else {
            format!("{DEFAULT_REGISTRY}/{self}")
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, self.tag)
    }
}

/// What was written.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Image {
    /// The manifest's, by which a registry would know the image.
    pub(super) digest: String,
    /// How large the archive is.
    pub(super) bytes: u64,
}

/// Writes the archive.
pub(super) fn write(rootfs: &RootFs, reference: &Reference, output: &Path) -> Result<Image> {
    let unpacked = layer(rootfs).context("cannot make the layer")?;
    let layer = Blob::new("application/vnd.oci.image.layer.v1.tar+gzip", compressed(&unpacked)?);
    let config = Blob::json("application/vnd.oci.image.config.v1+json", &config(&digest(&unpacked)));
    let manifest = Blob::json(
        "application/vnd.oci.image.manifest.v1+json",
        &json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config.descriptor(),
            "layers": [layer.descriptor()],
        }),
    );
    let mut listed = manifest.descriptor();
    listed["annotations"] = json!({
        // containerd's name for it, and everyone's.
        "io.containerd.image.name": reference.full(),
        "org.opencontainers.image.ref.name": reference.tag,
    });
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [listed],
    });
    let for_docker = json!([{
        "Config": config.path(),
        "RepoTags": [reference.to_string()],
        "Layers": [layer.path()],
    }]);

    let write = || -> io::Result<u64> {
        let mut archive = Builder::new(fs::File::create(output)?);
        for folder in ["blobs/", "blobs/sha256/"] {
            append(&mut archive, folder, EntryType::Directory, FOLDER_MODE, &[])?;
        }
        let mut blobs = [&config, &layer, &manifest];
        blobs.sort_by_key(|blob| blob.path());
        for blob in blobs {
            append(&mut archive, &blob.path(), EntryType::Regular, FILE_MODE, &blob.contents)?;
        }
        for (name, contents) in [
            ("index.json", index.to_string()),
            ("manifest.json", for_docker.to_string()),
            ("oci-layout", json!({ "imageLayoutVersion": "1.0.0" }).to_string()),
        ] {
            append(&mut archive, name, EntryType::Regular, FILE_MODE, contents.as_bytes())?;
        }
        let mut file = archive.into_inner()?;
        file.flush()?;
        Ok(file.metadata()?.len())
    };
    let bytes = write().with_context(|| format!("cannot write {}", output.display()))?;
    Ok(Image { digest: digest(&manifest.contents), bytes })
}

/// The files as one tar, each folder before what is in it.
fn layer(rootfs: &RootFs) -> io::Result<Vec<u8>> {
    let mut archive = Builder::new(Vec::new());
    let folders: BTreeSet<String> = rootfs
        .files()
        .flat_map(|(path, _)| path.match_indices('/').map(|(end, _)| path[..=end].to_owned()))
        .collect();
    for folder in folders {
        append(&mut archive, &folder, EntryType::Directory, FOLDER_MODE, &[])?;
    }
    for (path, file) in rootfs.files() {
        append(&mut archive, path, EntryType::Regular, file.mode, &file.contents)?;
    }
    archive.into_inner()
}

/// Adds an entry that says nothing of who made it, or when.
fn append(
    archive: &mut Builder<impl io::Write>,
    path: &str,
    kind: EntryType,
    mode: u32,
    contents: &[u8],
) -> io::Result<()> {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(contents.len() as u64);
    archive.append_data(&mut header, path, contents)
}

fn compressed(bytes: &[u8]) -> io::Result<Vec<u8>> {
    // Its header has neither a name nor a time.
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes)?;
    encoder.finish()
}

fn config(layer: &str) -> Value {
    json!({
        "created": CREATED,
        "architecture": match ARCH { "x86_64" => "amd64", "aarch64" => "arm64", other => other },
        "os": "linux",
        "config": {
            // Added capabilities are a root's alone; the DaemonSet drops all others.
            "User": "0:0",
            "Env": ["PATH=/usr/local/bin"],
            "Entrypoint": [format!("/{AGENT}")],
            "WorkingDir": "/",
            "Labels": {
                "org.opencontainers.image.title": "evenkeel",
                "org.opencontainers.image.version": env!("CARGO_PKG_VERSION"),
                "org.opencontainers.image.licenses": "Apache-2.0",
            },
        },
        "rootfs": { "type": "layers", "diff_ids": [layer] },
        "history": [{ "created": CREATED, "created_by": "cargo xtask image" }],
    })
}

struct Blob {
    media_type: &'static str,
    contents: Vec<u8>,
    digest: String,
}

impl Blob {
    fn new(media_type: &'static str, contents: Vec<u8>) -> Self {
        Self { media_type, digest: digest(&contents), contents }
    }

    fn json(media_type: &'static str, value: &Value) -> Self {
        Self::new(media_type, value.to_string().into_bytes())
    }

    fn descriptor(&self) -> Value {
        json!({ "mediaType": self.media_type, "digest": self.digest, "size": self.contents.len() })
    }

    fn path(&self) -> String {
        format!("blobs/{}", self.digest.replace(':', "/"))
    }
}

/// `sha256:…`, as images name what they are made of.
fn digest(bytes: &[u8]) -> String {
    let sum = Sha256::digest(bytes);
    sum.iter().fold(String::from("sha256:"), |text, byte| text + &format!("{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_completed_as_container_engines_do() {
        for (name, full) in [
            ("evenkeel:1", "docker.io/library/evenkeel:1"),
            ("team/evenkeel:1", "docker.io/team/evenkeel:1"),
            ("example.org/evenkeel:1", "example.org/evenkeel:1"),
            ("localhost/evenkeel:1", "localhost/evenkeel:1"),
            ("mirror:5000/evenkeel:1", "mirror:5000/evenkeel:1"),
        ] {
            assert_eq!(Reference::parse(name).unwrap().full(), full);
        }
    }

    #[test]
    fn a_name_without_a_tag_is_refused() {
        for name in ["evenkeel", "mirror:5000/evenkeel", "evenkeel:", ":1"] {
            assert!(Reference::parse(name).is_err(), "{name}");
        }
    }
}
