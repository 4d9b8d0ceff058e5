//! The tracee's memory: process_vm_readv(2), process_vm_writev(2).

use std::io::{IoSlice, IoSliceMut};

use nix::sys::uio::{RemoteIoVec, process_vm_readv, process_vm_writev};
use nix::unistd::Pid;

use super::{OsResult, count};

const PAGE: u64 = 4096;

/// Splits a remote range at the next page boundary, because a transfer stops between pieces, not inside one.
fn pieces(addr: u64, len: usize) -> Option<([RemoteIoVec; 2], usize)> {
    let base = usize::try_from(addr).ok()?;
    base.checked_add(len)?;
    let to_boundary = usize::try_from(PAGE - addr % PAGE).ok()?;
    let first = len.min(to_boundary);
    let pieces = [RemoteIoVec { base, len: first }, RemoteIoVec { base: base + first, len: len - first }];
    Some((pieces, if first == len { 1 } else { 2 }))
}

/// Reads up to `buf.len()` (at most one page) bytes at `addr`; fewer when the second of two pages is not
/// mapped.
///
/// # Errors
/// EFAULT: the first byte is not mapped. ESRCH: the task is gone. EPERM: not allowed to look.
pub fn read(tid: u32, addr: u64, buf: &mut [u8]) -> OsResult<usize> {
    let Some((remote, pieces)) = pieces(addr, buf.len()) else {
        return Err(nix::errno::Errno::EFAULT);
    };
    count();
    process_vm_readv(Pid::from_raw(tid.cast_signed()), &mut [IoSliceMut::new(buf)], &remote[..pieces])
}

/// Writes all of `data` at `addr`.
///
/// # Errors
/// EFAULT: some byte cannot be written; the bytes before it may have been. ESRCH, EPERM as in [`read`].
pub fn write(tid: u32, addr: u64, data: &[u8]) -> OsResult<()> {
    let base = usize::try_from(addr).map_err(|_| nix::errno::Errno::EFAULT)?;
    count();
    let remote = [RemoteIoVec { base, len: data.len() }];
    let written = process_vm_writev(Pid::from_raw(tid.cast_signed()), &[IoSlice::new(data)], &remote)?;
    if written == data.len() { Ok(()) } else { Err(nix::errno::Errno::EFAULT) }
}
