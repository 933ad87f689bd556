//! Where the endpoints are: TCP, or, for the admin endpoint, a unix socket. They are answered by [`super::serve`].

use super::guard::Access;
use super::serve::{self, Bounds};
use anyhow::{Context as _, Result, bail, ensure};
use axum::Router;
use schemars::JsonSchema;
use serde::{Serialize, Serializer};
use socket2::SockRef;
use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;
use tokio::net::{TcpListener, UnixListener};

/// A client that acknowledges nothing of what was sent for so long has gone without a word: as long as one may take nothing of an answer.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(60);

/// Only the agent's own user may open its socket.
const SOCKET_MODE: u32 = 0o600;

/// Where the admin endpoint is.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String")]
pub enum AdminAddress {
    /// TCP.
    Tcp(SocketAddr),
    /// A unix socket at this path.
    Unix(PathBuf),
}

impl FromStr for AdminAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return match path.starts_with('/') {
                true => Ok(Self::Unix(path.into())),
                false => Err("expected unix:/PATH, from the root".into()),
            };
        }
        let address = text.parse().map(Self::Tcp);
        address.map_err(|_| "expected ADDRESS:PORT, as 127.0.0.1:15800, or unix:/PATH".into())
    }
}

impl fmt::Display for AdminAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Serialize for AdminAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The admin endpoint's socket, before it is served.
#[derive(Debug)]
pub enum AdminListener {
    /// TCP.
    Tcp(TcpListener),
    /// A unix socket, whose file goes when it is dropped.
    Unix(UnixListener, SocketFile),
}

/// A socket's file, which is taken away with this.
#[derive(Debug)]
pub struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Another's that has taken its place meanwhile is not told apart: an agent says so before it takes one.
        let _ = fs::remove_file(&self.0);
    }
}

/// Binds an endpoint; `name` is what it is called in the message where that fails.
pub async fn bind(name: &str, flag: &str, address: SocketAddr) -> Result<TcpListener> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address} for {name}: choose another with {flag}"))?;
    // What is accepted inherits it.
    SockRef::from(&listener).set_tcp_user_timeout(Some(ACKNOWLEDGED_WITHIN))?;
    Ok(listener)
}

/// Binds the admin endpoint.
///
/// # Errors
/// Somebody else is there.
pub async fn bind_admin(address: &AdminAddress) -> Result<AdminListener> {
    match address {
        AdminAddress::Tcp(address) => {
            Ok(AdminListener::Tcp(bind("the admin endpoint", "--admin", *address).await?))
        }
        AdminAddress::Unix(path) => bind_socket(path).with_context(|| {
            format!("cannot listen on {address} for the admin endpoint: choose another with --admin")
        }),
    }
}

/// Takes the place of a socket that nobody listens on any more, and of nothing else.
fn bind_socket(path: &Path) -> Result<AdminListener> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
        Ok(found) => {
            ensure!(found.file_type().is_socket(), "there is a file that is no socket");
            match UnixStream::connect(path) {
                Ok(_) => bail!("somebody listens there: another agent"),
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path)?,
                Err(error) => {
                    return Err(error)
                        .context("there is a socket, and whether somebody listens cannot be told");
                }
            }
        }
    }
    // Made under another name, so that nobody finds it before it is closed to others.
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".{}", std::process::id()));
    let draft = PathBuf::from(draft);
    let _ = fs::remove_file(&draft);
    let listener = UnixListener::bind(&draft)?;
    let moved = fs::set_permissions(&draft, fs::Permissions::from_mode(SOCKET_MODE))
        .and_then(|()| fs::rename(&draft, path));
    if let Err(error) = moved {
        let _ = fs::remove_file(&draft);
        return Err(error.into());
    }
    Ok(AdminListener::Unix(listener, SocketFile(path.to_owned())))
}

impl AdminListener {
    /// Who may ask there.
    pub fn access(&self) -> Access {
        match self {
            Self::Tcp(listener) => {
                listener.local_addr().map_or(Access::Tcp(None), |at| Access::Tcp(Some(at.ip())))
            }
            Self::Unix(..) => Access::Socket,
        }
    }

    /// Serves until the runtime ends. The socket's file goes with what is given back.
    pub fn serve(self, router: Router) -> Option<SocketFile> {
        match self {
            Self::Tcp(listener) => {
                tokio::spawn(serve::serve(listener, client, Bounds::LOCAL, router));
                None
            }
            Self::Unix(listener, file) => {
                tokio::spawn(serve::serve(listener, |_| None, Bounds::LOCAL, router));
                Some(file)
            }
        }
    }
}

/// Serves until the runtime ends, to whoever in the cluster asks.
pub fn serve_all(listener: TcpListener, router: Router) {
    tokio::spawn(serve::serve(listener, client, Bounds::OPEN, router));
}

fn client(address: &SocketAddr) -> Option<IpAddr> {
    Some(address.ip().to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_tcp_or_a_path() {
        for text in ["127.0.0.1:15800", "[::1]:1", "unix:/run/evenkeel/admin.sock"] {
            assert_eq!(text.parse::<AdminAddress>().unwrap().to_string(), text);
        }
        for wrong in ["", "15800", "localhost:15800", "unix:admin.sock", "unix:", "/run/admin.sock"] {
            assert!(wrong.parse::<AdminAddress>().is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn connections_end_with_clients_that_acknowledge_nothing() {
        let listener = bind("a test", "--test", "127.0.0.1:0".parse().unwrap()).await.unwrap();
        let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        assert_eq!(SockRef::from(&accepted).tcp_user_timeout().unwrap(), Some(ACKNOWLEDGED_WITHIN));
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_or_a_file_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let address = AdminAddress::Unix(path.clone());
        let first = bind_admin(&address).await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let error = format!("{:#}", bind_admin(&address).await.unwrap_err());
        assert!(error.contains("somebody listens there"), "{error}");
        // As a killed agent leaves it: the socket is closed, the file stays.
        let AdminListener::Unix(listener, file) = first else { panic!("a path is a unix socket") };
        drop(listener);
        assert!(path.exists());
        let second = bind_admin(&address).await.unwrap();
        std::mem::forget(file);
        drop(second);
        assert!(!path.exists(), "what is stopped in order leaves nothing");
        fs::write(&path, "mine").unwrap();
        let error = format!("{:#}", bind_admin(&address).await.unwrap_err());
        assert!(error.contains("no socket") && path.exists(), "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
