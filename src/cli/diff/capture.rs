//! What a stopped task's arguments and results hold, as text.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use sysemu::emulator::sys::memory;

use super::calls::Out;

/// Bytes of content that are kept as text; of more, a hash is kept.
const KEPT: usize = 16 * 1024;
/// Bytes of a read that are looked at.
const LOOKED_AT: usize = 1 << 20;
/// Bytes of a path or another argument.
const PATH_MAX: usize = 4096;

/// A field of a structure: name, offset, bytes.
type Field = (&'static str, usize, usize);

const STAT: &[Field] = &[
    ("dev", 0, 8),
    ("ino", 8, 8),
    ("nlink", 16, 8),
    ("mode", 24, 4),
    ("uid", 28, 4),
    ("gid", 32, 4),
    ("rdev", 40, 8),
    ("size", 48, 8),
    ("blksize", 56, 8),
    ("blocks", 64, 8),
    ("atime", 72, 8),
    ("mtime", 88, 8),
    ("ctime", 104, 8),
];
const STAT64: &[Field] = &[
    ("dev", 0, 8),
    ("mode", 16, 4),
    ("nlink", 20, 4),
    ("uid", 24, 4),
    ("gid", 28, 4),
    ("rdev", 32, 8),
    ("size", 44, 8),
    ("blksize", 52, 4),
    ("blocks", 56, 8),
    ("atime", 64, 4),
    ("mtime", 72, 4),
    ("ctime", 80, 4),
    ("ino", 88, 8),
];
const STATX: &[Field] = &[
    ("mask", 0, 4),
    ("blksize", 4, 4),
    ("attributes", 8, 8),
    ("nlink", 16, 4),
    ("uid", 20, 4),
    ("gid", 24, 4),
    ("mode", 28, 2),
    ("ino", 32, 8),
    ("size", 40, 8),
    ("blocks", 48, 8),
    ("attributes_mask", 56, 8),
    ("atime", 64, 8),
    ("btime", 80, 8),
    ("ctime", 96, 8),
    ("mtime", 112, 8),
    ("rdev_major", 128, 4),
    ("rdev_minor", 132, 4),
    ("dev_major", 136, 4),
    ("dev_minor", 140, 4),
    ("mnt_id", 144, 8),
];
const STATFS: &[Field] = &[
    ("type", 0, 8),
    ("bsize", 8, 8),
    ("blocks", 16, 8),
    ("bfree", 24, 8),
    ("bavail", 32, 8),
    ("files", 40, 8),
    ("ffree", 48, 8),
    ("fsid", 56, 8),
    ("namelen", 64, 8),
    ("frsize", 72, 8),
    ("flags", 80, 8),
];
const STATFS_I386: &[Field] = &[
    ("type", 0, 4),
    ("bsize", 4, 4),
    ("blocks", 8, 4),
    ("bfree", 12, 4),
    ("bavail", 16, 4),
    ("files", 20, 4),
    ("ffree", 24, 4),
    ("fsid", 28, 8),
    ("namelen", 36, 4),
    ("frsize", 40, 4),
    ("flags", 44, 4),
];
const UNAME: [&str; 6] = ["sysname", "nodename", "release", "version", "machine", "domainname"];
const UNAME_LEN: usize = 65;

/// Up to `len` bytes of a task at an address; fewer when not all of them are mapped.
pub fn bytes(tid: i32, addr: u64, len: usize) -> Vec<u8> {
    let mut all = vec![0; len];
    let mut have = 0;
    while have < len {
        let end = len.min(have + PATH_MAX);
        match memory::read(tid.cast_unsigned(), addr.wrapping_add(have as u64), &mut all[have..end]) {
            Ok(0) | Err(_) => break,
            Ok(read) => have += read,
        }
    }
    all.truncate(have);
    all
}

/// A text that ends with NUL; `None` when it cannot be read.
pub fn text(tid: i32, addr: u64) -> Option<Vec<u8>> {
    let mut text = bytes(tid, addr, PATH_MAX);
    let end = text.iter().position(|byte| *byte == 0)?;
    text.truncate(end);
    Some(text)
}

/// A number at an address.
pub fn number(bytes: &[u8], offset: usize, len: usize) -> Option<u64> {
    let mut word = [0; 8];
    word[..len].copy_from_slice(bytes.get(offset..offset + len)?);
    Some(u64::from_le_bytes(word))
}

/// What a call that gave `result` stored; `addr` gives its arguments.
pub fn stored(tid: i32, out: Out, args: [u64; 6], result: i64, is_wide: bool) -> BTreeMap<String, String> {
    let Ok(len) = usize::try_from(result) else {
        return BTreeMap::new();
    };
    match out {
        Out::Nothing => BTreeMap::new(),
        Out::Stat(arg) if !is_wide => structure(tid, args[arg], &[]),
        Out::Stat(arg) => structure(tid, args[arg], STAT),
        Out::Stat64(arg) => structure(tid, args[arg], STAT64),
        Out::Statx(arg) => structure(tid, args[arg], STATX),
        Out::Statfs(arg) => structure(tid, args[arg], if is_wide { STATFS } else { STATFS_I386 }),
        Out::Link(arg) => one("text", shown(&bytes(tid, args[arg], len.min(PATH_MAX)))),
        Out::Data(arg) if args[arg] == 0 => BTreeMap::new(),
        Out::Data(arg) => content(&bytes(tid, args[arg], len.min(LOOKED_AT))),
        Out::DataVector(arg) => content(&gathered(tid, args[arg], args[arg + 1], len, is_wide)),
        Out::Names(arg) => one("names", names(&bytes(tid, args[arg], len.min(LOOKED_AT)))),
        Out::Uname(arg) => uname(tid, args[arg]),
    }
}

fn one(name: &str, value: String) -> BTreeMap<String, String> {
    BTreeMap::from([(name.to_owned(), value)])
}

fn structure(tid: i32, addr: u64, fields: &[Field]) -> BTreeMap<String, String> {
    let bytes = bytes(tid, addr, 256);
    let value = |(name, offset, len): &Field| {
        let value = number(&bytes, *offset, *len)?;
        let shown = match *name {
            "mode" => format!("{value:o}"),
            "mask" | "attributes" | "attributes_mask" | "type" | "flags" => format!("{value:#x}"),
            _ => value.to_string(),
        };
        Some(((*name).to_owned(), shown))
    };
    fields.iter().filter_map(value).collect()
}

/// Bytes as text, one line for each of theirs.
fn content(bytes: &[u8]) -> BTreeMap<String, String> {
    let mut fields = one("data", lines(&bytes[..bytes.len().min(KEPT)]));
    if bytes.len() > KEPT {
        let mut hasher = DefaultHasher::new();
        bytes.hash(&mut hasher);
        fields.insert("hash".into(), format!("{:016x}", hasher.finish()));
    }
    fields
}

fn lines(bytes: &[u8]) -> String {
    bytes.split(|byte| *byte == b'\n').map(shown).collect::<Vec<_>>().join("\n")
}

/// Bytes with everything unprintable escaped.
pub fn shown(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if text.chars().all(|c| !c.is_control() && c != '\\') => text.to_owned(),
        _ => bytes.escape_ascii().to_string(),
    }
}

