//! The cheap tests that come before a walk.
//!
//! Most paths have nothing to do with the virtual tree. By the text of a path, by what was found a moment
//! ago, or by one statx(2) on the tracee's behalf they are recognised; whatever is left is walked.

use std::os::fd::AsFd;

use nix::errno::Errno as OsErrno;

use super::in_root::open_in_root;
use super::mounts::FsKind;
use super::task::Task;
use super::{Final, Query, Resolver, path};
use crate::emulator::object::{Object, ObjectKind};
use crate::emulator::sys::OsResult;
use crate::emulator::sys::file::{self, Stat};
use crate::emulator::tree::Entry;

/// What the tests found out.
pub(super) enum Verdict {
    /// Nothing virtual is on the way.
    Kernel,
    /// This virtual object.
    Virtual(Object),
    /// Unknown.
    Walk,
}

impl Resolver {
    pub(super) fn screen(&self, task: &Task, query: &Query<'_>) -> Verdict {
        if query.resolve != 0 {
            return Verdict::Walk;
        }
        if query.path.first() == Some(&b'/') {
            self.screen_absolute(task, query)
        } else {
            self.screen_relative(task, query)
        }
    }

    fn screen_absolute(&self, task: &Task, query: &Query<'_>) -> Verdict {
        let plain = path::plain(query.path);
        let text = plain.as_deref().and_then(|plain| std::str::from_utf8(plain).ok());
        let managed = text.and_then(|text| task.view.managed_key(text));
        let is_managed = managed.is_some();
        if let Some(managed) = managed {
            match managed {
                // What a procfs shows is then no matter of the path's text.
                (FsKind::Proc, _) if task.view.mounts.has_subset() => {}
                (FsKind::Proc, key) => match self.screen_proc(&key) {
                    Verdict::Walk => {}
                    verdict => return verdict,
                },
                (FsKind::Sysfs, key) => {
                    if let Some(object) = self.certain_file(&key) {
                        return Verdict::Virtual(object);
                    }
                }
                (FsKind::Plain, _) => {}
            }
        }
        let generation = self.views.generation();
        if self.views.is_settled()
            && let Some(outcome) = self.memo.get(task, query, generation)
        {
            return outcome.map_or(Verdict::Kernel, Verdict::Virtual);
        }
        // The supervisor's own look at /proc/self would find itself; `..` may lead through the virtual tree and
        // out again. A walk does it right.
        if is_managed || path::components(query.path).any(|name| name == b"..") || self.is_foreign(query.path)
        {
            return Verdict::Walk;
        }
        let verdict = self.probe(task, query, |path, flags| self.stat_absolute(task, path, flags));
        if matches!(verdict, Verdict::Kernel) && self.views.is_settled() {
            self.memo.put(task, query, None, generation);
        }
        verdict
    }

    /// A plain path in a procfs holds no links but `self`, `net`, `mounts` and those of process directories,
    /// so its text says what it is.
    fn screen_proc(&self, key: &str) -> Verdict {
        if let Some(object) = self.certain_file(key) {
            return Verdict::Virtual(object);
        }
        let mut names = key.split('/').skip(2);
        let Some(first) = names.next() else { return Verdict::Walk };
        let is_process = first.bytes().all(|byte| byte.is_ascii_digit());
        if is_process || matches!(first, "self" | "thread-self" | "net" | "mounts") {
            let leads_out = |name: &str| matches!(name, "cwd" | "root" | "fd" | "map_files" | "exe" | "task");
            if self.tree.has_process_rows() || names.any(leads_out) {
                return Verdict::Walk;
            }
            return Verdict::Kernel;
        }
        let mut cursor = self.tree.root();
        for name in path::components(key.as_bytes()) {
            let Ok(name) = std::str::from_utf8(name) else { return Verdict::Kernel };
            let next = self.tree.child(&cursor, name);
            if next.is_empty() {
                // Below a hidden directory nothing is there, below a virtual file nothing can be.
                return match self.tree.entry(&cursor) {
                    Entry::Nothing | Entry::Dir(_) => Verdict::Kernel,
                    Entry::File(_) | Entry::Link(_) | Entry::Absent(_) => Verdict::Walk,
                };
            }
            cursor = next;
        }
        Verdict::Walk
    }

    /// The file that the tree has at this key, when no look at the real file system is needed to know.
    fn certain_file(&self, key: &str) -> Option<Object> {
        let row = self.tree.certain_file(key)?;
        Some(Object { key: key.into(), kind: ObjectKind::File(row.clone()) })
    }

