//! Where an open object is: its file system kind and its path inside, found from the descriptor and not from
//! how it was reached.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use super::mounts::FsKind;
use super::task::{Status, Task};
use super::view::Views;
use super::walk::Real;
use crate::emulator::object::child_key;
use crate::emulator::sys::file::{self, Stat};
use crate::emulator::sys::tape;

/// Inode number of the root directory of any procfs and any sysfs.
const ROOT_INODE: u64 = 1;

/// Directories climbed before a path is given up as broken.
const MAX_DEPTH: usize = 256;

/// The kind of file system that holds an object.
pub fn kind_of(task: &Task, fd: BorrowedFd<'_>, stat: &Stat) -> FsKind {
    if let Some(mount) = task.view.mounts.get(stat.mount) {
        return mount.kind;
    }
    // A detached mount, or one of another namespace.
    file::statfs_fd(fd).map_or(FsKind::Plain, |fs| FsKind::of_magic(fs.f_type))
}

/// The key of an entry of a directory of a file system of this kind.
pub fn child(kind: FsKind, parent: &str, name: &str) -> Option<String> {
    match kind {
        // A plain directory that happens to be called like that is not procfs.
        FsKind::Plain if parent.is_empty() && (name == "proc" || name == "sys") => None,
        // A thread's directory holds what its process directory does.
        FsKind::Proc if parent.ends_with("/task") && parent.matches('/').count() == 3 => {
            Some(child_key("/proc", name))
        }
        _ => Some(child_key(parent, name)),
    }
}

/// The key of an open object.
pub fn key_of(views: &Views, task: &Task, fd: BorrowedFd<'_>, stat: &Stat) -> Option<String> {
    if stat.raw.stx_nlink == 0 {
        return None; // the link text says " (deleted)"
    }
    let text = views.link_of(tape::own_process(), &format!("fd/{}", fd.as_raw_fd())).ok()?;
    let kind = kind_of(task, fd, stat);
    let seen = task.view.strip_root(&text).and_then(|text| std::str::from_utf8(text).ok());
    let inside = match task.view.mounts.get(stat.mount) {
        None if kind == FsKind::Plain => return None,
        None => None,
        Some(mount) => {
            let Some(prefix) = kind.prefix() else {
                return plain_key(task, mount.id, seen?);
            };
            // Nothing is seen outside of the root directory, where mounts are told apart by device.
            seen.and_then(|text| {
                let mount = task.view.mounts.holding(mount.id, text)?;
                let rest = text.strip_prefix(mount.point.trim_end_matches('/'))?;
                Some(format!("{prefix}{}{}", mount.root, rest.trim_end_matches('/')))
            })
        }
    };
    let key = inside.or_else(|| climbed_key(views, fd, stat, kind, std::str::from_utf8(&text).ok()?))?;
    Some(without_task(&key).unwrap_or(key))
}

/// `/proc/P/task/T/x` is `/proc/T/x`.
fn without_task(key: &str) -> Option<String> {
    let mut parts = key.strip_prefix("/proc/")?.splitn(3, '/');
    let (_process, task, rest) = (parts.next()?, parts.next()?, parts.next()?);
    (task == "task").then(|| format!("/proc/{rest}"))
}

fn plain_key(task: &Task, mount: u64, text: &str) -> Option<String> {
    let text = text.trim_end_matches('/');
    for kind in [FsKind::Proc, FsKind::Sysfs] {
        let prefix = kind.prefix()?;
        if super::path::is_below(text, prefix) && !task.view.mounts.is_inside(mount, kind) {
            return None;
        }
    }
    Some(text.to_owned())
}

/// For mounts that no table lists: the end of the link text, as many names as there are directories up to
/// the root of the mount, provided that the root can be recognised.
fn climbed_key(views: &Views, fd: BorrowedFd<'_>, stat: &Stat, kind: FsKind, text: &str) -> Option<String> {
    let prefix = kind.prefix()?;
    if !stat.is(libc::S_IFDIR) {
        return None;
    }
    let mut at: Option<OwnedFd> = None;
    let mut here = *stat;
    let mut depth = 0;
    loop {
        let from = at.as_ref().map_or(fd, |fd| fd.as_fd());
        let up = file::open(Some(from), c"..", libc::O_PATH).ok()?;
        let up_stat = file::stat_fd(up.as_fd()).ok()?;
        if up_stat.mount != here.mount || (up_stat.dev, up_stat.ino) == (here.dev, here.ino) {
            break;
        }
        depth += 1;
        if depth > MAX_DEPTH {
            return None;
        }
        (at, here) = (Some(up), up_stat);
    }
    let top = at.as_ref().map_or(fd, |fd| fd.as_fd());
    let root = if here.ino == ROOT_INODE || (kind == FsKind::Proc && has_self(top)) {
        ""
    } else if kind == FsKind::Proc && here.ino == file::stat(Some(views.proc()), c"sys", 0).ok()?.ino {
        // Entries that are not below /proc/sys have the same inode number in each procfs.
        "/sys"
    } else {
        return None;
    };
    let names: Vec<&str> = text.split('/').filter(|name| !name.is_empty()).collect();
    let names = names.get(names.len().checked_sub(depth)?..)?;
    Some(names.iter().fold(format!("{prefix}{root}"), |key, name| child_key(&key, name)))
}

/// Whether a directory of a procfs is its root, which has another inode number in gVisor before 2026.
fn has_self(directory: BorrowedFd<'_>) -> bool {
    file::stat(Some(directory), c"self", libc::AT_SYMLINK_NOFOLLOW).is_ok_and(|stat| stat.is(libc::S_IFLNK))
}

