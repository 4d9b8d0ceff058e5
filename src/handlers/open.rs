//! open(2), creat(2), openat(2), openat2(2).
//!
//! What cannot be written (`write = "deny"`) behaves like a file on a read-only mount: EROFS after the permission
//! check. O_TRUNC, O_APPEND and O_CREAT have no effect on a file that exists, as in procfs.

use std::os::fd::{AsFd, OwnedFd};

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::for_paths;
use crate::emulator::abi::OpenFlags;
use crate::emulator::carrier::Opening;
use crate::emulator::context::Who;
use crate::emulator::errno::Errno;
use crate::emulator::failure::{Failure, OrFault};
use crate::emulator::object::{Object, ObjectKind};
use crate::emulator::reply::Reply;
use crate::emulator::resolve::{Final, Found, Query, Real};
use crate::emulator::store;
use crate::emulator::sys::file;
use crate::emulator::syscall::{Call, Syscall};
use crate::emulator::write;

/// The rows of this family.
pub fn rows() -> Vec<Syscall> {
    vec![
        Syscall::new("open", for_paths, |call| {
            open(call, libc::AT_FDCWD, 0, OpenFlags::decode(call.abi, call.args[1]))
        }),
        Syscall::new("creat", for_paths, |call| {
            let flags = OpenFlags { native: libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC };
            open(call, libc::AT_FDCWD, 0, flags)
        }),
        Syscall::new("openat", for_paths, |call| {
            open(call, call.int(0), 1, OpenFlags::decode(call.abi, call.args[2]))
        }),
        Syscall::new("openat2", for_paths, openat2),
    ]
}

fn open(call: &Call<'_>, dirfd: i32, path_arg: usize, flags: OpenFlags) -> Result<Reply, Failure> {
    // Other flags than these have no meaning with O_PATH, and are no mistake.
    let flags = if flags.has(libc::O_PATH) { OpenFlags { native: flags.native & PATH_FLAGS } } else { flags };
    if is_refused(flags) {
        return Ok(Reply::Continue);
    }
    open_path(call, dirfd, &call.path(path_arg)?, flags, 0)
}

/// Flags that mean something together with O_PATH.
const PATH_FLAGS: i32 = libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC;

/// Whether the kernel says EINVAL before it looks at the path (fs/open.c, build_open_flags()).
fn is_refused(flags: OpenFlags) -> bool {
    let is_temporary = flags.native & TMPFILE_BIT as i32 != 0;
    flags.has(libc::O_DIRECTORY | libc::O_CREAT)
        || (is_temporary && !(flags.has(libc::O_DIRECTORY) && flags.writes()))
        || (flags.has(libc::O_PATH) && flags.native & !PATH_FLAGS != 0)
}

const RESOLVE_KNOWN: u64 = libc::RESOLVE_NO_XDEV
    | libc::RESOLVE_NO_MAGICLINKS
    | libc::RESOLVE_NO_SYMLINKS
    | libc::RESOLVE_BENEATH
    | libc::RESOLVE_IN_ROOT
    | RESOLVE_CACHED;
const RESOLVE_CACHED: u64 = 0x20;
const HOW_SIZE: usize = size_of::<libc::open_how>();

/// The flags that openat2(2) accepts (VALID_OPEN_FLAGS of the kernel).
const KNOWN_FLAGS: u64 = (libc::O_ACCMODE
    | libc::O_CREAT
    | libc::O_EXCL
    | libc::O_NOCTTY
    | libc::O_TRUNC
    | libc::O_APPEND
    | libc::O_NONBLOCK
    | libc::O_SYNC
    | libc::O_ASYNC
    | libc::O_DIRECT
    | O_LARGEFILE
    | libc::O_DIRECTORY
    | libc::O_NOFOLLOW
    | libc::O_NOATIME
    | libc::O_CLOEXEC
    | libc::O_PATH
    | libc::O_TMPFILE) as u64;
/// glibc defines it as 0 on 64-bit targets; the kernel's bit is this one on x86.
const O_LARGEFILE: i32 = 0o100_000;

