//! Opening a path from another root directory: openat2(2) with RESOLVE_IN_ROOT, or what takes its place where it is
//! missing (gVisor before 2026, Linux before 5.6).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno as OsErrno;

use super::path;
use crate::emulator::sys::OsResult;
use crate::emulator::sys::file;

/// Links followed before ELOOP (MAXSYMLINKS).
const MAX_LINKS: usize = 40;

/// Opens a path with O_PATH (and O_NOFOLLOW, if that is in `flags`), as a task with this root directory would.
///
/// # Errors
/// As openat2(2).
pub fn open_in_root(root: BorrowedFd<'_>, text: &[u8], flags: i32) -> OsResult<OwnedFd> {
    let flags = flags | libc::O_PATH;
    match file::open2(Some(root), &file::c_path(text)?, flags, libc::RESOLVE_IN_ROOT) {
        Err(OsErrno::ENOSYS) => walk(root, text, flags),
        result => result,
    }
}

fn walk(root: BorrowedFd<'_>, text: &[u8], flags: i32) -> OsResult<OwnedFd> {
    // The directories on the way: the last one is where the walk stands, `..` goes back to the one before.
    let mut way: Vec<OwnedFd> = Vec::new();
    let mut todo: Vec<Vec<u8>> = path::components(text).rev().map(<[u8]>::to_vec).collect();
    let mut is_directory = path::wants_directory(text);
    let mut links = 0;
    while let Some(name) = todo.pop() {
        if name == b".." {
            if let Some(here) = way.pop()
                && !file::stat_fd(here.as_fd())?.is(libc::S_IFDIR)
            {
                return Err(OsErrno::ENOTDIR);
            }
            continue;
        }
        let at = way.last().map_or(root, |fd| fd.as_fd());
        let next = file::open(Some(at), &file::c_path(&name)?, libc::O_PATH | libc::O_NOFOLLOW)?;
        let is_link = file::stat_fd(next.as_fd())?.is(libc::S_IFLNK);
        let follows = !todo.is_empty() || is_directory || flags & libc::O_NOFOLLOW == 0;
        if !is_link || !follows {
            way.push(next);
            continue;
        }
        links += 1;
        if links > MAX_LINKS {
            return Err(OsErrno::ELOOP);
        }
        let target = file::readlink(Some(next.as_fd()), c"")?;
        if target.first() == Some(&b'/') {
            way.clear();
        }
        is_directory |= todo.is_empty() && path::wants_directory(&target);
        todo.extend(path::components(&target).rev().map(<[u8]>::to_vec));
    }
    let end = match way.pop() {
        Some(end) => end,
        None => file::open(Some(root), c".", libc::O_PATH)?,
    };
    if is_directory && !file::stat_fd(end.as_fd())?.is(libc::S_IFDIR) {
        return Err(OsErrno::ENOTDIR);
    }
    Ok(end)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn the_walk_opens_what_openat2_opens() {
        let base = std::env::temp_dir().join(format!("sysemu-in-root-{}", std::process::id()));
        std::fs::create_dir_all(base.join("a/b")).expect("made");
        std::fs::write(base.join("a/file"), "x").expect("written");
        for (target, link) in [
            ("/a/file", "abs"),
            ("../../../a/b", "a/up"),
            ("loop", "loop"),
            ("file/", "a/slash"),
            ("/", "root"),
        ] {
            symlink(target, base.join(link)).expect("made");
        }
        let root = file::c_path(std::os::unix::ffi::OsStrExt::as_bytes(base.as_os_str())).expect("no NUL");
        let root = file::open(None, &root, libc::O_PATH).expect("opened");
        for text in [
            "/a/file",
            "a/b",
            "/a/b/",
            "/a/file/",
            "abs",
            "a/up",
            "a/up/../file",
            "/../../a/file",
            "loop",
            "/",
            "a/slash",
            "root/a/b",
            "a/b/../../../a/file",
            "none",
            "a/file/x",
            "abs/..",
        ] {
            for flags in [0, libc::O_NOFOLLOW] {
                let inode = |fd: OsResult<OwnedFd>| {
                    fd.and_then(|fd| file::stat_fd(fd.as_fd())).map(|stat| (stat.dev, stat.ino, stat.mode))
                };
                let real = file::open2(
                    Some(root.as_fd()),
                    &file::c_path(text.as_bytes()).expect("no NUL"),
                    flags | libc::O_PATH,
                    libc::RESOLVE_IN_ROOT,
                );
                if matches!(real, Err(OsErrno::ENOSYS)) {
                    return;
                }
                let walked = walk(root.as_fd(), text.as_bytes(), flags | libc::O_PATH);
                assert_eq!(inode(walked), inode(real), "{text} {flags:o}");
            }
        }
        std::fs::remove_dir_all(base).expect("made above");
    }
}
