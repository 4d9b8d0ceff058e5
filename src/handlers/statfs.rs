//! statfs(2), fstatfs(2) and the i386 calls statfs64, fstatfs64.

use std::os::fd::AsFd;

use nix::errno::Errno as OsErrno;

use super::trap_if;
use crate::emulator::abi::layout::{self, Statfs, StatfsShape};
use crate::emulator::failure::{Failure, OrFault};
use crate::emulator::reply::Reply;
use crate::emulator::resolve::path::is_below;
use crate::emulator::resolve::{Final, Found, Query};
use crate::emulator::sys::file;
use crate::emulator::syscall::{Activation, Call, Syscall};
use crate::policy::{Policy, StatfsMatch, StatfsRow};

fn active(policy: &Policy) -> Activation {
    trap_if(!policy.statfs.is_empty() || !policy.rows.is_empty())
}

/// The rows of this family.
pub fn rows() -> Vec<Syscall> {
    let row = |name, by_path, shape| Syscall::new(name, active, move |call| statfs(call, by_path, shape));
    vec![
        row("statfs", true, StatfsShape::Statfs),
        row("fstatfs", false, StatfsShape::Statfs),
        row("statfs64", true, StatfsShape::Statfs64),
        row("fstatfs64", false, StatfsShape::Statfs64),
    ]
}

fn statfs(call: &Call<'_>, by_path: bool, shape: StatfsShape) -> Result<Reply, Failure> {
    let buf = match shape {
        StatfsShape::Statfs => call.args[1],
        StatfsShape::Statfs64 if call.args[1] == StatfsShape::STATFS64_SIZE => call.args[2],
        StatfsShape::Statfs64 => return Ok(Reply::Continue),
    };
    let resolver = &call.emulator.resolver;
    let found = if by_path {
        let path = call.path(0)?;
        let query =
            Query { tid: call.tid, dirfd: libc::AT_FDCWD, path: &path, last: Final::Follow, resolve: 0 };
        // Which replacement applies depends on the real object.
        if call.emulator.statfs.is_empty() {
            resolver.resolve(&query)?
        } else {
            resolver.resolve_fully(&query)?
        }
    } else {
        resolver.descriptor(call.tid, call.int(0))?
    };
    let (fs, row) = match found {
        Found::Kernel(None) => return Ok(Reply::Continue),
        Found::Kernel(Some(real)) => {
            if call.emulator.statfs.is_empty() {
                return Ok(Reply::Continue);
            }
            let key = real.key.as_deref();
            let (fs, told) = match (file::statfs_fd(real.fd.as_fd()), key) {
                (Ok(fs), _) => (fs, true),
                (Err(OsErrno::ENOSYS), Some(key)) => (holder_of(key)?, false),
                (Err(_), _) => return Ok(Reply::Continue),
            };
            match replacement(&call.emulator.statfs, key, fs.f_type) {
                None if told => return Ok(Reply::Continue),
                row => (fs, row),
            }
        }
        Found::OnBehalf(real) => {
            let fs = file::statfs_fd(real.fd.as_fd()).or_fault("statfs a file of a task")?;
            let row = replacement(&call.emulator.statfs, real.key.as_deref(), fs.f_type);
            (fs, row)
        }
        Found::Refused(errno) => return Err(errno.into()),
        Found::Virtual(object) => {
            let fs = holder_of(&object.key)?;
            let row = replacement(&call.emulator.statfs, Some(&object.key), fs.f_type);
            (fs, row)
        }
    };
    let fs = row.map_or(fs, |row| replaced(fs, row));
    Ok(Reply::stored(buf, layout::statfs(call.abi.layout, shape, &fs)?))
}

/// The real file system that holds an object: that of the nearest directory that exists and tells. In gVisor of 2022
/// most of procfs does not, but its root does.
fn holder_of(key: &str) -> Result<Statfs, Failure> {
    let mut at = key;
    loop {
        let path = file::c_path(if at.is_empty() { b"/" } else { at.as_bytes() }).or_fault("copy a path")?;
        match file::open(None, &path, libc::O_PATH).and_then(|fd| file::statfs_fd(fd.as_fd())) {
            Err(_) if !at.is_empty() => {}
            fs => return fs.or_fault("statfs a directory"),
        }
        at = at.rsplit_once('/').map_or("", |(parent, _)| parent);
    }
}

/// The last row that applies. A path selects whole components; a type only what no path row selects later.
fn replacement<'r>(rows: &'r [StatfsRow], key: Option<&str>, f_type: u64) -> Option<&'r StatfsRow> {
    rows.iter().rev().find(|row| match &row.from {
        StatfsMatch::Path(prefix) => key.is_some_and(|key| is_below(key, prefix)),
        StatfsMatch::Type(from) => *from == f_type,
    })
}

fn replaced(fs: Statfs, row: &StatfsRow) -> Statfs {
    const ST_RDONLY: u64 = 1;
    let bfree = row.bfree.unwrap_or(fs.bfree);
    Statfs {
        f_type: row.f_type,
        blocks: row.blocks.unwrap_or(fs.blocks),
        bfree,
        bavail: row.bfree.unwrap_or(fs.bavail),
        files: row.files.unwrap_or(fs.files),
        ffree: row.ffree.unwrap_or(fs.ffree),
        flags: match row.readonly {
            Some(true) => fs.flags | ST_RDONLY,
            Some(false) => fs.flags & !ST_RDONLY,
            None => fs.flags,
        },
        ..fs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Origin;

    fn row(from: StatfsMatch, f_type: u64) -> StatfsRow {
        StatfsRow {
            from,
            f_type,
            blocks: None,
            bfree: None,
            files: None,
            ffree: None,
            readonly: None,
            origin: Origin::synthetic("test"),
        }
    }

    #[test]
    fn a_path_selects_whole_components() {
        let rows = [row(StatfsMatch::Path("/a/dir".into()), 1), row(StatfsMatch::Type(9), 2)];
        let found = |key, f_type| replacement(&rows, Some(key), f_type).map(|row| row.f_type);
        assert_eq!(found("/a/dir", 0), Some(1));
        assert_eq!(found("/a/dir/below", 0), Some(1));
        assert_eq!(found("/a/dirx", 0), None);
        assert_eq!(found("/other", 9), Some(2));
        assert_eq!(found("/a/dir", 9), Some(2));
    }
}
