//! The tracee's memory: process_vm_readv(2), process_vm_writev(2), and what takes their place where they are
//! missing.

use std::io::{IoSlice, IoSliceMut};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno as OsErrno;
use nix::sys::uio::{RemoteIoVec, process_vm_readv, process_vm_writev};
use nix::unistd::Pid;

use super::{OsResult, count, tape};

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

/// Whether the kernel lacks process_vm_readv(2) and process_vm_writev(2), as gVisor did in 2022.
static IS_MISSING: AtomicBool = AtomicBool::new(false);

fn is_missing<T>(result: &nix::Result<T>) -> bool {
    let is_missing = matches!(result, Err(OsErrno::ENOSYS));
    if is_missing {
        IS_MISSING.store(true, Ordering::Relaxed);
    }
    is_missing
}

/// Reads up to `buf.len()` (at most one page) bytes at `addr`; fewer when the second of two pages is not
/// mapped.
///
/// # Errors
/// EFAULT: the first byte is not mapped. ESRCH: the task is gone. EPERM: not allowed to look.
pub fn read(tid: u32, addr: u64, buf: &mut [u8]) -> OsResult<usize> {
    tape::memory(addr, buf, |buf| read_now(tid, addr, buf))
}

fn read_now(tid: u32, addr: u64, buf: &mut [u8]) -> OsResult<usize> {
    let Some((remote, pieces)) = pieces(addr, buf.len()) else {
        return Err(OsErrno::EFAULT);
    };
    if !IS_MISSING.load(Ordering::Relaxed) {
        count();
        let pid = Pid::from_raw(tid.cast_signed());
        let read = process_vm_readv(pid, &mut [IoSliceMut::new(buf)], &remote[..pieces]);
        if !is_missing(&read) {
            return read;
        }
    }
    read_through_proc(tid, &remote[..pieces], buf)
}

/// Through `/proc/TID/mem`, piece by piece, because a transfer there fails as a whole.
fn read_through_proc(tid: u32, remote: &[RemoteIoVec], buf: &mut [u8]) -> OsResult<usize> {
    let path = super::file::c_path(format!("/proc/{tid}/mem").as_bytes())?;
    let gone = |errno| if errno == OsErrno::ENOENT { OsErrno::ESRCH } else { errno };
    let memory = super::file::open(None, &path, libc::O_RDONLY).map_err(gone)?;
    let mut have = 0;
    for piece in remote {
        count();
        let at = i64::try_from(piece.base).map_err(|_| OsErrno::EFAULT)?;
        match nix::sys::uio::pread(&memory, &mut buf[have..have + piece.len], at) {
            Ok(0) => break,
            Ok(len) => have += len,
            Err(_) => break,
        }
    }
    if have == 0 && !buf.is_empty() { Err(OsErrno::EFAULT) } else { Ok(have) }
}

/// Writes all of `data` at `addr`.
///
/// # Errors
/// EFAULT: some byte cannot be written; the bytes before it may have been. ESRCH, EPERM as in [`read`].
pub fn write(tid: u32, addr: u64, data: &[u8]) -> OsResult<()> {
    let base = usize::try_from(addr).map_err(|_| OsErrno::EFAULT)?;
    let pid = Pid::from_raw(tid.cast_signed());
    if !IS_MISSING.load(Ordering::Relaxed) {
        count();
        let remote = [RemoteIoVec { base, len: data.len() }];
        let written = process_vm_writev(pid, &[IoSlice::new(data)], &remote);
        if !is_missing(&written) {
            return if written? == data.len() { Ok(()) } else { Err(OsErrno::EFAULT) };
        }
    }
    // Only a tracer gets here, since kernels with another backend have the call.
    super::ptrace::poke(pid.as_raw(), addr, data).map_err(|errno| match errno {
        OsErrno::EIO => OsErrno::EFAULT,
        errno => errno,
    })
}
