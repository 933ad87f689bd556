//! Into a pod's network namespace, for as long as a socket takes to be made, and back. Next: [`listener`](super::listener).
//!
//! A socket belongs to the namespace it was made in, whatever is done with it later: so nothing but `socket()` is done inside.

use super::error::{Context as _, KernelError, if_there};
use super::pods::is_kernel_thread;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::OnceLock;

/// `SO_NETNS_COOKIE` of `asm-generic/socket.h`, since Linux 5.14: not in libc yet.
const SO_NETNS_COOKIE: libc::c_int = 71;
/// `SIOCGSKNS` of `linux/sockios.h`: the network namespace of a socket.
const SIOCGSKNS: libc::Ioctl = 0x894c;

/// A network namespace. It lives as long as this does, if nothing else holds it.
#[derive(Debug)]
pub struct Netns {
    fd: OwnedFd,
    cookie: u64,
}

impl Netns {
    /// The namespace at a path: `/run/netns/NAME`, `/proc/PID/ns/net`.
    ///
    /// # Errors
    /// No such path; not a network namespace; no right to enter it.
    pub fn open(path: &Path) -> Result<Self, KernelError> {
        // What is no namespace may be a pipe, which would be waited for.
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
        let file = file.context(|| format!("opening the network namespace {}", path.display()))?;
        Self::from_fd(file.into()).context(|| format!("entering the network namespace {}", path.display()))
    }

