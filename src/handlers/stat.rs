//! stat(2), lstat(2), fstat(2), newfstatat(2), statx(2) and the i386 calls oldstat, oldlstat, oldfstat, stat64, lstat64,
//! fstat64, fstatat64.
//!
//! Descriptors are looked at only under a policy with `[[stat]]` rows, and with the ptrace backend only in programs that
//! opened such a directory: elsewhere the kernel tells the truth about them.

use std::os::fd::AsFd;

use super::for_paths;
use crate::emulator::abi::layout::{self, Attr, StatShape};
use crate::emulator::errno::Errno;
use crate::emulator::failure::{Failure, OrFault};
use crate::emulator::object::Object;
use crate::emulator::reply::Reply;
use crate::emulator::resolve::mounts::FsKind;
use crate::emulator::resolve::path::is_below;
use crate::emulator::resolve::{Final, Found, Query, Real};
use crate::emulator::sys::file::{self, Stat};
use crate::emulator::syscall::{Activation, ArgTest, Call, Syscall};
use crate::policy::Policy;

/// Skips what glibc's fstat(3) does: AT_EMPTY_PATH with a real descriptor. (The flag does not keep a
/// non-empty path from being looked up, so such a call on a virtual file goes to the kernel.)
const fn unless_fstat(flags_arg: u32) -> [ArgTest; 2] {
    [
        ArgTest { arg: flags_arg, mask: libc::AT_EMPTY_PATH as u32, value: 0 },
        ArgTest { arg: 0, mask: u32::MAX, value: libc::AT_FDCWD as u32 },
    ]
}
const UNLESS_FSTAT_AT: &[ArgTest] = &unless_fstat(3);
const UNLESS_FSTAT_X: &[ArgTest] = &unless_fstat(2);

/// The rows of this family.
pub fn rows() -> Vec<Syscall> {
    let plain = |name, last, shape| {
        Syscall::new(name, for_paths, move |call| {
            let buf = call.args[1];
            let (takes_empty, is_refused) = (false, false);
            let dirfd = libc::AT_FDCWD;
            stat(call, Target { dirfd, path_arg: 0, last, buf, shape, takes_empty, is_refused })
        })
    };
    let at = |name, shape| Syscall {
        only_if: UNLESS_FSTAT_AT.into(),
        looks: has_rows,
        ..Syscall::new(name, for_paths, move |call| fstatat(call, shape))
    };
    let descriptor = |name, shape| Syscall {
        looks: has_rows,
        ..Syscall::new(name, |_| Activation::Off, move |call| fstat(call, call.int(0), (call.args[1], shape)))
    };
    vec![
        plain("stat", Final::Follow, StatShape::Stat),
        plain("lstat", Final::NoFollow, StatShape::Stat),
        plain("oldstat", Final::Follow, StatShape::Oldest),
        plain("oldlstat", Final::NoFollow, StatShape::Oldest),
        plain("stat64", Final::Follow, StatShape::Stat64),
        plain("lstat64", Final::NoFollow, StatShape::Stat64),
        at("newfstatat", StatShape::Stat),
        at("fstatat64", StatShape::Stat64),
        Syscall {
            only_if: UNLESS_FSTAT_X.into(),
            looks: has_rows,
            ..Syscall::new("statx", for_paths, statx)
        },
        descriptor("fstat", StatShape::Stat),
        descriptor("oldfstat", StatShape::Oldest),
        descriptor("fstat64", StatShape::Stat64),
    ]
}

fn has_rows(policy: &Policy) -> bool {
    !policy.stat.is_empty()
}

struct Target {
    dirfd: i32,
    path_arg: usize,
    last: Final,
    buf: u64,
    shape: StatShape,
    /// AT_EMPTY_PATH.
    takes_empty: bool,
    /// The kernel refuses the flags, which Linux does not.
    is_refused: bool,
}

impl Target {
    /// That of a call with a directory, a path and flags.
    fn at(call: &Call<'_>, flags: i32, buf: u64, shape: StatShape) -> Self {
        let last = if flags & libc::AT_SYMLINK_NOFOLLOW != 0 { Final::NoFollow } else { Final::Follow };
        let is_refused = flags & libc::AT_NO_AUTOMOUNT != 0 && file::refuses_no_automount();
        let takes_empty = flags & libc::AT_EMPTY_PATH != 0;
        Target { dirfd: call.int(0), path_arg: 1, last, buf, shape, takes_empty, is_refused }
    }
}

const AT_FLAGS: i32 =
    libc::AT_SYMLINK_NOFOLLOW | libc::AT_NO_AUTOMOUNT | libc::AT_EMPTY_PATH | libc::AT_STATX_SYNC_TYPE;
/// Bit of the statx mask that must not be set.
const STATX_RESERVED: u64 = 0x8000_0000;

