//! The virtual tree: which rows match a path, and what a directory holds.
//!
//! Keys are canonical absolute paths *inside a file system kind*: `/proc/...` is a path inside any procfs,
//! wherever it is mounted, `/sys/...` inside any sysfs, everything else a path from the tracee's root
//! directory. The tree is built once and never changes, so looking at it takes no lock; the cost of a lookup
//! is one hash probe for each component, whatever the number of rows.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use super::sys::tape;
use crate::policy::{Policy, Row, What, When};

type NodeId = u32;

#[derive(Default)]
struct Node {
    children: HashMap<Box<str>, NodeId>,
    /// Matches any one component.
    wild: Option<NodeId>,
    /// Matches any process id; only below `/proc`.
    pid: Option<NodeId>,
    /// The last row of the policy with this pattern, and its position there: later rows win.
    row: Option<(u32, Arc<Row>)>,
}

/// All nodes that match a path; more than one where `*` is involved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    nodes: Vec<NodeId>,
    /// Whether the last component was matched by `*` alone.
    wild_only: bool,
}

impl Cursor {
    /// Whether nothing in the tree is at or below this path.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Whether only a `*` accounts for the last component, so that it must be checked to exist.
    pub fn is_wild_only(&self) -> bool {
        self.wild_only
    }
}

/// What the tree says about one path.
#[derive(Clone, Debug)]
pub enum Entry {
    /// No row here or below.
    Nothing,
    /// A directory, because of a row or because there are rows below.
    Dir(Option<Arc<Row>>),
    /// A regular file.
    File(Arc<Row>),
    /// A symbolic link.
    Link(Arc<Row>),
    /// Hidden.
    Absent(Arc<Row>),
}

/// The tree.
pub struct Tree {
    nodes: Vec<Node>,
    /// Every component of the rows outside `/proc` and `/sys`: a path elsewhere whose last component is not
    /// among them cannot be one of those rows.
    foreign_names: HashSet<Box<[u8]>>,
    /// Files that are there in any case: what they replace need not be looked at, and no `*` row plays a part.
    certain: HashMap<Box<str>, Arc<Row>>,
}

/// The component that stands for any process id.
const PID: &str = "{pid}";

impl Tree {
    /// Builds the tree from the rows of a policy. `sysfs` is where the supervisor sees sysfs (`/sys`): rows
    /// whose path leads through a link there are placed where the link leads.
    pub fn build(policy: &Policy, sysfs: &Path) -> Tree {
        let mut tree =
            Tree { nodes: vec![Node::default()], foreign_names: HashSet::new(), certain: HashMap::new() };
        let mut parents = HashMap::new();
        let mut keys = Vec::with_capacity(policy.rows.len());
        for (precedence, row) in policy.rows.iter().enumerate() {
            let key = canonical_key(&row.path, sysfs, &mut parents);
            let components: Vec<&str> = key.split('/').filter(|name| !name.is_empty()).collect();
            if !matches!(components.first(), Some(&"proc") | Some(&"sys")) {
                tree.foreign_names.extend(components.iter().map(|name| name.as_bytes().into()));
            }
            let precedence = u32::try_from(precedence).unwrap_or(u32::MAX);
            tree.insert(&components, precedence, Arc::new(row.clone()));
            keys.push(key);
        }
        for key in keys {
            if let Some(row) = tree.find_certain(&key) {
                tree.certain.insert(key.into(), row);
            }
        }
        tree
    }

    fn insert(&mut self, components: &[&str], precedence: u32, row: Arc<Row>) {
        let mut at = 0;
        for (depth, name) in components.iter().enumerate() {
            let is_pid =
                depth == 1 && components[0] == "proc" && matches!(*name, "self" | "thread-self" | "*");
            at = self.child_or_new(at, if is_pid { PID } else { name });
        }
        self.nodes[at as usize].row = Some((precedence, row));
    }

    fn child_or_new(&mut self, at: NodeId, name: &str) -> NodeId {
        let next = NodeId::try_from(self.nodes.len()).expect("a policy has fewer than 2^32 path components");
        let node = &mut self.nodes[at as usize];
        let slot = match name {
            PID => node.pid.get_or_insert(next),
            "*" => node.wild.get_or_insert(next),
            name => node.children.entry(name.into()).or_insert(next),
        };
        let child = *slot;
        if child == next {
            self.nodes.push(Node::default());
        }
        child
    }

