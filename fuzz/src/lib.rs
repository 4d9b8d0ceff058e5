//! The fuzz targets as ordinary functions over bytes, so that a test replays the corpus on stable.

use std::sync::OnceLock;

use sysemu::Supervisor;
use sysemu::emulator::abi::{ABIS, Abi};
use sysemu::emulator::codec::Codec;
use sysemu::emulator::filter::{self, TrapAction};
use sysemu::emulator::resolve::path::{Buffer, components, plain, read_path, wants_directory};
use sysemu::emulator::resolve::{Final, Found, Query};
use sysemu::emulator::sys::seccomp::Instruction;
use sysemu::emulator::syscall::{Activation, SyscallTable};
use sysemu::handlers;
use sysemu::policy::diagnostic::{Report, Source};
use sysemu::policy::{Loader, Policy, parse, show};

/// Makes a fuzz target of a function: driven by libFuzzer under `cfg(fuzzing)`, otherwise a program that
/// runs the files it is given.
#[macro_export]
macro_rules! target {
    ($function:path) => {
        #[cfg(fuzzing)]
        libfuzzer_sys::fuzz_target!(|data: &[u8]| $function(data));

        #[cfg(not(fuzzing))]
        fn main() -> std::io::Result<()> {
            for file in std::env::args_os().skip(1) {
                $function(&std::fs::read(&file)?);
            }
            Ok(())
        }
    };
}

/// Any text is parsed or refused; what is accepted survives being printed and parsed again.
pub fn policy_parse(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut report = Report::default();
    let document = parse::parse(&Source::new("input", text.to_owned()), &mut report);
    if report.finish(()).is_err() {
        return;
    }
    for row in &document.rows {
        let printed = format!("schema = 1\n{}", show::row(row));
        let mut report = Report::default();
        let again = parse::parse(&Source::new("printed", printed.clone()), &mut report);
        if let Err(error) = report.finish(()) {
            panic!("{error}\n{printed}");
        }
        let [again] = &again.rows[..] else { panic!("one row became {}:\n{printed}", again.rows.len()) };
        assert_eq!(
            (&again.path, &again.what, again.mode, again.when),
            (&row.path, &row.what, row.mode, row.when)
        );
    }
}

/// Whatever is written, in two pieces, a file shows a value of its type afterwards, and the count is no more than was
/// given. The first byte chooses the type, the second the offset.
pub fn sysctl_write(data: &[u8]) {
    let [kind, offset, data @ ..] = data else { return };
    let (codec, first) = match kind % 7 {
        0 => (Codec::Int { min: -5, max: 2000 }, "7"),
        1 => (Codec::Uint { min: 0, max: 255 }, "7"),
        2 => (Codec::Bool, "1"),
        3 => (Codec::Str { max: 12 }, "abc"),
        4 => (Codec::IntList { len: 3, min: 0, max: i32::MAX }, "7 8 9"),
        5 => (Codec::Ulong { min: 0, max: u64::MAX }, "7"),
        _ => (Codec::UlongList { len: 2, min: 1, max: 1 << 40 }, "7 8"),
    };
    let mut content = codec.canonical(first).expect("a good value").into_bytes();
    let (left, right) = data.split_at(data.len() / 2);
    for (piece, offset) in [(data, u64::from(*offset)), (left, 0), (right, left.len() as u64)] {
        let written = codec.write(&content, piece, offset);
        assert!(written.result.is_err() || written.result.is_ok_and(|count| count <= piece.len()));
        content = written.content.unwrap_or(content);
        match std::str::from_utf8(&content) {
            Ok(text) => assert_eq!(codec.canonical(text).as_deref(), Ok(text), "{codec:?} {piece:?}"),
            Err(_) => assert!(matches!(codec, Codec::Str { max } if content.len() <= max + 1)),
        }
    }
}

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

