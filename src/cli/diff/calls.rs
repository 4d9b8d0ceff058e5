//! The calls that are compared: those that take a path, and those about descriptors that came from one.

use std::collections::HashMap;

use sysemu::emulator::abi::ABIS;
use sysemu::emulator::syscall::number;

/// An argument that is shown, by its position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arg {
    /// A directory descriptor or AT_FDCWD, for the path that follows.
    Dir(usize),
    /// A path.
    Path(usize),
    /// Some other text.
    Text(usize),
    /// A descriptor that the call is about.
    Fd(usize),
    /// open(2) flags.
    OpenFlags(usize),
    /// `struct open_how`.
    How(usize),
    /// Bits.
    Bits(usize),
    /// A number.
    Number(usize),
    /// Bytes, with their count in the next argument.
    Bytes(usize),
}

/// What a call stores where an argument points, by its position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Out {
    /// Nothing that is looked at.
    Nothing,
    /// `struct stat`.
    Stat(usize),
    /// `struct stat64` of i386.
    Stat64(usize),
    /// `struct statx`.
    Statx(usize),
    /// `struct statfs`.
    Statfs(usize),
    /// As many bytes as the result says: the text of a link or a directory's name.
    Link(usize),
    /// As many bytes as the result says: content of a file.
    Data(usize),
    /// As many bytes as the result says, in pieces.
    DataVector(usize),
    /// `struct linux_dirent64`s.
    Names(usize),
    /// `struct new_utsname`.
    Uname(usize),
}

/// A compared call.
#[derive(Debug)]
pub struct Traced {
    /// Its name.
    pub name: &'static str,
    /// What is shown.
    pub args: &'static [Arg],
    /// What it stores.
    pub out: Out,
}

const fn row(name: &'static str, args: &'static [Arg], out: Out) -> Traced {
    Traced { name, args, out }
}

use Arg::{Bits, Bytes, Dir, Fd, How, Number, OpenFlags, Path, Text};

static TRACED: &[Traced] = &[
    row("open", &[Path(0), OpenFlags(1)], Out::Nothing),
    row("creat", &[Path(0)], Out::Nothing),
    row("openat", &[Dir(0), Path(1), OpenFlags(2)], Out::Nothing),
    row("openat2", &[Dir(0), Path(1), How(2)], Out::Nothing),
    row("stat", &[Path(0)], Out::Stat(1)),
    row("lstat", &[Path(0)], Out::Stat(1)),
    row("fstat", &[Fd(0)], Out::Stat(1)),
    row("newfstatat", &[Dir(0), Path(1), Bits(3)], Out::Stat(2)),
    row("stat64", &[Path(0)], Out::Stat64(1)),
    row("lstat64", &[Path(0)], Out::Stat64(1)),
    row("fstat64", &[Fd(0)], Out::Stat64(1)),
    row("fstatat64", &[Dir(0), Path(1), Bits(3)], Out::Stat64(2)),
    row("statx", &[Dir(0), Path(1), Bits(2), Bits(3)], Out::Statx(4)),
    row("access", &[Path(0), Number(1)], Out::Nothing),
    row("faccessat", &[Dir(0), Path(1), Number(2)], Out::Nothing),
    row("faccessat2", &[Dir(0), Path(1), Number(2), Bits(3)], Out::Nothing),
    row("readlink", &[Path(0), Number(2)], Out::Link(1)),
    row("readlinkat", &[Dir(0), Path(1), Number(3)], Out::Link(2)),
    row("statfs", &[Path(0)], Out::Statfs(1)),
    row("fstatfs", &[Fd(0)], Out::Statfs(1)),
    row("getcwd", &[Number(1)], Out::Link(0)),
    row("chdir", &[Path(0)], Out::Nothing),
    row("fchdir", &[Fd(0)], Out::Nothing),
    row("execve", &[Path(0)], Out::Nothing),
    row("execveat", &[Dir(0), Path(1), Bits(4)], Out::Nothing),
    row("getxattr", &[Path(0), Text(1), Number(3)], Out::Data(2)),
    row("lgetxattr", &[Path(0), Text(1), Number(3)], Out::Data(2)),
    row("listxattr", &[Path(0), Number(2)], Out::Data(1)),
    row("llistxattr", &[Path(0), Number(2)], Out::Data(1)),
    row("setxattr", &[Path(0), Text(1)], Out::Nothing),
    row("inotify_add_watch", &[Path(1), Bits(2)], Out::Nothing),
    row("name_to_handle_at", &[Dir(0), Path(1), Bits(4)], Out::Nothing),
    row("uname", &[], Out::Uname(0)),
    row("chmod", &[Path(0), Bits(1)], Out::Nothing),
    row("fchmodat", &[Dir(0), Path(1), Bits(2)], Out::Nothing),
    row("chown", &[Path(0), Number(1), Number(2)], Out::Nothing),
    row("lchown", &[Path(0), Number(1), Number(2)], Out::Nothing),
    row("fchownat", &[Dir(0), Path(1), Number(2), Number(3), Bits(4)], Out::Nothing),
    row("truncate", &[Path(0), Number(1)], Out::Nothing),
    row("utimensat", &[Dir(0), Path(1)], Out::Nothing),
    row("mkdir", &[Path(0), Bits(1)], Out::Nothing),
    row("mkdirat", &[Dir(0), Path(1), Bits(2)], Out::Nothing),
    row("rmdir", &[Path(0)], Out::Nothing),
    row("unlink", &[Path(0)], Out::Nothing),
    row("unlinkat", &[Dir(0), Path(1), Bits(2)], Out::Nothing),
    row("rename", &[Path(0), Text(1)], Out::Nothing),
    row("renameat", &[Dir(0), Path(1), Text(3)], Out::Nothing),
    row("renameat2", &[Dir(0), Path(1), Text(3), Bits(4)], Out::Nothing),
    row("link", &[Path(0), Text(1)], Out::Nothing),
    row("symlink", &[Text(0), Path(1)], Out::Nothing),
    row("read", &[Fd(0), Number(2)], Out::Data(1)),
    row("pread64", &[Fd(0), Number(2), Number(3)], Out::Data(1)),
    row("readv", &[Fd(0), Number(2)], Out::DataVector(1)),
    row("preadv", &[Fd(0), Number(2), Number(3)], Out::DataVector(1)),
    row("write", &[Fd(0), Bytes(1)], Out::Nothing),
    row("pwrite64", &[Fd(0), Bytes(1), Number(3)], Out::Nothing),
    row("writev", &[Fd(0), Number(2)], Out::Nothing),
    row("lseek", &[Fd(0), Number(1), Number(2)], Out::Nothing),
    row("getdents64", &[Fd(0), Number(2)], Out::Names(1)),
    row("fcntl", &[Fd(0), Number(1), Number(2)], Out::Nothing),
    row("ftruncate", &[Fd(0), Number(1)], Out::Nothing),
    row("fchmod", &[Fd(0), Bits(1)], Out::Nothing),
    row("fchown", &[Fd(0), Number(1), Number(2)], Out::Nothing),
    row("fsync", &[Fd(0)], Out::Nothing),
    row("dup", &[Fd(0)], Out::Nothing),
    row("dup2", &[Fd(0), Number(1)], Out::Nothing),
    row("dup3", &[Fd(0), Number(1), Bits(2)], Out::Nothing),
];

