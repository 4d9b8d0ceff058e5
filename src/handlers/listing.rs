//! getdents(2), getdents64(2): directories whose real listing lacks virtual entries or shows hidden ones.
//!
//! The tracee keeps its descriptor of the real directory, so everything else about it is native. The file
//! offset of that descriptor counts entries of the merged listing, as procfs itself counts its own, so that
//! lseek(2) and telldir(3) work unchanged.

use std::collections::HashSet;
use std::os::fd::AsFd;

use super::for_paths;
use crate::emulator::abi::layout::{DirentShape, push_dirent};
use crate::emulator::errno::Errno;
use crate::emulator::failure::{Failure, OrFault};
use crate::emulator::object::{Object, ObjectKind, child_key};
use crate::emulator::reply::{Out, Reply};
use crate::emulator::resolve::mounts::FsKind;
use crate::emulator::resolve::{Found, Real, place};
use crate::emulator::sys::file;
use crate::emulator::syscall::{Call, Syscall};
use crate::emulator::tree::Entry;
use crate::policy::When;

/// The rows of this family.
pub fn rows() -> Vec<Syscall> {
    let row = |name, shape| Syscall::new(name, for_paths, move |call| getdents(call, shape));
    vec![row("getdents", DirentShape::Dirent), row("getdents64", DirentShape::Dirent64)]
}

/// One entry of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Item {
    name: Vec<u8>,
    ino: u64,
    kind: u8,
}

fn getdents(call: &Call<'_>, shape: DirentShape) -> Result<Reply, Failure> {
    let fd = call.int(0);
    let items = match call.emulator.resolver.descriptor(call.tid, fd) {
        Ok(Found::Kernel(Some(real))) => match real.key.as_deref() {
            Some(key) if real.stat.is(libc::S_IFDIR) && differs(call, key, &real) => {
                merged(call, key, &real)?
            }
            _ => return Ok(Reply::Continue),
        },
        // FUSE lists its own directories; a stand-in directory is empty and needs all entries.
        Ok(Found::Virtual(object)) if object.is_dir() && !call.emulator.carrier.shows_path() => {
            virtual_only(call, &object)
        }
        _ => return Ok(Reply::Continue),
    };
    // A descriptor that cannot be listed (O_PATH) has no offset; the kernel has the errno for it.
    let Ok(position) = call.tracee.seek(fd, 0, libc::SEEK_CUR) else {
        return Ok(Reply::Continue);
    };
    let capacity = usize::try_from(call.args[2] as u32).unwrap_or(0);
    let mut next = usize::try_from(position).unwrap_or(usize::MAX);
    let mut bytes = Vec::new();
    for item in items.iter().skip(next) {
        let fields = (item.ino, next as i64 + 1, item.kind);
        if !push_dirent(&mut bytes, capacity, (call.abi.layout, shape), fields, &item.name) {
            break;
        }
        next += 1;
    }
    if bytes.is_empty() && next < items.len() {
        return Err(Errno::EINVAL.into());
    }
    call.tracee.seek(fd, next as i64, libc::SEEK_SET).or_fault("set a directory offset")?;
    Ok(Reply::Value { value: bytes.len() as i64, out: Some(Out { addr: call.args[1], bytes }) })
}

/// Whether rows change the listing of a real directory.
fn differs(call: &Call<'_>, key: &str, real: &Real) -> bool {
    if call.emulator.root_inode(real).is_some() {
        return true;
    }
    let tree = &call.emulator.store.tree;
    let cursor = tree.at(key);
    !cursor.is_empty() && (!tree.names(&cursor).is_empty() || tree.has_wild_children(&cursor))
}

