//! The kernel programs, as the binary carries them. Next: [`load`](super::load).

use super::KernelError;

/// Brings the bytes to an address that an ELF reader accepts.
#[repr(C, align(32))]
struct Aligned<Bytes: ?Sized>(Bytes);

static OBJECT: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/evenkeel-ebpf.o")));

/// The object file.
///
/// # Errors
/// [`KernelError::NoObject`] in a binary that was built without one, as for unit tests.
pub fn object() -> Result<&'static [u8], KernelError> {
    if OBJECT.0.is_empty() { Err(KernelError::NoObject) } else { Ok(&OBJECT.0) }
}