    fn find_certain(&self, key: &str) -> Option<Arc<Row>> {
        let mut cursor = self.root();
        for name in key.split('/').filter(|name| !name.is_empty()) {
            cursor = self.child(&cursor, name);
            if cursor.nodes.len() != 1 || cursor.wild_only {
                return None;
            }
        }
        match self.entry(&cursor) {
            Entry::File(row) if row.when == When::Always => Some(row),
            _ => None,
        }
    }

    /// The keys of files that are there in any case.
    pub fn certain_keys(&self) -> impl Iterator<Item = &str> {
        self.certain.keys().map(|key| &**key)
    }

    /// The file at a key, when no look at the real file system is needed to know that it is there.
    pub fn certain_file(&self, key: &str) -> Option<&Arc<Row>> {
        self.certain.get(key)
    }

    /// Whether no row exists at all.
    pub fn is_empty(&self) -> bool {
        self.nodes.len() == 1
    }

    /// The top of the tree.
    pub fn root(&self) -> Cursor {
        Cursor { nodes: vec![0], wild_only: false }
    }

    /// One component down.
    pub fn child(&self, cursor: &Cursor, name: &str) -> Cursor {
        let mut nodes = Vec::new();
        let mut exact = false;
        for id in &cursor.nodes {
            let node = &self.nodes[*id as usize];
            if let Some(child) = node.children.get(name) {
                nodes.push(*child);
                exact = true;
            }
            if let Some(child) = node.pid
                && name.bytes().all(|byte| byte.is_ascii_digit())
            {
                nodes.push(child);
                exact = true;
            }
            nodes.extend(node.wild);
        }
        Cursor { wild_only: !nodes.is_empty() && !exact, nodes }
    }

    /// The nodes that match a canonical key. `/proc/P/task/T` is the same as `/proc/T`.
    pub fn at(&self, key: &str) -> Cursor {
        let mut cursor = self.root();
        for name in key.split('/').filter(|name| !name.is_empty()) {
            if cursor.is_empty() {
                break;
            }
            cursor = self.child(&cursor, name);
        }
        cursor
    }

    /// What the tree says about the path of a cursor.
    pub fn entry(&self, cursor: &Cursor) -> Entry {
        let row = cursor.nodes.iter().filter_map(|id| self.nodes[*id as usize].row.as_ref());
        let Some((_, row)) = row.max_by_key(|(precedence, _)| *precedence) else {
            let has_children = cursor.nodes.iter().any(|id| self.nodes[*id as usize].has_children());
            return if has_children { Entry::Dir(None) } else { Entry::Nothing };
        };
        match row.what {
            What::File { .. } => Entry::File(row.clone()),
            What::Dir => Entry::Dir(Some(row.clone())),
            What::Link { .. } => Entry::Link(row.clone()),
            What::Absent => Entry::Absent(row.clone()),
        }
    }

    /// The names that rows give to entries of a directory (without those of `*`), unsorted.
    pub fn names(&self, cursor: &Cursor) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for id in &cursor.nodes {
            names.extend(self.nodes[*id as usize].children.keys().map(|name| &**name));
        }
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Whether entries of a directory can come from `*` rows.
    pub fn has_wild_children(&self, cursor: &Cursor) -> bool {
        cursor.nodes.iter().any(|id| self.nodes[*id as usize].wild.is_some())
    }

    /// Whether rows exist below process directories of procfs.
    pub fn has_process_rows(&self) -> bool {
        let proc = self.child(&self.root(), "proc");
        proc.nodes.iter().any(|id| self.nodes[*id as usize].pid.is_some())
    }

    /// Whether this can be the last component of a path to a row outside `/proc` and `/sys`.
    pub fn is_foreign_name(&self, name: &[u8]) -> bool {
        self.foreign_names.contains(name)
    }

    /// Whether rows exist outside `/proc` and `/sys`.
    pub fn has_foreign_rows(&self) -> bool {
        !self.foreign_names.is_empty()
    }
}

impl Node {
    fn has_children(&self) -> bool {
        !self.children.is_empty() || self.wild.is_some() || self.pid.is_some()
    }
}

