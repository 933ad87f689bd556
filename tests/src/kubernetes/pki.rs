//! The cluster's certificates, keys and kubeconfigs, as files: a CA, the API server's own, and one of each client.

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use serde_json::{Value, json};
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// Its members may do everything.
const MASTERS: &str = "system:masters";
/// The group of all kubelets.
const NODES: &str = "system:nodes";
/// Names by which pods call the API server.
const SERVER_NAMES: [&str; 5] = [
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
];

/// The folder of the files.
#[derive(Clone, Debug)]
pub struct Pki {
    folder: PathBuf,
    server: String,
}

impl Pki {
    /// Makes all files of a control plane whose API server is called by `server` (a URL) and has those addresses.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub(super) fn create(folder: &Path, server: &str, addresses: &[IpAddr]) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let pki = Self::open(folder, server);
        let ca = KeyPair::generate()?;
        pki.write("ca.crt", &ca_parameters()?.self_signed(&ca)?.pem())?;
        pki.write("ca.key", &ca.serialize_pem())?;
        pki.issue_server(addresses)?;
        for (file, name, group) in [
            ("admin", "admin", Some(MASTERS)),
            ("apiserver-kubelet-client", "kube-apiserver-kubelet-client", Some(MASTERS)),
            ("kube-controller-manager", "system:kube-controller-manager", None),
            ("kube-scheduler", "system:kube-scheduler", None),
            ("kube-proxy", "system:kube-proxy", None),
        ] {
            pki.issue_client(file, name, group)?;
        }
        let service_accounts = KeyPair::generate()?;
        pki.write("service-accounts.key", &service_accounts.serialize_pem())?;
        pki.write("service-accounts.pub", &service_accounts.public_key_pem())?;
        Ok(pki)
    }

    /// The files that are there already.
    pub(super) fn open(folder: &Path, server: &str) -> Self {
        Self { folder: folder.to_owned(), server: server.to_owned() }
    }

    /// Gives the API server another certificate and key; it takes them up by itself within seconds.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub(super) fn issue_server(&self, addresses: &[IpAddr]) -> Result<()> {
        let mut names: Vec<String> = SERVER_NAMES.map(str::to_owned).to_vec();
        names.extend(addresses.iter().map(ToString::to_string));
        self.issue("apiserver", "kube-apiserver", None, names, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A kubelet's certificate and kubeconfig.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub(super) fn issue_node(&self, node: &str) -> Result<PathBuf> {
        let file = format!("node-{node}");
        self.issue_client(&file, &format!("system:node:{node}"), Some(NODES))?;
        Ok(self.kubeconfig(&file))
    }

    /// A client's certificate and key, and the kubeconfig that names them.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn issue_client(&self, file: &str, name: &str, group: Option<&str>) -> Result<()> {
        self.issue(file, name, group, Vec::new(), ExtendedKeyUsagePurpose::ClientAuth)?;
        let user = json!({
            "client-certificate": self.path(&format!("{file}.crt")),
            "client-key": self.path(&format!("{file}.key")),
        });
        self.write_kubeconfig(file, &user).map(drop)
    }

    /// Writes the kubeconfig of a user with these credentials.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(super) fn write_kubeconfig(&self, file: &str, user: &Value) -> Result<PathBuf> {
        let kubeconfig = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "cluster", "cluster": {
                "server": self.server, "certificate-authority": self.path("ca.crt"),
            }}],
            "users": [{"name": "user", "user": user}],
            "contexts": [{"name": "context", "context": {"cluster": "cluster", "user": "user"}}],
            "current-context": "context",
        });
        // Every JSON document is a YAML document.
        let name = format!("{file}.kubeconfig");
        self.write(&name, &serde_json::to_string_pretty(&kubeconfig)?)?;
        Ok(self.path(&name))
    }

    /// The path of a client's kubeconfig.
    pub fn kubeconfig(&self, file: &str) -> PathBuf {
        self.path(&format!("{file}.kubeconfig"))
    }

    /// The path of one of the files.
    pub fn path(&self, file: &str) -> PathBuf {
        self.folder.join(file)
    }

    fn issue(
        &self,
        file: &str,
        name: &str,
        group: Option<&str>,
        alternative_names: Vec<String>,
        purpose: ExtendedKeyUsagePurpose,
    ) -> Result<()> {
        let ca = KeyPair::from_pem(&fs::read_to_string(self.path("ca.key")).context("the CA's key")?)?;
        let ca = Issuer::new(ca_parameters()?, ca);
        let mut parameters = CertificateParams::new(alternative_names)?;
        parameters.distinguished_name.push(DnType::CommonName, name);
        if let Some(group) = group {
            parameters.distinguished_name.push(DnType::OrganizationName, group);
        }
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![purpose];
        let key = KeyPair::generate()?;
        self.write(&format!("{file}.crt"), &parameters.signed_by(&key, &ca)?.pem())?;
        self.write(&format!("{file}.key"), &key.serialize_pem())
    }

    /// Replaces the file at once: readers see the old one or the new one.
    fn write(&self, file: &str, text: &str) -> Result<()> {
        let (path, fresh) = (self.path(file), self.path(&format!("{file}.fresh")));
        fs::write(&fresh, text).with_context(|| fresh.display().to_string())?;
        fs::rename(&fresh, &path).with_context(|| path.display().to_string())
    }
}

/// What the CA's certificate says; the same each time, so that its key alone is kept.
fn ca_parameters() -> Result<CertificateParams> {
    let mut parameters = CertificateParams::new(Vec::new())?;
    parameters.distinguished_name.push(DnType::CommonName, "test-cluster");
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    Ok(parameters)
}