fn merged(call: &Call<'_>, key: &str, real: &Real) -> Result<Vec<Item>, Failure> {
    let tree = &call.emulator.store.tree;
    let cursor = tree.at(key);
    let mut items = Vec::new();
    let mut seen = HashSet::new();
    for mut item in real_items(real)? {
        if item.name == b"." {
            item.ino = call.emulator.root_inode(real).unwrap_or(item.ino);
        }
        if let Ok(name) = std::str::from_utf8(&item.name)
            && name != "."
            && name != ".."
        {
            seen.insert(name.to_owned());
            match tree.entry(&tree.child(&cursor, name)) {
                Entry::Absent(_) => continue,
                Entry::File(row) | Entry::Link(row) if row.when == When::Always => {
                    if let Some(object) = call.emulator.store.object(&child_key(key, name)) {
                        item = item_of(call, item.name, &object);
                    }
                }
                _ => {}
            }
        }
        items.push(item);
    }
    // A procfs without `sys` was mounted with subset=pid: it shows processes and nothing else.
    let is_subset = real.kind == FsKind::Proc && key == "/proc" && !seen.contains("sys");
    for (name, object) in call.emulator.store.children(key, call.tid) {
        // A root directory does not show `proc` and `sys` because rows have something inside those file systems.
        if !seen.contains(&name) && !is_subset && place::child(real.kind, key, &name).is_some() {
            items.push(item_of(call, name.into_bytes(), &object));
        }
    }
    // Sysctl directories are listed in byte order; others keep the kernel's.
    if key == "/proc/sys" || key.starts_with("/proc/sys/") {
        items.sort_by(|a, b| order(&a.name).cmp(&order(&b.name)));
    }
    Ok(items)
}

/// `.` and `..` come first.
fn order(name: &[u8]) -> (u8, &[u8]) {
    match name {
        b"." => (0, name),
        b".." => (1, name),
        _ => (2, name),
    }
}

fn virtual_only(call: &Call<'_>, object: &Object) -> Vec<Item> {
    let parent = object.key.rsplit_once('/').map_or("", |(parent, _)| parent);
    let dot = |name: &[u8], ino| Item { name: name.to_vec(), ino, kind: libc::DT_DIR };
    let own = call.emulator.attr(object).ino;
    let mut items = vec![dot(b".", own), dot(b"..", call.emulator.store.inodes.number(parent))];
    let children = call.emulator.store.children(&object.key, call.tid);
    items.extend(children.into_iter().map(|(name, object)| item_of(call, name.into_bytes(), &object)));
    items
}

fn item_of(call: &Call<'_>, name: Vec<u8>, object: &Object) -> Item {
    let kind = match &object.kind {
        ObjectKind::Dir(_) => libc::DT_DIR,
        ObjectKind::Link(_) => libc::DT_LNK,
        ObjectKind::File(_) if crate::emulator::store::is_blocking(object) => libc::DT_CHR,
        ObjectKind::File(_) => libc::DT_REG,
    };
    Item { name, ino: call.emulator.attr(object).ino, kind }
}

/// The real listing, read through a description of the supervisor's own.
fn real_items(real: &Real) -> Result<Vec<Item>, Failure> {
    let dir = file::open(Some(real.fd.as_fd()), c".", libc::O_RDONLY | libc::O_DIRECTORY)
        .map_err(|errno| Errno::from_raw(errno as i32))?;
    let mut items = Vec::new();
    let mut buf = vec![0u8; 32768];
    loop {
        let len = file::getdents(dir.as_fd(), &mut buf).map_err(|errno| Errno::from_raw(errno as i32))?;
        if len == 0 {
            return Ok(items);
        }
        items.extend(parse(&buf[..len]));
    }
}

/// Takes `struct linux_dirent64` records apart.
fn parse(mut records: &[u8]) -> Vec<Item> {
    let mut items = Vec::new();
    while records.len() > 19 {
        let ino = u64::from_ne_bytes(records[..8].try_into().expect("eight bytes"));
        let len = usize::from(u16::from_ne_bytes([records[16], records[17]]));
        let Some(record) = records.get(19..len) else { break };
        let name = record.split(|byte| *byte == 0).next().unwrap_or_default().to_vec();
        items.push(Item { name, ino, kind: records[18] });
        records = &records[len..];
    }
    items
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emulator::abi::Layout;

    #[test]
    fn records_survive_being_written_and_taken_apart() {
        let names: [&[u8]; 3] = [b".", b"osrelease", b"x"];
        let mut bytes = Vec::new();
        for (index, name) in names.iter().enumerate() {
            let fields = (index as u64, 0, libc::DT_REG);
            assert!(push_dirent(&mut bytes, 4096, (Layout::X86_64, DirentShape::Dirent64), fields, name));
        }
        let parsed: Vec<Vec<u8>> = parse(&bytes).into_iter().map(|item| item.name).collect();
        assert_eq!(parsed, names);
    }
}
