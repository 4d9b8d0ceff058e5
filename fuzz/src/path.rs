//! `path_resolve`.

use std::sync::OnceLock;

use sysemu::Supervisor;
use sysemu::emulator::resolve::path::{components, plain, wants_directory};
use sysemu::emulator::resolve::{Final, Found, Query};
use sysemu::policy::Loader;

use crate::model;

const FILES: [&str; 2] = ["/proc/sys/kernel/pid_max", "/proc/sys/vm/swappiness"];

fn supervisor() -> &'static Supervisor {
    static SUPERVISOR: OnceLock<Supervisor> = OnceLock::new();
    SUPERVISOR.get_or_init(|| {
        let policy = FILES.iter().fold(Loader::new(), |loader, file| loader.file(format!("{file}=1")));
        Supervisor::builder().policy(policy.load().expect("a good policy")).build().expect("a supervisor")
    })
}

/// Pieces that paths are made of: what leads to the files, away from them, and in circles.
const PIECES: [&str; 24] = [
    "proc",
    "sys",
    "kernel",
    "vm",
    "pid_max",
    "swappiness",
    "self",
    "thread-self",
    "root",
    "cwd",
    "fd",
    "0",
    "task",
    "..",
    ".",
    "",
    "net",
    "ns",
    "mounts",
    "dev",
    "etc",
    "passwd",
    "tmp",
    "usr",
];

/// The resolver against the kernel and against a model. The first byte chooses, the others are pieces of the path.
pub fn path_resolve(data: &[u8]) {
    let Some((flags, rest)) = data.split_first() else { return };
    if flags & 8 != 0 {
        return model::path_in_root(*flags, rest);
    }
    as_the_kernel(*flags, rest);
}

/// The path that an input stands for, and whether a link at its end is followed; `None` for no path.
pub(crate) fn path_of(flags: u8, rest: &[u8], pieces: &[&str]) -> Option<(String, Final)> {
    let pieces: Vec<&str> =
        rest.iter().take(24).map(|byte| pieces[usize::from(*byte) % pieces.len()]).collect();
    let mut text = pieces.join("/");
    if flags & 1 != 0 {
        text.insert(0, '/');
    }
    if flags & 2 != 0 {
        text.push('/');
    }
    let last = if flags & 4 != 0 { Final::NoFollow } else { Final::Follow };
    (!text.is_empty()).then_some((text, last))
}

/// A path leads to a virtual file exactly when the kernel takes it to the real file of that name.
fn as_the_kernel(flags: u8, rest: &[u8]) {
    let Some((text, last)) = path_of(flags, rest, &PIECES) else { return };
    let nofollow = if last == Final::NoFollow { libc::O_NOFOLLOW } else { 0 };
    let path = std::ffi::CString::new(text.clone()).expect("no NUL in the pieces");
    let real = sysemu::emulator::sys::file::open(None, &path, libc::O_PATH | nofollow);
    let tid = own_tid();
    let query = Query { tid, dirfd: libc::AT_FDCWD, path: text.as_bytes(), last, resolve: 0 };
    let resolver = &supervisor().engine().emulator.resolver;
    for found in [resolver.resolve(&query), resolver.resolve_fully(&query)] {
        let found = found.unwrap_or_else(|failure| panic!("{text}: {failure:?}"));
        match (&real, &found) {
            (Ok(fd), found) => {
                let at = sysemu::emulator::sys::file::self_fd_path(std::os::fd::AsFd::as_fd(fd));
                let target = sysemu::emulator::sys::file::readlink(None, &at).expect("a link");
                let is_file = FILES.iter().any(|file| file.as_bytes() == target);
                match found {
                    Found::Virtual(object) => assert_eq!(object.key.as_bytes(), target, "{text}"),
                    Found::Kernel(_) => assert!(!is_file, "{text} was not recognised"),
                    other => panic!("{text}: {other:?}"),
                }
            }
            (Err(errno), Found::Refused(refused)) => assert_eq!(*errno as i32, refused.raw(), "{text}"),
            (Err(_), Found::Kernel(_)) => {}
            (Err(errno), other) => panic!("{text}: {other:?}, the kernel says {errno}"),
        }
    }
    check_text(text.as_bytes());
}

/// The pure functions on path text against plain definitions.
fn check_text(text: &[u8]) {
    let names: Vec<&[u8]> = components(text).collect();
    assert!(names.iter().all(|name| !name.is_empty() && *name != b"." && !name.contains(&b'/')));
    if let Some(plain) = plain(text) {
        assert_eq!(plain, names.iter().flat_map(|name| [b"/", *name].concat()).collect::<Vec<u8>>());
        assert!(!wants_directory(text) && text[0] == b'/' && !names.contains(&&b".."[..]));
    }
}

pub(crate) fn own_tid() -> u32 {
    // Linux: the thread's own directory says its number.
    let link = std::fs::read_link("/proc/thread-self").expect("procfs");
    link.file_name().and_then(|name| name.to_str()?.parse().ok()).expect("a number")
}