fn openat2(call: &Call<'_>) -> Result<Reply, Failure> {
    // Whatever is wrong with the structure, the kernel says so.
    let size = usize::try_from(call.args[3]).unwrap_or(usize::MAX);
    let mut raw = [0u8; 4096];
    let is_whole = (HOW_SIZE..=raw.len()).contains(&size)
        && call.read(call.args[2], &mut raw[..size]).is_ok_and(|got| got == size);
    if !is_whole {
        return Ok(Reply::Continue);
    }
    let field = |at: usize| u64::from_ne_bytes(raw[at..at + 8].try_into().expect("eight bytes"));
    let (flags, mode, resolve) = (field(0), field(8), field(16));
    let creates = flags & (libc::O_CREAT as u64) != 0 || flags & TMPFILE_BIT == TMPFILE_BIT;
    let scopes = libc::RESOLVE_BENEATH | libc::RESOLVE_IN_ROOT;
    let is_valid = raw[HOW_SIZE..size].iter().all(|byte| *byte == 0)
        && flags & !KNOWN_FLAGS == 0
        && resolve & !RESOLVE_KNOWN == 0
        && resolve & scopes != scopes
        && (creates || mode == 0);
    let flags = OpenFlags::decode(call.abi, flags);
    if !is_valid || is_refused(flags) {
        return Ok(Reply::Continue);
    }
    open_path(call, call.int(0), &call.path(1)?, flags, resolve)
}

const TMPFILE_BIT: u64 = (libc::O_TMPFILE & !libc::O_DIRECTORY) as u64;

/// Opens a path that was copied already. Also serves open_tree(2), which is an open with O_PATH.
pub(super) fn open_path(
    call: &Call<'_>,
    dirfd: i32,
    path: &[u8],
    flags: OpenFlags,
    resolve: u64,
) -> Result<Reply, Failure> {
    if flags.has(libc::O_CREAT)
        && let Some(stripped) = without_slash(path)
    {
        // Nothing can be created there, whatever is: fs/namei.c, open_last_lookups().
        let query = Query { tid: call.tid, dirfd, path: stripped, last: Final::NoFollow, resolve };
        return match call.emulator.resolver.resolve(&query)? {
            Found::Kernel(_) => Ok(Reply::Continue),
            Found::Refused(errno) => Err(errno.into()),
            Found::OnBehalf(_) | Found::Virtual(_) => Err(Errno::EISDIR.into()),
        };
    }
    let exclusive = flags.has(libc::O_CREAT | libc::O_EXCL);
    let last = if flags.has(libc::O_NOFOLLOW) || exclusive { Final::NoFollow } else { Final::Follow };
    let query = Query { tid: call.tid, dirfd, path, last, resolve: resolve & !RESOLVE_CACHED };
    let found = call.emulator.resolver.resolve(&query)?;
    if let Found::Kernel(Some(real)) | Found::OnBehalf(real) = &found
        && call.emulator.root_inode(real).is_some()
    {
        call.tracee.watch_looks();
    }
    let file = match found {
        Found::Kernel(_) => return Ok(Reply::Continue),
        Found::Refused(errno) => return Err(errno.into()),
        // Virtual objects are never in the dentry cache.
        Found::OnBehalf(_) | Found::Virtual(_) if resolve & RESOLVE_CACHED != 0 => {
            return Err(Errno::EAGAIN.into());
        }
        Found::OnBehalf(_) | Found::Virtual(_) if exclusive => return Err(Errno::EEXIST.into()),
        Found::OnBehalf(real) => open_real(call, &real, flags)?,
        Found::Virtual(object) => open_virtual(call, &object, flags)?,
    };
    Ok(Reply::Fd { file, close_on_exec: flags.has(libc::O_CLOEXEC) })
}

/// A path that ends with a name and slashes, without these.
fn without_slash(path: &[u8]) -> Option<&[u8]> {
    let end = path.iter().rposition(|byte| *byte != b'/')? + 1;
    let name = path[..end].rsplit(|byte| *byte == b'/').next()?;
    (end < path.len() && name != b"." && name != b"..").then_some(&path[..end])
}

/// Flags that a new description of an existing file keeps.
fn kept(flags: OpenFlags) -> i32 {
    flags.native & (libc::O_ACCMODE | libc::O_NONBLOCK | libc::O_APPEND | libc::O_SYNC | libc::O_NOATIME)
}

