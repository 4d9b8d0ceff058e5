//! A task's mounts, from `/proc/TID/mountinfo` (proc_pid_mountinfo(5)).

use std::collections::HashMap;

use super::path::is_below;
use crate::emulator::sys::file::mount_of_device;

/// Kinds of file system that rows can belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FsKind {
    /// procfs, any instance.
    Proc,
    /// sysfs, any instance.
    Sysfs,
    /// Anything else.
    Plain,
}

impl FsKind {
    /// The prefix of keys of objects inside; `None` for plain file systems.
    pub fn prefix(self) -> Option<&'static str> {
        match self {
            FsKind::Proc => Some("/proc"),
            FsKind::Sysfs => Some("/sys"),
            FsKind::Plain => None,
        }
    }

    /// The kind of a file system by what statfs(2) reports.
    pub fn of_magic(magic: u64) -> Self {
        const PROC_SUPER_MAGIC: u64 = 0x9fa0;
        const SYSFS_MAGIC: u64 = 0x6265_6572;
        match magic {
            PROC_SUPER_MAGIC => FsKind::Proc,
            SYSFS_MAGIC => FsKind::Sysfs,
            _ => FsKind::Plain,
        }
    }

    fn of_type(name: &str) -> Self {
        match name {
            "proc" => FsKind::Proc,
            "sysfs" => FsKind::Sysfs,
            _ => FsKind::Plain,
        }
    }
}

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Mount id.
    pub id: u64,
    /// Mount id of the mount it is on.
    pub parent: u64,
    /// Which directory of the file system is mounted, as a path inside the file system.
    pub root: String,
    /// Where, as a path from the task's root directory.
    pub point: String,
    /// What.
    pub kind: FsKind,
    /// A procfs that shows processes and nothing else (subset=pid, proc(5)).
    pub is_subset: bool,
}

/// All mounts that a task sees.
#[derive(Clone, Debug, Default)]
pub struct MountTable {
    mounts: Vec<Mount>,
    has_subset: bool,
    by_id: HashMap<u64, usize>,
    /// By id of the mount below, then mount point: the mount there (the last one mounted).
    on: HashMap<u64, HashMap<String, usize>>,
}

impl MountTable {
    /// Parses mountinfo; lines that do not have its shape are left out.
    pub fn parse(text: &str) -> Self {
        let mut table = MountTable::default();
        text.lines().filter_map(parse_line).for_each(|(mount, _)| table.add(mount));
        table
    }

    /// As [`MountTable::parse`], with the ids that [`mount_of_device`] gives.
    pub fn parse_by_device(text: &str) -> Self {
        let lines: Vec<(Mount, u64)> = text.lines().filter_map(parse_line).collect();
        let by_id: HashMap<u64, u64> = lines.iter().map(|(mount, device)| (mount.id, *device)).collect();
        let mut table = MountTable::default();
        for (mount, device) in lines {
            let parent = by_id.get(&mount.parent).copied().unwrap_or(0);
            table.add(Mount { id: device, parent, ..mount });
        }
        table
    }

    /// Adds the mount that holds the root directory of a task, which the file leaves out when the root
    /// directory is not where it is mounted (chroot(2)).
    pub fn add_root(&mut self, id: u64) {
        let kind = FsKind::Plain;
        self.add(Mount { id, parent: 0, root: String::new(), point: "/".into(), kind, is_subset: false });
    }

    fn add(&mut self, mount: Mount) {
        let index = self.mounts.len();
        self.by_id.insert(mount.id, index);
        self.has_subset |= mount.is_subset;
        self.on.entry(mount.parent).or_default().insert(mount.point.clone(), index);
        self.mounts.push(mount);
    }

    /// All mounts, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &Mount> {
        self.mounts.iter()
    }

    /// The mount with this id.
    pub fn get(&self, id: u64) -> Option<&Mount> {
        self.by_id.get(&id).map(|index| &self.mounts[*index])
    }

    /// The mount with this id that holds a path: where devices stand for ids, several can have the same.
    pub fn holding(&self, id: u64, path: &str) -> Option<&Mount> {
        self.index_of(id, path).map(|index| &self.mounts[index])
    }

    fn index_of(&self, id: u64, path: &str) -> Option<usize> {
        let holds = |mount: &Mount| mount.id == id && is_below(path, &mount.point);
        let all = self.mounts.iter().enumerate().filter(|(_, mount)| holds(mount));
        all.max_by_key(|(_, mount)| mount.point.len()).map(|(index, _)| index)
    }

    /// Whether a mount shows processes and nothing else.
    pub fn is_subset(&self, id: u64) -> bool {
        self.get(id).is_some_and(|mount| mount.is_subset)
    }

    /// Whether there is such a mount.
    pub fn has_subset(&self) -> bool {
        self.has_subset
    }

    /// Whether anything is mounted on a mount.
    pub fn has_mounts_on(&self, id: u64) -> bool {
        self.on.contains_key(&id)
    }

    /// Whether some ancestor of the mount, or itself, is of this kind.
    pub fn is_inside(&self, id: u64, kind: FsKind) -> bool {
        let mut at = self.get(id);
        // A cycle cannot occur in a consistent table, but the table is read while mounts may change.
        for _ in 0..self.mounts.len() {
            match at {
                None => return false,
                Some(mount) if mount.kind == kind => return true,
                Some(mount) => at = self.get(mount.parent),
            }
        }
        false
    }

    /// What is on top at this path, coming from a mount, or from one with this id that the table does not have.
    fn topmost(&self, id: u64, mut at: Option<usize>, point: &str) -> Option<usize> {
        for _ in 0..self.mounts.len() {
            let id = at.map_or(id, |index| self.mounts[index].id);
            match self.on.get(&id).and_then(|points| points.get(point)) {
                Some(&index) if Some(index) != at => at = Some(index),
                _ => break,
            }
        }
        at
    }

    /// The mount that a plain absolute path ends in, provided no component is a symbolic link, and the rest
    /// of the path inside it. `root` is the mount id of the task's root directory.
    ///
    /// Only trustworthy down to the last mount point on the way: mount points are real directories, so their
    /// own paths hold no links.
    pub fn locate<'p>(&self, root: u64, path: &'p str) -> (Option<&Mount>, &'p str) {
        let mut at = self.topmost(root, self.index_of(root, "/"), "/");
        let mut rest = path;
        for (index, _) in path.match_indices('/').skip(1).chain([(path.len(), "")]) {
            let top = self.topmost(root, at, &path[..index]);
            if top != at {
                at = top;
                rest = &path[index..];
            }
        }
        (at.map(|index| &self.mounts[index]), rest)
    }
}

