//! `encode`.

use sysemu::emulator::abi::Layout;
use sysemu::emulator::abi::layout::{
    self, Attr, DirentShape, StatShape, Statfs, StatfsShape, Sysinfo, push_dirent,
};
use sysemu::emulator::record::CallLine;
use sysemu::emulator::sys::tape;

use crate::decode::in_world;
use crate::input::Input;

const LAYOUTS: [Layout; 2] = [Layout::X86_64, Layout::I386];

/// What is stored for a caller has the size of the structure, or fits the buffer whose size the caller gave.
pub fn encode(data: &[u8]) {
    let mut input = Input(data);
    match input.byte() % 5 {
        0 => stat(&mut input),
        1 => statfs(&mut input),
        2 => others(&mut input),
        3 => directory(&mut input),
        _ => sized(&mut input),
    }
}

fn number(input: &mut Input<'_>) -> u64 {
    input.register()
}

fn small(input: &mut Input<'_>) -> u32 {
    number(input) as u32
}

fn stat(input: &mut Input<'_>) {
    let mut time = || (number(input).cast_signed(), 999_999_999);
    let [atime, mtime, ctime] = [time(), time(), time()];
    let attr = Attr {
        mode: small(input),
        ino: number(input),
        nlink: small(input),
        uid: small(input),
        gid: small(input),
        size: number(input),
        blksize: small(input),
        blocks: number(input),
        dev: (small(input), small(input)),
        rdev: (small(input), small(input)),
        atime,
        mtime,
        ctime,
        mount: Some(number(input)).filter(|mount| mount % 2 == 0),
    };
    use StatShape::{Oldest, Stat, Stat64, Statx};
    for (layout, shape, size) in [
        (Layout::X86_64, Stat, size_of::<libc::stat>()),
        (Layout::X86_64, Statx, size_of::<libc::statx>()),
        (Layout::I386, Statx, size_of::<libc::statx>()),
        (Layout::I386, Stat, 64),
        (Layout::I386, Stat64, 96),
        (Layout::I386, Oldest, 32),
    ] {
        if let Ok(bytes) = layout::stat(layout, shape, &attr) {
            assert_eq!(bytes.len(), size, "{shape:?}");
        } else {
            assert!(matches!(shape, Stat | Oldest) && layout == Layout::I386, "{shape:?} {attr:?}");
        }
    }
}

fn statfs(input: &mut Input<'_>) {
    let fs = Statfs {
        f_type: number(input),
        bsize: number(input),
        blocks: number(input),
        bfree: number(input),
        bavail: number(input),
        files: number(input),
        ffree: number(input),
        fsid: [small(input), small(input)],
        namelen: number(input),
        frsize: number(input),
        flags: number(input),
    };
    use StatfsShape::{Statfs as Plain, Statfs64};
    for (layout, shape, size) in [
        (Layout::X86_64, Plain, size_of::<libc::statfs>()),
        (Layout::I386, Plain, 64),
        (Layout::I386, Statfs64, 84),
    ] {
        match layout::statfs(layout, shape, &fs) {
            Ok(bytes) => assert_eq!(bytes.len(), size),
            Err(_) => assert_eq!(layout, Layout::I386, "{fs:?}"),
        }
    }
}

fn others(input: &mut Input<'_>) {
    let info = Sysinfo {
        uptime: number(input).cast_signed(),
        loads: [number(input), number(input), number(input)],
        totalram: number(input),
        freeram: number(input),
        sharedram: number(input),
        bufferram: number(input),
        totalswap: number(input),
        freeswap: number(input),
        procs: small(input) as u16,
    };
    assert_eq!(layout::sysinfo(Layout::X86_64, &info).len(), size_of::<libc::sysinfo>());
    assert_eq!(layout::sysinfo(Layout::I386, &info).len(), 64);
    let width = *input.one(&[9, layout::UTSNAME_FIELD]);
    let text = String::from_utf8_lossy(input.0);
    let bytes = layout::utsname(&[&text, "", &text], width);
    assert_eq!(bytes.len(), 3 * width);
    for field in bytes.chunks(width) {
        assert_eq!(field.last(), Some(&0), "a field without its NUL");
        let kept = text.len().min(width - 1);
        assert!(field.iter().all(|byte| *byte == 0) || field.starts_with(&text.as_bytes()[..kept]));
    }
}

/// Records that fit their buffer and can be taken apart again.
fn directory(input: &mut Input<'_>) {
    let layout = *input.one(&LAYOUTS);
    let shape = *input.one(&[DirentShape::Dirent, DirentShape::Dirent64]);
    let capacity = usize::from(input.byte()) * 4;
    let mut bytes = Vec::new();
    let mut names: Vec<Vec<u8>> = Vec::new();
    while !input.is_empty() {
        let len = input.below(256).min(input.0.len());
        let (name, rest) = input.0.split_at(len);
        input.0 = rest;
        let name: Vec<u8> = name.iter().map(|byte| if *byte == 0 { b'x' } else { *byte }).collect();
        let before = bytes.len();
        if push_dirent(&mut bytes, capacity, (layout, shape), (number(input), 7, libc::DT_REG), &name) {
            names.push(name);
        } else {
            assert_eq!(bytes.len(), before);
        }
    }
    assert!(bytes.len() <= capacity);
    let (len_at, name_at) = match (shape, layout) {
        (DirentShape::Dirent64, _) => (16, 19),
        (DirentShape::Dirent, Layout::X86_64) => (16, 18),
        (DirentShape::Dirent, Layout::I386) => (8, 10),
    };
    let mut rest = &bytes[..];
    for name in names {
        let len = usize::from(u16::from_ne_bytes([rest[len_at], rest[len_at + 1]]));
        let record = &rest[..len];
        assert!(record[name_at..].starts_with(&name) && record[name_at + name.len()] == 0);
        let kind_at = if shape == DirentShape::Dirent { len - 1 } else { 18 };
        assert_eq!(record[kind_at], libc::DT_REG);
        rest = &rest[len..];
    }
    assert!(rest.is_empty());
}

/// Calls with a buffer, and the arguments that are its address and its size.
const SIZED: [(&str, usize, usize); 7] = [
    ("readlink", 1, 2),
    ("readlinkat", 2, 3),
    ("getcwd", 0, 1),
    ("getdents64", 1, 2),
    ("getdents", 1, 2),
    ("sched_getaffinity", 2, 1),
    ("getxattr", 2, 3),
];

/// Recorded calls with another size.
fn sized(input: &mut Input<'_>) {
    let (name, buffer, size) = *input.one(&SIZED);
    let skip = usize::from(input.byte());
    let given = number(input);
    in_world(|world| {
        let calls: Vec<&CallLine> = world.calls.iter().filter(|call| call.call == name).collect();
        let mut call = calls[skip % calls.len()].clone();
        call.args[size] = given;
        let args = call.args;
        let outcome = world.serve(call);
        let prefix = format!("store {:#x} ", args[buffer]);
        for act in &outcome {
            let Some(stored) = act.strip_prefix(&prefix).and_then(tape::untext) else { continue };
            // The kernel takes an int, of which only getcwd(2) is given more.
            let most = if name == "getcwd" { given } else { u64::from(given as u32) };
            assert!(stored.len() as u64 <= most, "{name} {given:#x}: {act}");
            assert!(outcome.contains(&format!("return {}", stored.len())), "{name} {given:#x}: {outcome:?}");
        }
    });
}
