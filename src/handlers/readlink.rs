//! readlink(2), readlinkat(2).

use std::os::fd::AsFd;

use super::for_paths;
use crate::emulator::errno::Errno;
use crate::emulator::failure::Failure;
use crate::emulator::object::ObjectKind;
use crate::emulator::reply::{Out, Reply};
use crate::emulator::resolve::mounts::FsKind;
use crate::emulator::resolve::{Final, Found, Query};
use crate::emulator::sys::file;
use crate::emulator::syscall::{Call, Syscall};
use crate::policy::What;

/// The rows of this family.
pub fn rows() -> Vec<Syscall> {
    vec![
        Syscall::new("readlink", for_paths, |call| readlink(call, libc::AT_FDCWD, 0)),
        Syscall::new("readlinkat", for_paths, |call| readlink(call, call.int(0), 1)),
    ]
}

fn readlink(call: &Call<'_>, dirfd: i32, path_arg: usize) -> Result<Reply, Failure> {
    let (buf, size) = (call.args[path_arg + 1], call.int(path_arg + 2));
    let Ok(size) = usize::try_from(size) else {
        return Ok(Reply::Continue);
    };
    if size == 0 {
        return Ok(Reply::Continue);
    }
    let path = call.path(path_arg)?;
    let text = match call.resolve(dirfd, &path, Final::NoFollow)? {
        Found::Kernel(_) => match magic_text(call, dirfd, &path)? {
            Some(text) => text,
            None => return Ok(Reply::Continue),
        },
        Found::Refused(errno) => return Err(errno.into()),
        Found::OnBehalf(real) if real.stat.is(libc::S_IFLNK) => {
            file::readlink(Some(real.fd.as_fd()), c"").map_err(|errno| Errno::from_raw(errno as i32))?
        }
        Found::OnBehalf(_) => return Err(Errno::EINVAL.into()),
        Found::Virtual(object) => match object.kind {
            ObjectKind::Link(row) => match &row.what {
                What::Link { target } => target.clone().into_bytes(),
                _ => return Err(Errno::EINVAL.into()),
            },
            ObjectKind::Dir(_) | ObjectKind::File(_) => return Err(Errno::EINVAL.into()),
        },
    };
    let len = text.len().min(size);
    let out = Out { addr: buf, bytes: text[..len].to_vec() };
    Ok(Reply::Value { value: len as i64, out: Some(out) })
}

/// The text of `/proc/PID/fd/N` and `/proc/PID/cwd` where the kernel's own text would show the carrier.
fn magic_text(call: &Call<'_>, dirfd: i32, path: &[u8]) -> Result<Option<Vec<u8>>, Failure> {
    let resolver = &call.emulator.resolver;
    let shows_path = call.emulator.carrier.shows_path();
    if shows_path && resolver.cwds.is_empty() {
        return Ok(None);
    }
    // Only paths that end in a number or in `cwd` can be meant.
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(b"");
    let is_number = !name.is_empty() && name.iter().all(u8::is_ascii_digit);
    if name != b"cwd" && (shows_path || !is_number) {
        return Ok(None);
    }
    // What it leads to first: it mostly is nothing of ours, and then nothing else needs to be known.
    let query = Query { tid: call.tid, dirfd, path, last: Final::Follow, resolve: 0 };
    let key = match resolver.resolve_fully(&query)? {
        Found::Virtual(object) => object.key.as_bytes().to_vec(),
        Found::OnBehalf(real) if name == b"cwd" => match &real.key {
            Some(key) => key.clone().into_bytes(),
            None => return Ok(None),
        },
        _ => return Ok(None),
    };
    // Not by the number of the process, which is another one in another pid namespace.
    match resolver.resolve_fully(&Query { last: Final::NoFollow, ..query })? {
        Found::Kernel(Some(link)) if link.kind == FsKind::Proc && link.stat.is(libc::S_IFLNK) => {
            Ok(Some(if key.is_empty() { b"/".to_vec() } else { key }))
        }
        _ => Ok(None),
    }
}