/// Follows real sysfs links in the directory part of a row's path, as far as it exists. Results are kept by
/// directory, because many rows share theirs.
fn canonical_key(path: &str, sysfs: &Path, parents: &mut HashMap<String, Option<String>>) -> String {
    let Some(inside) = path.strip_prefix("/sys/") else {
        return path.to_owned();
    };
    let Some((parent, name)) = inside.rsplit_once('/') else {
        return path.to_owned();
    };
    let follow = || {
        let mut existing = Path::new(parent);
        let mut rest = Vec::new();
        loop {
            if let Ok(real) = sysfs.join(existing).canonicalize() {
                let inside = real.strip_prefix(sysfs.canonicalize().ok()?).ok()?.to_str()?.to_owned();
                rest.reverse();
                rest.insert(0, inside);
                return Some(rest.join("/"));
            }
            rest.push(existing.file_name()?.to_str()?.to_owned());
            existing = existing.parent()?;
        }
    };
    let question = || format!("sysfs folder {parent}");
    let resolved = parents.entry(parent.to_owned()).or_insert_with(|| tape::fact(question, follow));
    match resolved {
        Some(parent) => format!("/sys/{}/{name}", parent.trim_start_matches('/')),
        None => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Content, Origin};

    fn row(path: &str, what: What) -> Row {
        Row::new(path, what, 0o644, Origin::synthetic("test"))
    }

    fn file(path: &str, text: &'static str) -> Row {
        row(path, What::file(Content::Fixed(text.as_bytes().into())))
    }

    fn tree(rows: Vec<Row>) -> Tree {
        Tree::build(&Policy { rows, ..Policy::default() }, Path::new("/nonexistent"))
    }

    fn text(entry: Entry) -> String {
        match entry {
            Entry::Nothing => "nothing".into(),
            Entry::Dir(_) => "dir".into(),
            Entry::Absent(_) => "absent".into(),
            Entry::Link(_) => "link".into(),
            Entry::File(row) => match &row.what {
                What::File { content: Content::Fixed(bytes), .. } => String::from_utf8_lossy(bytes).into(),
                _ => "file".into(),
            },
        }
    }

    #[test]
    fn later_rows_win_also_through_wildcards() {
        let tree = tree(vec![
            file("/proc/sys/net/ipv4/conf/*/rp_filter", "any"),
            file("/proc/sys/net/ipv4/conf/eth0/rp_filter", "eth0"),
            file("/proc/sys/net/ipv4/conf/lo/forwarding", "lo"),
            file("/proc/sys/net/ipv4/conf/*/forwarding", "any"),
        ]);
        for (key, expected) in [
            ("/proc/sys/net/ipv4/conf/eth0/rp_filter", "eth0"),
            ("/proc/sys/net/ipv4/conf/lo/rp_filter", "any"),
            ("/proc/sys/net/ipv4/conf/lo/forwarding", "any"),
            ("/proc/sys/net/ipv4/conf/lo", "dir"),
            ("/proc/sys/net/ipv4/confx", "nothing"),
        ] {
            assert_eq!(text(tree.entry(&tree.at(key))), expected, "{key}");
        }
        assert!(!tree.at("/proc/sys/net/ipv4/conf/lo").is_wild_only());
        assert!(tree.at("/proc/sys/net/ipv4/conf/eth7").is_wild_only());
    }

    #[test]
    fn self_stands_for_every_process() {
        let tree = tree(vec![file("/proc/self/cgroup", "0::/\n")]);
        assert_eq!(text(tree.entry(&tree.at("/proc/4711/cgroup"))), "0::/\n");
        assert_eq!(text(tree.entry(&tree.at("/proc/sys/cgroup"))), "nothing");
        assert!(tree.has_process_rows());
    }

    #[test]
    fn names_outside_proc_and_sys_are_known() {
        let tree = tree(vec![file("/etc/machine-id", "x"), file("/proc/sys/kernel/panic", "1")]);
        assert!(tree.is_foreign_name(b"machine-id"));
        assert!(!tree.is_foreign_name(b"panic"));
    }

    #[test]
    fn a_row_behind_a_sysfs_link_is_placed_where_the_link_leads() {
        let dir = std::env::temp_dir().join(format!("sysemu-tree-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("devices/virtual/dmi/id")).expect("mkdir");
        std::fs::create_dir_all(dir.join("class/dmi")).expect("mkdir");
        std::os::unix::fs::symlink("../../devices/virtual/dmi/id", dir.join("class/dmi/id"))
            .expect("symlink");
        let rows = vec![file("/sys/class/dmi/id/product_name", "x"), file("/sys/class/none/a", "y")];
        let tree = Tree::build(&Policy { rows, ..Policy::default() }, &dir);
        std::fs::remove_dir_all(&dir).expect("remove");
        assert_eq!(text(tree.entry(&tree.at("/sys/devices/virtual/dmi/id/product_name"))), "x");
        assert_eq!(text(tree.entry(&tree.at("/sys/class/none/a"))), "y");
    }
}
