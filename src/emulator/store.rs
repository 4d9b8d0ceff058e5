//! What virtual objects hold: their metadata and content, ready to be served by a carrier.

use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use super::abi::layout::Attr;
use super::errno::Errno;
use super::host;
use super::object::{Inodes, Object, ObjectKind, child_key};
use super::provider::{Cx, Host, MachineView, Providers, UnameView};
use super::resolve::Names;
use super::resolve::view::Views;
use super::scope::ScopeId;
use super::sys::{OsResult, tape};
use super::tree::Tree;
use super::values::Values;
use super::write::UtsName;
use crate::policy::{Content, Row, Scope, Uname, What};

/// The provider of files that can be opened but never have anything to read, such as a quiet `/dev/kmsg`.
pub const BLOCKING: &str = "blocking";

/// Everything needed to serve virtual objects.
pub struct Store {
    /// The tree.
    pub tree: Arc<Tree>,
    /// Inode numbers.
    pub inodes: Inodes,
    /// Content providers.
    pub providers: Providers,
    /// The machine.
    pub machine: MachineView,
    /// uname(2) when the run started, with what the policy gives.
    pub uname: UnameView,
    /// The fields of uname(2) that the policy gives.
    pub given: Uname,
    /// The real host and domain name when the run started.
    pub start: (String, String),
    /// Tasks and their namespaces.
    pub views: Arc<Views>,
    /// What was written.
    pub values: Values,
    /// The host's files.
    pub host: Arc<dyn Host>,
    /// Names for `*` rows.
    pub names: Arc<dyn Names>,
    /// Device number that virtual objects report: that of the carrier, once it is chosen.
    pub device: OnceLock<(u32, u32)>,
    /// Time stamps of all virtual objects: the start of the run, as for procfs entries at first lookup.
    pub time: (i64, u32),
}

impl Store {
    /// The time stamp for a store that is made now.
    pub fn now() -> (i64, u32) {
        let ask = || {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            (now.as_secs().cast_signed(), now.subsec_nanos())
        };
        tape::fact(|| "time".to_owned(), ask)
    }

    /// The object at a key, if the tree has one; does not check that names matched by `*` exist.
    pub fn object(&self, key: &str) -> Option<Object> {
        Object::at(&self.tree, key)
    }

    /// The whole content of a file as `tid` reads it now.
    ///
    /// # Errors
    /// As the provider; EINVAL for what has no content of its own.
    pub fn content(&self, object: &Object, tid: u32) -> Result<Bytes, Errno> {
        self.content_in(object, tid, None)
    }

    /// The content of an open file that is bound to a scope.
    ///
    /// # Errors
    /// As [`Store::content`].
    pub fn content_in(&self, object: &Object, tid: u32, bound: Option<ScopeId>) -> Result<Bytes, Errno> {
        let ObjectKind::File(row) = &object.kind else {
            return Err(Errno::EISDIR);
        };
        if self.values.is_used()
            && let Some(content) = self.written(object, row, tid, bound)
        {
            return Ok(content);
        }
        match content_of(row) {
            Some(Content::Fixed(bytes)) => Ok(bytes.clone()),
            Some(Content::Provider(name)) => {
                let provider = self.providers.get(name).ok_or(Errno::EIO)?;
                let own = matches!(&row.what, What::File { scope: Scope::Uts, .. } if tid != 0)
                    .then(|| self.uname(tid).ok())
                    .flatten();
                let cx = Cx {
                    host: &*self.host,
                    machine: self.machine,
                    uname: own.as_ref().unwrap_or(&self.uname),
                    path: &object.key,
                    tid,
                };
                (provider.show)(&cx)
            }
            Some(Content::Like(_)) | None => Err(Errno::EINVAL),
        }
    }

