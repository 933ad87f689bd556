//! The few bpf() calls that aya keeps to itself: links as plain descriptors, that can be given away, and a look at what
//! others attached.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

/// Where in a cgroup a program attaches: `enum bpf_attach_type` of `linux/bpf.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum AttachType {
    /// `connect()` on an AF_INET socket.
    Connect4 = 10,
    /// `connect()` on an AF_INET6 socket.
    Connect6 = 11,
    /// `getpeername()` on an AF_INET socket.
    GetPeerName4 = 29,
    /// `getpeername()` on an AF_INET6 socket.
    GetPeerName6 = 30,
    /// `getsockname()` on an AF_INET socket.
    GetSockName4 = 31,
    /// `getsockname()` on an AF_INET6 socket.
    GetSockName6 = 32,
}

impl AttachType {
    /// All that the agent attaches to.
    pub(super) const ALL: [Self; 6] = [
        Self::Connect4,
        Self::Connect6,
        Self::GetPeerName4,
        Self::GetPeerName6,
        Self::GetSockName4,
        Self::GetSockName6,
    ];

    /// Its name in messages.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Connect4 => "connect4",
            Self::Connect6 => "connect6",
            Self::GetPeerName4 => "getpeername4",
            Self::GetPeerName6 => "getpeername6",
            Self::GetSockName4 => "getsockname4",
            Self::GetSockName6 => "getsockname6",
        }
    }
}

const BPF_PROG_QUERY: libc::c_long = 16;
const BPF_RAW_TRACEPOINT_OPEN: libc::c_long = 17;
const BPF_LINK_CREATE: libc::c_long = 28;

/// Calls bpf() with one of the attribute structures below.
fn bpf<Attributes>(command: libc::c_long, attributes: &mut Attributes) -> io::Result<libc::c_long> {
    // SAFETY: the structure is a prefix of `union bpf_attr` for the command, its size is given, and the kernel takes what lies
    // beyond as zero.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size_of::<Attributes>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// As [`bpf`], for commands that return a descriptor.
fn bpf_fd<Attributes>(command: libc::c_long, attributes: &mut Attributes) -> io::Result<OwnedFd> {
    let fd = bpf(command, attributes)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

#[repr(C)]
struct LinkCreate {
    program: i32,
    target: i32,
    attach_type: u32,
    flags: u32,
}

/// Attaches a program to a cgroup for as long as the descriptor, or a copy of it, is open. A link shares the cgroup with other
/// links ("multi"); the flag of that name is for attachments that are not links, and refused here.
///
/// # Errors
/// Not such a program, not a cgroup2, or an attachment that is no link is in the way.
pub fn link_to_cgroup(
    program: BorrowedFd<'_>,
    cgroup: BorrowedFd<'_>,
    attach_type: AttachType,
) -> io::Result<OwnedFd> {
    bpf_fd(
        BPF_LINK_CREATE,
        &mut LinkCreate {
            program: program.as_raw_fd(),
            target: cgroup.as_raw_fd(),
            attach_type: attach_type as u32,
            flags: 0,
        },
    )
}

#[repr(C)]
struct RawTracepointOpen {
    name: u64,
    program: i32,
    padding: u32,
}

/// Attaches a program to a raw tracepoint for as long as the descriptor, or a copy of it, is open.
pub(super) fn link_to_tracepoint(program: BorrowedFd<'_>, tracepoint: &CStr) -> io::Result<OwnedFd> {
    bpf_fd(
        BPF_RAW_TRACEPOINT_OPEN,
        &mut RawTracepointOpen { name: tracepoint.as_ptr() as u64, program: program.as_raw_fd(), padding: 0 },
    )
}

#[repr(C)]
struct ProgQuery {
    target: i32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    program_ids: u64,
    program_count: u32,
    padding: u32,
}

/// What is attached at a cgroup itself.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Attached {
    /// The ids of the programs.
    pub(super) programs: Vec<u32>,
    /// The flags they were attached with: `BPF_F_ALLOW_OVERRIDE` (1), `BPF_F_ALLOW_MULTI` (2), or 0: nothing else may attach,
    /// here or below.
    pub(super) flags: u32,
}

/// What is attached at a cgroup itself, not inherited.
pub(super) fn attached(cgroup: BorrowedFd<'_>, attach_type: AttachType) -> io::Result<Attached> {
    /// More than any node has: the kernel allows 64 a cgroup and type.
    const MOST: usize = 64;
    let mut programs = vec![0_u32; MOST];
    let mut query = ProgQuery {
        target: cgroup.as_raw_fd(),
        attach_type: attach_type as u32,
        query_flags: 0,
        attach_flags: 0,
        program_ids: programs.as_mut_ptr() as u64,
        program_count: MOST as u32,
        padding: 0,
    };
    bpf(BPF_PROG_QUERY, &mut query)?;
    programs.truncate(query.program_count as usize);
    Ok(Attached { programs, flags: query.attach_flags })
}