fn open_real(call: &Call<'_>, real: &Real, flags: OpenFlags) -> Result<OwnedFd, Failure> {
    let is_dir = real.stat.is(libc::S_IFDIR);
    match real.stat.mode & libc::S_IFMT {
        libc::S_IFLNK => return Err(Errno::ELOOP.into()),
        libc::S_IFDIR if flags.writes() || flags.has(libc::O_CREAT) => return Err(Errno::EISDIR.into()),
        // Opening may block until the tracee itself goes on.
        libc::S_IFIFO => return Err(Errno::EOPNOTSUPP.into()),
        _ if flags.has(libc::O_DIRECTORY) && !is_dir => return Err(Errno::ENOTDIR.into()),
        _ => {}
    }
    // A descriptor opened with O_PATH cannot be handed over: a readable one comes nearest.
    let flags = if flags.has(libc::O_PATH) { libc::O_RDONLY } else { kept(flags) };
    let open = || call.emulator.reopen(real, flags);
    let opened = call.emulator.resolver.with_rights_of(call.tid, open)?;
    opened.map_err(|errno| Errno::from_raw(errno as i32).into())
}

fn open_virtual(call: &Call<'_>, object: &Object, flags: OpenFlags) -> Result<OwnedFd, Failure> {
    let is_handle = flags.has(libc::O_PATH);
    let row = match &object.kind {
        ObjectKind::Link(_) if flags.has(libc::O_DIRECTORY) => return Err(Errno::ENOTDIR.into()),
        ObjectKind::Link(_) => return Err(Errno::ELOOP.into()),
        ObjectKind::Dir(_) => return open_dir(call, object, flags),
        ObjectKind::File(row) => row,
    };
    if flags.has(libc::O_DIRECTORY) {
        return Err(Errno::ENOTDIR.into());
    }
    let changes = !is_handle && (flags.writes() || flags.has(libc::O_TRUNC));
    if !is_handle {
        let read = if flags.reads() { 4 } else { 0 };
        let write = if changes { 2 } else { 0 };
        call.emulator.permit(call.tid, object, read | write, Who::Effective)?;
    }
    if let Some(real) = call.emulator.like(call.tid, object)? {
        let path = file::self_fd_path(real.as_fd());
        let flags = if is_handle { libc::O_RDONLY } else { kept(flags) };
        return file::open(None, &path, flags).map_err(|errno| Errno::from_raw(errno as i32).into());
    }
    if store::is_blocking(object) {
        return open_blocking(flags);
    }
    if changes && !write::is_writable(object) {
        return Err(Errno::EROFS.into());
    }
    if flags.has(libc::O_DIRECT) && !is_handle {
        return Err(Errno::EINVAL.into());
    }
    call.emulator.carrier.look(call.tid);
    let store = &call.emulator.store;
    let bound = if write::is_writable(object) { store.bound_scope(object, call.tid) } else { None };
    let content = store.content_in(object, call.tid, bound)?;
    tracing::trace!(row = %row.origin, "opening a virtual file");
    let flags = if is_handle { libc::O_RDONLY } else { kept(flags) | flags.native & libc::O_NOFOLLOW };
    let opening = Opening { content, tid: call.tid, bound };
    let opened = call.emulator.carrier.open_file(object, opening, flags);
    if let (true, Err(errno)) = (changes, &opened) {
        // A fault would let the program write the real file.
        tracing::warn!(path = %object.key, %errno, "cannot open a virtual file for writing");
        return Err(Errno::EIO.into());
    }
    // A fault, not a refusal: the supervisor's full descriptor table must not look like the tracee's.
    opened.or_fault("open a virtual file")
}

fn open_dir(call: &Call<'_>, object: &Object, flags: OpenFlags) -> Result<OwnedFd, Failure> {
    let is_handle = flags.has(libc::O_PATH);
    if !is_handle {
        if flags.has(libc::O_TMPFILE) {
            return Err(Errno::EACCES.into());
        }
        if flags.writes() || flags.has(libc::O_CREAT) {
            return Err(Errno::EISDIR.into());
        }
        call.emulator.permit(call.tid, object, 4, Who::Effective)?;
    }
    let flags = if is_handle { 0 } else { flags.native & libc::O_NONBLOCK };
    call.emulator.carrier.open_dir(object, flags).or_fault("open a virtual directory")
}

/// A descriptor that never has anything to read: readers block, or get EAGAIN; what is written is dropped.
fn open_blocking(flags: OpenFlags) -> Result<OwnedFd, Failure> {
    if !flags.reads() {
        return file::open(None, c"/dev/null", libc::O_WRONLY).or_fault("open /dev/null");
    }
    let nonblocking = if flags.has(libc::O_NONBLOCK) { EfdFlags::EFD_NONBLOCK } else { EfdFlags::empty() };
    EventFd::from_value_and_flags(0, nonblocking | EfdFlags::EFD_CLOEXEC)
        .map(OwnedFd::from)
        .or_fault("make an eventfd")
}