/// Undoes the octal escapes of mountinfo (`\040` for a blank, and so on).
fn unescape(text: &str) -> Option<String> {
    if !text.contains('\\') {
        return Some(text.to_owned());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let octal = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if first == b'\\' => {
                bytes.push(byte);
                rest = &after[3..];
            }
            _ => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).ok()
}

/// A mount, and what stands for its id where statx(2) tells none.
fn parse_line(line: &str) -> Option<(Mount, u64)> {
    let mut fields = line.split(' ');
    let id = fields.next()?.parse().ok()?;
    let parent = fields.next()?.parse().ok()?;
    let (major, minor) = fields.next()?.split_once(':')?;
    let device = mount_of_device((major.parse().ok()?, minor.parse().ok()?));
    let root = unescape(fields.next()?)?;
    let point = unescape(fields.next()?)?;
    let mut fields = fields.skip_while(|field| *field != "-").skip(1);
    let kind = FsKind::of_type(fields.next()?);
    let is_subset = kind == FsKind::Proc
        && fields.nth(1).is_some_and(|options| options.split(',').any(|option| option == "subset=pid"));
    let root = root.trim_end_matches('/').to_owned();
    Some((Mount { id, parent, root, point, kind, is_subset }, device))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
21 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw
22 21 0:21 / /proc rw,nosuid - proc proc rw
23 21 0:22 / /sys rw - sysfs sysfs rw
24 23 0:23 / /sys/kernel/security rw shared:3 - securityfs securityfs rw
25 22 0:21 /sys /proc/sys ro - proc proc rw
26 21 0:24 / /with\\040blank rw - tmpfs t rw
27 25 0:25 / /proc/sys/kernel rw - tmpfs t rw
28 21 0:30 / /stack rw - tmpfs a rw
29 28 0:31 / /stack rw - proc b rw
nonsense
";

    #[test]
    fn finds_the_topmost_mount() {
        let table = MountTable::parse(TEXT);
        for (path, id, rest) in [
            ("/etc/passwd", 21, "/etc/passwd"),
            ("/proc/stat", 22, "/stat"),
            ("/proc", 22, ""),
            ("/procx", 21, "/procx"),
            ("/proc/sys/vm/swappiness", 25, "/vm/swappiness"),
            ("/proc/sys/kernel/panic", 27, "/panic"),
            ("/sys/kernel/security/apparmor", 24, "/apparmor"),
            ("/with blank/x", 26, "/x"),
            ("/stack/self", 29, "/self"),
        ] {
            let (mount, found) = table.locate(21, path);
            assert_eq!((mount.map(|m| m.id), found), (Some(id), rest), "{path}");
        }
    }

    #[test]
    fn knows_what_a_mount_is_inside_of() {
        let table = MountTable::parse(TEXT);
        assert!(table.is_inside(24, FsKind::Sysfs));
        assert!(table.is_inside(27, FsKind::Proc));
        assert!(!table.is_inside(26, FsKind::Proc));
        assert_eq!(table.get(25).map(|mount| mount.root.as_str()), Some("/sys"));
    }

    #[test]
    fn devices_stand_for_ids() {
        let table = MountTable::parse_by_device(TEXT);
        let (root, proc) = (mount_of_device((8, 1)), mount_of_device((0, 21)));
        let (mount, rest) = table.locate(root, "/proc/stat");
        assert_eq!((mount.map(|mount| mount.id), rest), (Some(proc), "/stat"));
        assert!(table.is_inside(mount_of_device((0, 23)), FsKind::Sysfs));

        // Two mounts of one procfs, one on the other.
        for (path, point, rest) in [
            ("/proc/stat", "/proc", "/stat"),
            ("/proc/sys", "/proc/sys", ""),
            ("/proc/sys/vm/x", "/proc/sys", "/vm/x"),
        ] {
            let (mount, found) = table.locate(root, path);
            assert_eq!((mount.map(|mount| mount.point.as_str()), found), (Some(point), rest), "{path}");
            assert_eq!(table.holding(proc, path).map(|mount| mount.point.as_str()), Some(point), "{path}");
        }
        assert_eq!(table.holding(proc, "/other"), None);
    }
}