    fn is_foreign(&self, text: &[u8]) -> bool {
        self.tree.has_foreign_rows()
            && path::components(text).next_back().is_some_and(|name| self.tree.is_foreign_name(name))
    }

    fn screen_relative(&self, task: &Task, query: &Query<'_>) -> Verdict {
        let has_virtual_cwd = query.dirfd == libc::AT_FDCWD && self.cwds.get(&self.views, task).is_some();
        let odd = path::components(query.path).any(|name| name == b"..") || self.is_foreign(query.path);
        if has_virtual_cwd || odd {
            return Verdict::Walk;
        }
        let start = match query.dirfd {
            libc::AT_FDCWD => "cwd".to_owned(),
            fd if fd < 0 => return Verdict::Kernel,
            fd => format!("fd/{fd}"),
        };
        self.probe(task, query, |path, flags| self.stat_from(task, &start, path, flags))
    }

    fn stat_from(&self, task: &Task, start: &str, path: &[u8], flags: i32) -> OsResult<Stat> {
        if !task.view.is_own {
            // Absolute links on the way would lead into the supervisor's own root directory.
            let start = self.views.open_of(task.tid, start)?;
            let c_path = file::c_path(if path.is_empty() { b"." } else { path })?;
            let flags = libc::O_PATH | nofollow(flags);
            let fd = file::open2(Some(start.as_fd()), &c_path, flags, libc::RESOLVE_BENEATH)?;
            return file::stat_fd(fd.as_fd());
        }
        let mut full = format!("{}/{start}", task.tid).into_bytes();
        if !path.is_empty() {
            full.push(b'/');
            full.extend_from_slice(path);
        }
        // The start is itself a link, to be followed even where it is the last component.
        let flags = if path.is_empty() { 0 } else { flags };
        file::stat(Some(self.views.proc()), &file::c_path(&full)?, flags)
    }

    /// Looks at the object itself; where there is none, at the directory that would hold it.
    fn probe(&self, task: &Task, query: &Query<'_>, stat: impl Fn(&[u8], i32) -> OsResult<Stat>) -> Verdict {
        match stat(query.path, libc::AT_SYMLINK_NOFOLLOW) {
            Ok(object) if !self.is_unmanaged(task, &object) => Verdict::Walk,
            Ok(object) if object.is(libc::S_IFLNK) => {
                let follows = query.last == Final::Follow || path::wants_directory(query.path);
                if follows { Verdict::Walk } else { Verdict::Kernel }
            }
            Ok(_) => Verdict::Kernel,
            Err(OsErrno::ENOENT) => {
                let end = query.path.iter().rposition(|byte| *byte == b'/');
                let parent = match end {
                    Some(0) => &b"/"[..],
                    Some(end) => &query.path[..end],
                    None => b"",
                };
                match stat(parent, 0) {
                    Ok(parent) if self.is_unmanaged(task, &parent) => Verdict::Kernel,
                    _ => Verdict::Walk,
                }
            }
            Err(_) => Verdict::Walk,
        }
    }

    fn stat_absolute(&self, task: &Task, path: &[u8], flags: i32) -> OsResult<Stat> {
        if task.view.is_own {
            return file::stat(None, &file::c_path(path)?, flags);
        }
        let root = self.views.open_root(task.tid)?;
        let fd = open_in_root(root.as_fd(), path, nofollow(flags))?;
        file::stat_fd(fd.as_fd())
    }

    /// Whether an object is in a file system that rows cannot reach by kind, and not inside a managed one.
    fn is_unmanaged(&self, task: &Task, stat: &Stat) -> bool {
        if self.carriers.identify(stat).is_some() {
            return false;
        }
        let mounts = &task.view.mounts;
        match mounts.get(stat.mount) {
            // A mount that is not in the table may be one of ours, or detached.
            None => false,
            Some(mount) => {
                mount.kind == FsKind::Plain
                    && !mounts.is_inside(mount.id, FsKind::Proc)
                    && !mounts.is_inside(mount.id, FsKind::Sysfs)
            }
        }
    }
}

/// The open(2) flag for a flag of statx(2).
fn nofollow(flags: i32) -> i32 {
    if flags & libc::AT_SYMLINK_NOFOLLOW != 0 { libc::O_NOFOLLOW } else { 0 }
}