/// The resolver against the kernel: a path leads to a virtual file exactly when the kernel takes it to the
/// real file of that name.
pub fn path_resolve(data: &[u8]) {
    let Some((flags, rest)) = data.split_first() else { return };
    let pieces: Vec<&str> =
        rest.iter().take(24).map(|byte| PIECES[usize::from(*byte) % PIECES.len()]).collect();
    let mut text = pieces.join("/");
    if flags & 1 != 0 {
        text.insert(0, '/');
    }
    if flags & 2 != 0 {
        text.push('/');
    }
    let last = if flags & 4 != 0 { Final::NoFollow } else { Final::Follow };
    if text.is_empty() {
        return;
    }
    let nofollow = if last == Final::NoFollow { libc::O_NOFOLLOW } else { 0 };
    let path = std::ffi::CString::new(text.clone()).expect("no NUL in the pieces");
    let real = sysemu::emulator::sys::file::open(None, &path, libc::O_PATH | nofollow);
    let tid = sysemu_tid();
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

fn sysemu_tid() -> u32 {
    // Linux: the thread's own directory says its number.
    let link = std::fs::read_link("/proc/thread-self").expect("procfs");
    link.file_name().and_then(|name| name.to_str()?.parse().ok()).expect("a number")
}

fn table() -> &'static (SyscallTable, Vec<Instruction>) {
    static TABLE: OnceLock<(SyscallTable, Vec<Instruction>)> = OnceLock::new();
    TABLE.get_or_init(|| {
        let policy: Policy = Loader::new()
            .file("/proc/sys/a=1")
            .uname_release("1")
            .statfs("9p=tmpfs")
            .load()
            .expect("a good policy");
        let table = SyscallTable::new(handlers::all(), &policy);
        let program = filter::build(&table, TrapAction::Notify).expect("a filter");
        (table, program)
    })
}

const ALLOW: u32 = 0x7fff_0000;
const USER_NOTIF: u32 = 0x7fc0_0000;
const ERRNO: u32 = 0x0005_0000;

/// The filter against the table it was made from, for any ABI, number and arguments; and the copying of a
/// path out of any memory.
pub fn notification_decode(data: &[u8]) {
    let mut bytes = data.iter().copied();
    let mut byte = || bytes.next().unwrap_or(0);
    let abi: &Abi = &ABIS[usize::from(byte()) % ABIS.len()];
    let nr = (u32::from(u16::from_ne_bytes([byte(), byte()])) % 600) | abi.nr_bits;
    let mut args = [0u64; 6];
    for arg in &mut args {
        // Values that tests compare with, and others.
        *arg = match byte() % 6 {
            0 => libc::AT_FDCWD as u32 as u64,
            1 => libc::AT_FDCWD as i64 as u64,
            2 => libc::AT_EMPTY_PATH as u64,
            3 => u64::from(byte()) << 32,
            4 => u64::from(u32::from_ne_bytes([byte(), byte(), byte(), byte()])),
            _ => u64::from(byte()),
        };
    }
    let (table, program) = table();
    let verdict = filter::evaluate(program, abi, nr, args).expect("instructions that are known");
    let expected = table.find(abi, nr).map_or(ALLOW, |(index, row)| {
        let tests = row.only_if.iter().any(|test| args[test.arg as usize] as u32 & test.mask == test.value);
        if !row.only_if.is_empty() && !tests {
            return ALLOW;
        }
        match table.rows().nth(index).map(|(_, activation)| *activation) {
            Some(Activation::Refuse(errno)) => ERRNO | errno.raw().cast_unsigned(),
            _ => USER_NOTIF,
        }
    });
    assert_eq!(verdict, expected, "{} {nr} {args:x?}", abi.name);
    let base = 0x1000 - u64::from(byte());
    let rest: Vec<u8> = bytes.collect();
    match read_path(&Buffer { base, bytes: &rest }, base) {
        Ok(path) => assert!(rest.starts_with(&path) && rest.get(path.len()) == Some(&0) && path.len() < 4096),
        Err(_) => assert!(!rest.iter().take(4096).any(|byte| *byte == 0)),
    }
}