/// The compared calls by ABI and number.
pub fn table() -> HashMap<(&'static str, u32), &'static Traced> {
    let numbered = |traced: &'static Traced| {
        ABIS.iter().filter_map(move |abi| Some(((abi.name, number(traced.name, abi)?), traced)))
    };
    TRACED.iter().flat_map(numbered).collect()
}

/// The names of open(2) flags.
pub const OPEN_FLAGS: &[(u64, &str)] = &[
    (libc::O_WRONLY as u64, "O_WRONLY"),
    (libc::O_RDWR as u64, "O_RDWR"),
    (libc::O_CREAT as u64, "O_CREAT"),
    (libc::O_EXCL as u64, "O_EXCL"),
    (libc::O_NOCTTY as u64, "O_NOCTTY"),
    (libc::O_TRUNC as u64, "O_TRUNC"),
    (libc::O_APPEND as u64, "O_APPEND"),
    (libc::O_NONBLOCK as u64, "O_NONBLOCK"),
    (libc::O_DIRECT as u64, "O_DIRECT"),
    (0o100_000, "O_LARGEFILE"),
    (libc::O_DIRECTORY as u64, "O_DIRECTORY"),
    (libc::O_NOFOLLOW as u64, "O_NOFOLLOW"),
    (libc::O_NOATIME as u64, "O_NOATIME"),
    (libc::O_CLOEXEC as u64, "O_CLOEXEC"),
    (libc::O_PATH as u64, "O_PATH"),
];

/// open(2) flags as C spells them.
pub fn open_flags(flags: u64) -> String {
    let mut names: Vec<String> = Vec::new();
    if flags & 3 == 0 {
        names.push("O_RDONLY".into());
    }
    let mut rest = flags;
    for (bits, name) in OPEN_FLAGS.iter().filter(|(bits, _)| flags & bits == *bits) {
        names.push((*name).to_owned());
        rest &= !bits;
    }
    if rest != 0 {
        names.push(format!("{rest:#x}"));
    }
    names.join("|")
}
