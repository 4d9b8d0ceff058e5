//! Virtual objects: what resolution finds in the tree, and their metadata.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;

use super::sys::tape;
use super::tree::{Entry, Tree};
use crate::policy::Row;

/// What kind of object, with the row that makes it.
#[derive(Clone, Debug)]
pub enum ObjectKind {
    /// A directory; without a row when it only leads to rows.
    Dir(Option<Arc<Row>>),
    /// A regular file (or what the row makes of it).
    File(Arc<Row>),
    /// A symbolic link.
    Link(Arc<Row>),
}

/// A virtual object under its concrete name.
#[derive(Clone, Debug)]
pub struct Object {
    /// Canonical key: every `*` of the row replaced by the name that matched.
    pub key: Arc<str>,
    /// What it is.
    pub kind: ObjectKind,
}

impl Object {
    /// The object that a tree has at a key.
    pub fn at(tree: &Tree, key: &str) -> Option<Self> {
        let kind = match tree.entry(&tree.at(key)) {
            Entry::Dir(row) => ObjectKind::Dir(row),
            Entry::File(row) => ObjectKind::File(row),
            Entry::Link(row) => ObjectKind::Link(row),
            Entry::Nothing | Entry::Absent(_) => return None,
        };
        Some(Object { key: key.into(), kind })
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        matches!(self.kind, ObjectKind::Dir(_))
    }

    /// S_IFMT type and permission bits.
    pub fn mode(&self) -> u32 {
        match &self.kind {
            ObjectKind::Dir(Some(row)) => libc::S_IFDIR | u32::from(row.mode),
            ObjectKind::Dir(None) if self.key.starts_with("/proc") => libc::S_IFDIR | 0o555,
            ObjectKind::Dir(None) => libc::S_IFDIR | 0o755,
            ObjectKind::File(row) => libc::S_IFREG | u32::from(row.mode),
            ObjectKind::Link(_) => libc::S_IFLNK | 0o777,
        }
    }
}

/// Inode numbers: each key gets one when it is first seen and keeps it.
#[derive(Debug)]
pub struct Inodes {
    by_key: DashMap<Arc<str>, u64>,
    by_number: DashMap<u64, Arc<str>>,
    next: AtomicU64,
}

/// Inode number of the root of the carriers' file system (FUSE demands 1).
pub const ROOT_INO: u64 = 1;

impl Default for Inodes {
    fn default() -> Self {
        let inodes =
            Inodes { by_key: DashMap::new(), by_number: DashMap::new(), next: AtomicU64::new(ROOT_INO + 1) };
        inodes.by_key.insert("".into(), ROOT_INO);
        inodes.by_number.insert(ROOT_INO, "".into());
        inodes
    }
}

impl Inodes {
    /// The number of a key.
    pub fn number(&self, key: &str) -> u64 {
        tape::fact(|| format!("inode of {key}"), || self.number_now(key))
    }

    fn number_now(&self, key: &str) -> u64 {
        if let Some(number) = self.by_key.get(key) {
            return *number;
        }
        let key: Arc<str> = key.into();
        let number =
            *self.by_key.entry(key.clone()).or_insert_with(|| self.next.fetch_add(1, Ordering::Relaxed));
        self.by_number.insert(number, key);
        number
    }

    /// The number of a key that has one already.
    pub fn known(&self, key: &str) -> Option<u64> {
        self.by_key.get(key).map(|number| *number)
    }

    /// The key of a number.
    pub fn key(&self, number: u64) -> Option<Arc<str>> {
        self.by_number.get(&number).map(|key| key.clone())
    }
}

/// Joins a directory key and a name. The root's key is empty.
pub fn child_key(parent: &str, name: &str) -> String {
    format!("{parent}/{name}")
}

/// The key of the directory that holds a key, and the last name; `None` for the root.
pub fn split_key(key: &str) -> Option<(&str, &str)> {
    key.rsplit_once('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inode_numbers_are_stable_and_reversible() {
        let inodes = Inodes::default();
        let a = inodes.number("/proc/sys/a");
        let b = inodes.number("/proc/sys/b");
        assert_ne!(a, b);
        assert_eq!(inodes.number("/proc/sys/a"), a);
        assert_eq!(inodes.key(b).as_deref(), Some("/proc/sys/b"));
        assert_eq!(inodes.key(ROOT_INO).as_deref(), Some(""));
    }
}