    /// The namespace of a process.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn of_process(pid: u32) -> Result<Self, KernelError> {
        Self::open(Path::new(&format!("/proc/{pid}/ns/net")))
    }

    /// The namespace of a socket, as of a listener that the keeper held.
    ///
    /// # Errors
    /// Not a socket; no CAP_NET_ADMIN in its namespace.
    pub fn of_socket(socket: BorrowedFd<'_>) -> io::Result<Self> {
        // SAFETY: takes no argument, returns a descriptor or -1.
        let fd = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCGSKNS) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made this descriptor for us.
        Self::from_fd(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// The namespace that a descriptor stands for.
    ///
    /// # Errors
    /// Not a network namespace; no right to enter it.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        let probe = make_inside(fd.as_fd(), libc::AF_UNIX, libc::SOCK_DGRAM, 0)?;
        let cookie = cookie_of(probe.as_fd())?;
        Ok(Self { fd, cookie })
    }

    /// The namespace's cookie: never given to another namespace while the node runs.
    pub fn cookie(&self) -> u64 {
        self.cookie
    }

    /// Whether this is no pod's to be enrolled: the host's, or the agent's own.
    ///
    /// # Errors
    /// No CAP_SYS_PTRACE.
    pub fn is_outside_of_pods(&self) -> io::Result<bool> {
        is_excluded(identity_of(&self.fd)?)
    }

    /// Another handle of the same namespace.
    ///
    /// # Errors
    /// No more descriptors.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { fd: self.fd.try_clone()?, cookie: self.cookie })
    }

    /// Gives up the handle for its descriptor.
    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }

    /// Makes a socket in this namespace; see [`socket_in`].
    ///
    /// # Errors
    /// As [`socket_in`].
    pub fn socket(&self, domain: i32, kind: i32, protocol: i32, mark: Option<u32>) -> io::Result<OwnedFd> {
        socket_in(self.as_fd(), self.cookie, domain, kind, protocol, mark)
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Makes a socket in a network namespace, from any thread: closed on exec, with `SO_MARK` set if a mark is given (else the
/// agent's own programs would take it). `kind` may carry `SOCK_NONBLOCK`.
///
/// # Errors
/// No right to enter; no such kind of socket; or the socket turns out to be of another namespace than the expected one, which
/// would let one pod dial as another.
///
/// # Panics
/// Ends the process if the way back fails: a thread lost in a pod would act as that pod.
pub fn socket_in(
    netns: BorrowedFd<'_>,
    expected_cookie: u64,
    domain: i32,
    kind: i32,
    protocol: i32,
    mark: Option<u32>,
) -> io::Result<OwnedFd> {
    let socket = make_inside(netns, domain, kind, protocol)?;
    let cookie = cookie_of(socket.as_fd())?;
    if cookie != expected_cookie {
        let message = format!("socket made in network namespace {cookie} instead of {expected_cookie}");
        return Err(io::Error::other(message));
    }
    if let Some(mark) = mark {
        set_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_MARK, &mark)?;
    }
    Ok(socket)
}

/// The cookie of a socket's network namespace.
///
/// # Errors
/// ENOPROTOOPT before Linux 5.14.
pub fn cookie_of(socket: BorrowedFd<'_>) -> io::Result<u64> {
    let mut cookie = 0_u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to the value.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}

/// Whether a process is in a network namespace that is no pod's to be enrolled: the host's, or the agent's own. `None`: it has ended.
///
/// # Errors
/// No CAP_SYS_PTRACE; the host's namespace cannot be told.
pub(super) fn is_outside_of_pods(pid: u32) -> io::Result<Option<bool>> {
    // That of the host is no word on the process: what is missing there is not passed over.
    if_there(identity_of_process(pid))?.map(is_excluded).transpose()
}

/// The host's is the first process's (the agent's pod has hostPID), and this process's where it runs on the host itself.
fn is_excluded(namespace: (u64, u64)) -> io::Result<bool> {
    Ok(namespace == identity_of(home()?)? || namespace == identity_of_host()?)
}

/// The first process may be one that nobody may look at; the kernel's own threads are in the host's namespace too. Without the host's
/// PIDs there is none to be seen.
fn identity_of_host() -> io::Result<(u64, u64)> {
    const FIRST_PROCESS: u32 = 1;
    const FIRST_KERNEL_THREAD: u32 = 2;
    identity_of_process(FIRST_PROCESS).or_else(|refused| match is_kernel_thread(FIRST_KERNEL_THREAD) {
        true => identity_of_process(FIRST_KERNEL_THREAD),
        false => Err(refused),
    })
}

/// What tells a namespace from the others that there are now: its file's device and inode. The inode is used again later.
fn identity_of(namespace: impl AsFd) -> io::Result<(u64, u64)> {
    let stat = rustix::fs::fstat(namespace)?;
    Ok((stat.st_dev, stat.st_ino))
}

fn identity_of_process(pid: u32) -> io::Result<(u64, u64)> {
    let stat = rustix::fs::stat(format!("/proc/{pid}/ns/net"))?;
    Ok((stat.st_dev, stat.st_ino))
}

/// Sets a socket option.
pub(super) fn set_option<T>(socket: BorrowedFd<'_>, level: i32, name: i32, value: &T) -> io::Result<()> {
    // SAFETY: the value is as long as said, and the kernel copies it.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The namespace that the process was started in, where each thread is but for moments.
fn home() -> io::Result<BorrowedFd<'static>> {
    static HOME: OnceLock<OwnedFd> = OnceLock::new();
    if let Some(home) = HOME.get() {
        return Ok(home.as_fd());
    }
    let opened = File::open("/proc/self/ns/net")?.into();
    Ok(HOME.get_or_init(|| opened).as_fd())
}

fn make_inside(netns: BorrowedFd<'_>, domain: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    let home = home()?;
    enter(netns)?;
    // SAFETY: plain values in, a descriptor or -1 out.
    let fd = unsafe { libc::socket(domain, kind | libc::SOCK_CLOEXEC, protocol) };
    let made = if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(fd) };
    if let Err(error) = enter(home) {
        tracing::error!(%error, "cannot return from a pod's network namespace: the process ends");
        std::process::abort();
    }
    // SAFETY: the kernel has just made this descriptor for us.
    made.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
}

fn enter(netns: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: moves this thread only; nothing in this process depends on a thread's namespace but the socket made inside.
    if unsafe { libc::setns(netns.as_raw_fd(), libc::CLONE_NEWNET) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