/// The task's process and thread id in the pid namespace of a procfs instance, given its root directory.
pub fn ids_in(views: &Views, task: &Task, root: &Real) -> Option<(u32, u32)> {
    let status = &task.status;
    let own = file::stat_fd(views.proc()).ok()?;
    if own.dev == root.stat.dev {
        return Some((status.tgid, task.tid));
    }
    if status.ns_tgid.is_empty() {
        return ids_by_look(views, task, root);
    }
    // Of the numbers that the task has in the namespaces it is in, the right one names a process that has
    // the same numbers further in.
    for level in (0..status.ns_tgid.len()).rev() {
        let (tgid, tid) = (status.ns_tgid[level], *status.ns_tid.get(level)?);
        let path = file::c_path(format!("{tgid}/status").as_bytes()).ok()?;
        let Ok(fd) = file::open(Some(root.fd.as_fd()), &path, libc::O_RDONLY) else { continue };
        let there = Status::parse(&file::read_all(fd.as_fd()).ok()?);
        if there.ns_tgid == status.ns_tgid[level..] {
            return Some((tgid, tid));
        }
    }
    None
}

/// The task whose directory in some procfs this is, where it has that number: in the supervisor's own, that one; in another
/// one, whichever of the candidates is the same process.
pub fn task_behind(
    views: &Views,
    directory: &Real,
    number: u32,
    candidates: impl IntoIterator<Item = u32>,
) -> Option<u32> {
    let own = file::stat_fd(views.proc()).ok()?;
    if own.dev == directory.stat.dev {
        return Some(number);
    }
    let read = |name: &std::ffi::CStr| {
        let fd = file::open(Some(directory.fd.as_fd()), name, libc::O_RDONLY).ok()?;
        file::read_all(fd.as_fd()).ok()
    };
    let (numbers, look) = (Status::parse(&read(c"status")?).ns_tgid, what_stays(&read(c"stat")?)?);
    candidates.into_iter().find(|candidate| {
        let is_alike =
            views.read_of(*candidate, "stat").is_ok_and(|line| what_stays(&line).as_ref() == Some(&look));
        is_alike && views.status(*candidate).is_ok_and(|status| status.ns_tgid.ends_with(&numbers))
    })
}

/// As [`ids_in`] where a task's status does not tell its numbers in other namespaces (gVisor): by what else it shows.
fn ids_by_look(views: &Views, task: &Task, root: &Real) -> Option<(u32, u32)> {
    let (tgid, tid) = (task.status.tgid, task.tid);
    let own = file::readlink(Some(root.fd.as_fd()), c"self");
    if own.is_ok_and(|text| text == std::process::id().to_string().into_bytes()) {
        return Some((tgid, tid));
    }
    let processes = file::open(Some(root.fd.as_fd()), c".", libc::O_RDONLY | libc::O_DIRECTORY).ok()?;
    let there = only_alike(views, &format!("{tgid}"), processes.as_fd())?;
    if tid == tgid {
        return Some((there, there));
    }
    let path = file::c_path(format!("{there}/task").as_bytes()).ok()?;
    let threads = file::open(Some(processes.as_fd()), &path, libc::O_RDONLY | libc::O_DIRECTORY).ok()?;
    Some((there, only_alike(views, &format!("{tgid}/task/{tid}"), threads.as_fd())?))
}

/// The only number in a directory of procfs behind which a task looks like the supervisor's own view of one.
fn only_alike(views: &Views, ours: &str, directory: BorrowedFd<'_>) -> Option<u32> {
    let look = |at: BorrowedFd<'_>, task: &str| {
        let path = file::c_path(format!("{task}/stat").as_bytes()).ok()?;
        let fd = file::open(Some(at), &path, libc::O_RDONLY).ok()?;
        what_stays(&file::read_all(fd.as_fd()).ok()?)
    };
    let wanted = look(views.proc(), ours)?;
    let numbers = file::list(directory).ok()?.into_iter().filter_map(|name| name.parse().ok());
    let mut alike =
        numbers.filter(|number: &u32| look(directory, &number.to_string()).as_ref() == Some(&wanted));
    let number = alike.next()?;
    alike.next().is_none().then_some(number)
}

/// Of a line of proc_pid_stat(5) what does not depend on the pid namespace nor change while the task is stopped: its
/// name, its start, and its memory.
fn what_stays(line: &str) -> Option<String> {
    let (begin, fields) = line.rsplit_once(')')?;
    let (_, name) = begin.split_once('(')?;
    let fields: Vec<&str> = fields.split_whitespace().skip(19).take(3).collect();
    (fields.len() == 3).then(|| format!("{name} {}", fields.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn child_keys() {
        assert_eq!(child(FsKind::Plain, "", "proc"), None);
        assert_eq!(child(FsKind::Plain, "/jail", "proc").as_deref(), Some("/jail/proc"));
        assert_eq!(child(FsKind::Proc, "/proc/7/task", "8").as_deref(), Some("/proc/8"));

        assert_eq!(without_task("/proc/7/task/8/cgroup").as_deref(), Some("/proc/8/cgroup"));
        assert_eq!(without_task("/proc/7/task"), None);
    }

    #[test]
    fn a_task_looks_the_same_in_every_pid_namespace() {
        let line =
            |pid: &str| format!("{pid} (a) b) S {pid} {pid} 0 0 -1 0 1 2 3 4 5 6 7 8 20 0 1 0 15 4096 7 99");
        assert_eq!(what_stays(&line("1")), what_stays(&line("77")));
        assert_eq!(what_stays(&line("1")).as_deref(), Some("a) b 15 4096 7"));
        assert_eq!(what_stays("1 (a) S"), None);
    }
}