fn gathered(tid: i32, addr: u64, count: u64, len: usize, is_wide: bool) -> Vec<u8> {
    let word = if is_wide { 8 } else { 4 };
    let count = usize::try_from(count).unwrap_or(0).min(1024);
    let vector = bytes(tid, addr, count * 2 * word);
    let mut all = Vec::new();
    for piece in vector.chunks_exact(2 * word) {
        let left = len.min(LOOKED_AT) - all.len();
        let (Some(base), Some(size)) = (number(piece, 0, word), number(piece, word, word)) else {
            break;
        };
        all.extend(bytes(tid, base, left.min(usize::try_from(size).unwrap_or(0))));
    }
    all
}

/// Names and types of directory entries, sorted, because a merged listing has an order of its own.
fn names(bytes: &[u8]) -> String {
    let mut names = Vec::new();
    let mut at = 0;
    while let Some(len) = number(bytes, at + 16, 2).filter(|len| *len > 19) {
        let Some(record) = bytes.get(at..at + len as usize) else {
            break;
        };
        let name = record[19..].split(|byte| *byte == 0).next().unwrap_or_default();
        names.push(format!("{} {}", shown(name), kind(record[18])));
        at += len as usize;
    }
    names.sort();
    names.join("\n")
}

fn kind(kind: u8) -> &'static str {
    match kind {
        libc::DT_REG => "file",
        libc::DT_DIR => "dir",
        libc::DT_LNK => "link",
        libc::DT_UNKNOWN => "unknown",
        _ => "other",
    }
}

fn uname(tid: i32, addr: u64) -> BTreeMap<String, String> {
    let all = bytes(tid, addr, UNAME.len() * UNAME_LEN);
    let fields = UNAME.iter().zip(all.chunks(UNAME_LEN));
    let field = |bytes: &[u8]| shown(bytes.split(|byte| *byte == 0).next().unwrap_or_default());
    fields.map(|(name, bytes)| ((*name).to_owned(), field(bytes))).collect()
}