fn fstatat(call: &Call<'_>, shape: StatShape) -> Result<Reply, Failure> {
    let flags = call.int(3);
    if flags & !(AT_FLAGS & !libc::AT_STATX_SYNC_TYPE) != 0 {
        return Ok(Reply::Continue);
    }
    stat(call, Target::at(call, flags, call.args[2], shape))
}

fn statx(call: &Call<'_>) -> Result<Reply, Failure> {
    let flags = call.int(2);
    let bad_sync = flags & libc::AT_STATX_SYNC_TYPE == libc::AT_STATX_SYNC_TYPE;
    if flags & !AT_FLAGS != 0 || bad_sync || call.args[3] & STATX_RESERVED != 0 {
        return Ok(Reply::Continue);
    }
    stat(call, Target::at(call, flags, call.args[4], StatShape::Statx))
}

/// stat(2) of a descriptor. Of most the kernel tells the truth, so that one look has to do for them.
fn fstat(call: &Call<'_>, fd: i32, (buf, shape): (u64, StatShape)) -> Result<Reply, Failure> {
    let resolver = &call.emulator.resolver;
    let is_told_otherwise = |stat: &Stat| stat.is(libc::S_IFDIR) || resolver.identify(stat).is_some();
    if !resolver.look(call.tid, fd).is_some_and(|stat| is_told_otherwise(&stat)) {
        return Ok(Reply::Continue);
    }
    let attr = match resolver.descriptor(call.tid, fd)? {
        Found::Virtual(object) => virtual_attr(call, &object)?,
        Found::Kernel(Some(real)) if call.emulator.root_inode(&real).is_some() => {
            call.emulator.real_attr(&real)
        }
        _ => return Ok(Reply::Continue),
    };
    Ok(Reply::stored(buf, layout::stat(call.abi.layout, shape, &attr)?))
}

fn stat(call: &Call<'_>, target: Target) -> Result<Reply, Failure> {
    // Linux 6.11 takes a null path for an empty one with AT_EMPTY_PATH; older ones, and gVisor, refuse it.
    if call.args[target.path_arg] == 0 {
        return Ok(Reply::Continue);
    }
    let mut path = call.path(target.path_arg)?;
    if path.is_empty() && target.takes_empty && !call.emulator.stat.is_empty() {
        if target.dirfd != libc::AT_FDCWD {
            return fstat(call, target.dirfd, (target.buf, target.shape));
        }
        path.push(b'.');
    }
    let attr = match call.resolve(target.dirfd, &path, target.last)? {
        Found::Kernel(Some(real)) if call.emulator.root_inode(&real).is_some() => {
            call.emulator.real_attr(&real)
        }
        Found::Kernel(_) if target.is_refused => match instead_of_kernel(call, &target, &path)? {
            Some(attr) => attr,
            None => return Ok(Reply::Continue),
        },
        Found::Kernel(_) => return Ok(Reply::Continue),
        Found::Refused(errno) => return Err(errno.into()),
        Found::OnBehalf(real) => call.emulator.real_attr(&real),
        Found::Virtual(object) => virtual_attr(call, &object)?,
    };
    let bytes = layout::stat(call.abi.layout, target.shape, &attr)?;
    Ok(Reply::stored(target.buf, bytes))
}

/// The metadata of a real object in a managed file system, where what a program asks must not depend on flags that an
/// old kernel refuses (gVisor of 2022, and ls(1) with AT_NO_AUTOMOUNT); `None` elsewhere.
fn instead_of_kernel(call: &Call<'_>, target: &Target, path: &[u8]) -> Result<Option<Attr>, Failure> {
    let resolver = &call.emulator.resolver;
    let query = Query { tid: call.tid, dirfd: target.dirfd, path, last: target.last, resolve: 0 };
    match resolver.resolve_fully(&query)? {
        Found::Kernel(Some(real)) if is_managed(&real) => Ok(Some(call.emulator.real_attr(&real))),
        Found::Kernel(None) if resolver.is_managed_text(call.tid, path)? => Err(Errno::ENOENT.into()),
        _ => Ok(None),
    }
}

/// Whether an object is in a managed file system, or in what is mounted over one of its directories.
fn is_managed(real: &Real) -> bool {
    let key = real.key.as_deref().unwrap_or("");
    real.kind != FsKind::Plain || is_below(key, "/proc") || is_below(key, "/sys")
}

fn virtual_attr(call: &Call<'_>, object: &Object) -> Result<Attr, Failure> {
    match call.emulator.like(call.tid, object)? {
        Some(real) => {
            let stat = file::stat_fd(real.as_fd()).or_fault("look at the file that a row names")?;
            Ok(Attr::of(&stat.raw))
        }
        None => Ok(call.emulator.attr(object)),
    }
}