    /// uname(2) of a task. What the policy gives stands for the names that there were when the run started: a task
    /// that sets its own sees them. Fields that the policy does not give are those of the task's UTS namespace.
    ///
    /// # Errors
    /// As [`Views::open_of`]; EPERM where another UTS namespace cannot be entered.
    pub fn uname(&self, tid: u32) -> OsResult<UnameView> {
        let names = if self.views.shares_uts(tid)? {
            host::names()?
        } else {
            host::uname_in(self.views.open_namespace(tid, "uts")?)?
        };
        let mut view = host::uname_over(&self.given, &names);
        let host_name = &names.nodename;
        let domain_name = &names.domainname;
        for (field, real, start, which) in [
            (&mut view.nodename, host_name, &self.start.0, UtsName::Host),
            (&mut view.domainname, domain_name, &self.start.1, UtsName::Domain),
        ] {
            if self.values.has(which.path())
                && let Some((_, line)) = self.values.get(which.path(), self.scope(Scope::Uts, tid))
            {
                *field = String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned();
            } else if real != start {
                *field = real.clone();
            }
        }
        Ok(view)
    }

    /// Metadata of an object.
    pub fn attr(&self, object: &Object) -> Attr {
        let is_proc = object.key.starts_with("/proc/") || object.key.is_empty();
        let is_sys = object.key.starts_with("/sys/");
        let is_dir = object.is_dir();
        let size = match &object.kind {
            // procfs files tell no size; sysfs files tell a page; others are ordinary files.
            ObjectKind::File(_) if is_proc => 0,
            ObjectKind::File(_) if is_sys => 4096,
            ObjectKind::File(row) => match content_of(row) {
                Some(Content::Fixed(bytes)) => bytes.len() as u64,
                _ => 0,
            },
            _ => 0,
        };
        let mut mode = object.mode();
        let mut rdev = (0, 0);
        if is_blocking(object) {
            mode = libc::S_IFCHR | (mode & 0o7777);
            rdev = KMSG;
        }
        Attr {
            mode,
            ino: self.inodes.number(&object.key),
            nlink: if is_dir && !is_proc { 2 } else { 1 },
            uid: 0,
            gid: 0,
            size,
            blksize: if is_proc { 1024 } else { 4096 },
            blocks: 0,
            dev: tape::fact(
                || "device of the carrier".to_owned(),
                || self.device.get().copied().unwrap_or((0, 0)),
            ),
            rdev,
            atime: self.time,
            mtime: self.time,
            ctime: self.time,
            mount: None,
        }
    }

    /// The virtual entries of a directory as `tid` sees them, sorted by name. Rows that only apply where the
    /// real object is missing are among them.
    pub fn children(&self, key: &str, tid: u32) -> Vec<(String, Object)> {
        let cursor = self.tree.at(key);
        let mut names: Vec<String> = self.tree.names(&cursor).into_iter().map(str::to_owned).collect();
        if self.tree.has_wild_children(&cursor) {
            names.extend(self.names.list(tid, key));
            names.sort_unstable();
            names.dedup();
        }
        let object = |name: String| {
            let object = self.object(&child_key(key, &name))?;
            Some((name, object))
        };
        names.into_iter().filter_map(object).collect()
    }
}

/// Device number of `/dev/kmsg`.
const KMSG: (u32, u32) = (1, 11);

/// Where a file's bytes come from.
pub fn content_of(row: &Row) -> Option<&Content> {
    match &row.what {
        What::File { content, .. } => Some(content),
        _ => None,
    }
}

/// Whether an object is a file that never has anything to read.
pub fn is_blocking(object: &Object) -> bool {
    match &object.kind {
        ObjectKind::File(row) => {
            matches!(content_of(row), Some(Content::Provider(name)) if name == BLOCKING)
        }
        _ => false,
    }
}

/// Whether read(2) of an object at an offset other than 0 continues the content. Numbers do not: a short
/// first read loses the rest.
pub fn honours_offset(object: &Object) -> bool {
    match &object.kind {
        ObjectKind::File(row) => match &row.what {
            What::File { codec: Some(codec), .. } if object.key.starts_with("/proc/sys/") => {
                codec.honours_offset()
            }
            _ => true,
        },
        _ => true,
    }
}
