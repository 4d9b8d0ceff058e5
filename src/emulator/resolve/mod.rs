//! Path resolution as the tracee sees it.
//!
//! Objects are identified by file system kind and path inside it, never by path text: [`view`] knows a
//! task's root directory and mounts, [`mounts`] reads mountinfo, [`place`] finds out where an open object is,
//! [`walk`] follows a path component by component, and [`screen`] proves cheaply that most paths cannot touch
//! the virtual tree, so that the walk is rare.

use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::Arc;

use super::errno::Errno;
use super::failure::{Failure, OrFault};
use super::object::Object;
use super::sys::creds::{self, FsIdentity};
use super::sys::file::{self, Stat};
use super::sys::{OsResult, tape};
use super::tree::Tree;

pub mod cwds;
pub mod in_root;
pub mod memo;
pub mod mounts;
pub mod path;
pub mod place;
pub mod screen;
pub mod task;
pub mod view;
pub mod walk;

use cwds::Cwds;
use memo::Memo;
use task::Task;
use view::Views;
pub use walk::{Final, Found, Real};
use walk::{Pos, Walk};

/// Recognises descriptors that the supervisor handed out.
pub trait Identify: Send + Sync {
    /// The key of the virtual object behind an open file, by device and inode.
    fn identify(&self, stat: &Stat) -> Option<Arc<str>>;
}

/// Names that exist in a directory although the real file system does not show them.
pub trait Names: Send + Sync {
    /// The names for the `*` rows of a directory, as the task sees them (network interfaces).
    fn list(&self, tid: u32, directory: &str) -> Vec<String>;

    /// Whether [`Names::list`] has this one.
    fn exists(&self, tid: u32, directory: &str, name: &str) -> bool {
        self.list(tid, directory).iter().any(|known| known == name)
    }
}

/// A path to resolve.
#[derive(Clone, Copy, Debug)]
pub struct Query<'q> {
    /// Thread id of the caller.
    pub tid: u32,
    /// Directory descriptor or AT_FDCWD.
    pub dirfd: i32,
    /// The path as the tracee gave it, without its NUL.
    pub path: &'q [u8],
    /// What to do with a final symbolic link.
    pub last: Final,
    /// RESOLVE_* of openat2(2).
    pub resolve: u64,
}

/// Resolves paths for tracees.
pub struct Resolver {
    /// The virtual tree.
    pub tree: Arc<Tree>,
    /// Tasks and what they see.
    pub views: Arc<Views>,
    /// Virtual working directories.
    pub cwds: Cwds,
    carriers: Arc<dyn Identify>,
    names: Arc<dyn Names>,
    memo: Memo,
    own: FsIdentity,
}

impl Resolver {
    /// A resolver for this tree.
    ///
    /// # Errors
    /// As getgroups(2).
    pub fn new(
        tree: Arc<Tree>,
        carriers: Arc<dyn Identify>,
        names: Arc<dyn Names>,
        views: Arc<Views>,
    ) -> OsResult<Self> {
        let ask = || -> OsResult<_> {
            let groups = nix::unistd::getgroups()?.into_iter().map(nix::unistd::Gid::as_raw).collect();
            Ok((nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw(), groups))
        };
        let (uid, gid, groups) = tape::os(|| "own identity".to_owned(), ask)?;
        let own = FsIdentity { uid, gid, groups };
        Ok(Resolver { tree, views, cwds: Cwds::default(), carriers, names, memo: Memo::default(), own })
    }

    /// Finds out what a path leads to, as the tracee sees it.
    ///
    /// # Errors
    /// [`Failure::Gone`] when the tracee died; [`Failure::Fault`] when it may not be looked at.
    pub fn resolve(&self, query: &Query<'_>) -> Result<Found, Failure> {
        if query.path.is_empty() {
            return Ok(Found::Kernel(None));
        }
        let task = self.views.task(query.tid).or_gone("read the identity of a task")?;
        match self.screen(&task, query) {
            screen::Verdict::Kernel => Ok(Found::Kernel(None)),
            screen::Verdict::Virtual(object) => Ok(Found::Virtual(object)),
            screen::Verdict::Walk => self.walk(&task, query),
        }
    }

    /// As [`Resolver::resolve`], but gives the real object as well where the kernel would find one.
    ///
    /// # Errors
    /// As [`Resolver::resolve`].
    pub fn resolve_fully(&self, query: &Query<'_>) -> Result<Found, Failure> {
        if query.path.is_empty() {
            return Ok(Found::Kernel(None));
        }
        let task = self.views.task(query.tid).or_gone("read the identity of a task")?;
        self.walk(&task, query)
    }

    fn walk(&self, task: &Task, query: &Query<'_>) -> Result<Found, Failure> {
        let generation = self.views.generation();
        let Some((mut walk, start)) = self.prepare(task, query)? else {
            return Ok(Found::Kernel(None));
        };
        // The start was opened with the supervisor's rights; the way from there is walked with the caller's,
        // as they are now.
        let mut found = Found::Kernel(None);
        self.with_rights_of(query.tid, || found = walk.run(start, query.path, query.last))?;
        let is_absolute = query.path.first() == Some(&b'/');
        if is_absolute && query.resolve == 0 && !walk.personal && self.views.is_settled() {
            match &found {
                // Rows can say what the root of a file system shows.
                Found::Kernel(Some(real)) if real.is_root() => {}
                Found::Kernel(_) => self.memo.put(task, query, None, generation),
                // Directories elsewhere may let one user through and not another.
                Found::Virtual(object) if task.view.is_managed(query.path) => {
                    self.memo.put(task, query, Some(object.clone()), generation);
                }
                _ => {}
            }
        }
        Ok(found)
    }

    /// The walk and its start; `None` when the kernel is to find out that the start is bad.
    fn prepare<'w>(&'w self, task: &'w Task, query: &Query<'_>) -> Result<Option<(Walk<'w>, Pos)>, Failure> {
        let mut walk = Walk {
            tree: &self.tree,
            views: &self.views,
            carriers: &*self.carriers,
            names: &*self.names,
            cwds: &self.cwds,
            task,
            resolve: query.resolve,
            tainted: false,
            personal: false,
            links: 0,
            root: self.root_of(task)?,
            beneath: None,
        };
        let scoped = query.resolve & libc::RESOLVE_IN_ROOT != 0;
        let start = if query.path.first() == Some(&b'/') && !scoped {
            if query.resolve & libc::RESOLVE_BENEATH != 0 {
                return Ok(None);
            }
            walk.root.clone()
        } else {
            match self.start(task, query, &mut walk)? {
                Some(start) => start,
                None => return Ok(None),
            }
        };
        walk.tainted |= matches!(start, Pos::Virtual(..));
        if scoped {
            walk.root = start.clone();
        }
        if query.resolve & libc::RESOLVE_BENEATH != 0 {
            walk.beneath = Some(start.clone());
        }
        Ok(Some((walk, start)))
    }

    fn root_of(&self, task: &Task) -> Result<Pos, Failure> {
        let fd = self.views.open_root(task.tid).or_gone("open the root directory of a task")?;
        let stat = task.view.root_stat;
        let kind = place::kind_of(task, fd.as_fd(), &stat);
        let key = match kind {
            mounts::FsKind::Plain => Some(String::new()),
            _ => place::key_of(&self.views, task, fd.as_fd(), &stat),
        };
        let cursor = key.as_deref().map(|key| self.tree.at(key)).unwrap_or_default();
        Ok(Pos::Real(Rc::new(Real { fd, stat, kind, key }), cursor))
    }

    fn start(&self, task: &Task, query: &Query<'_>, walk: &mut Walk<'_>) -> Result<Option<Pos>, Failure> {
        if query.dirfd == libc::AT_FDCWD
            && let Some(key) = self.cwds.get(&self.views, task)
        {
            walk.tainted = true;
            return Ok(walk.start_virtual(&key));
        }
        let what = match query.dirfd {
            libc::AT_FDCWD => "cwd".to_owned(),
            fd if fd < 0 => return Ok(None),
            fd => format!("fd/{fd}"),
        };
        let Ok(fd) = self.views.open_of(query.tid, &what) else {
            return Ok(None);
        };
        let stat = file::stat_fd(fd.as_fd()).or_fault("look at a descriptor of a task")?;
        if let Some(key) = self.carriers.identify(&stat) {
            return Ok(walk.start_virtual(&key));
        }
        let kind = place::kind_of(task, fd.as_fd(), &stat);
        let key = place::key_of(&self.views, task, fd.as_fd(), &stat);
        let cursor = key.as_deref().map(|key| self.tree.at(key)).unwrap_or_default();
        Ok(Some(Pos::Real(Rc::new(Real { fd, stat, kind, key }), cursor)))
    }

    /// Whether an absolute path begins, by its text, in a file system that rows reach by kind.
    ///
    /// # Errors
    /// [`Failure::Gone`].
    pub fn is_managed_text(&self, tid: u32, path: &[u8]) -> Result<bool, Failure> {
        Ok(self.views.task(tid).or_gone("read the identity of a task")?.view.is_managed(path))
    }

    /// Runs `look` with the file system rights of a task.
    ///
    /// # Errors
    /// [`Failure::Gone`]; a fault when the supervisor may not take the task's identity.
    pub fn with_rights_of<T>(&self, tid: u32, look: impl FnOnce() -> T) -> Result<T, Failure> {
        // Only the superuser can take other identities, and only then they differ.
        if self.own.uid != 0 {
            return Ok(look());
        }
        let status = self.views.status(tid).or_gone("read the credentials of a task")?;
        let (uid, gid) = (status.uid[3], status.gid[3]);
        if uid == self.own.uid {
            return Ok(look());
        }
        let who = FsIdentity { uid, gid, groups: status.groups };
        creds::with_identity(&self.own, &who, look).or_fault("look with the rights of a task")
    }

    /// What a descriptor of a task shows, in one look; `None` when there is none.
    pub fn look(&self, tid: u32, fd: i32) -> Option<Stat> {
        let link = file::c_path(format!("{tid}/fd/{fd}").as_bytes()).ok()?;
        file::stat(Some(self.views.proc()), &link, 0).ok()
    }

    /// The key of the virtual object behind an open file.
    pub fn identify(&self, stat: &Stat) -> Option<Arc<str>> {
        self.carriers.identify(stat)
    }

    /// Where a descriptor of the task leads: the virtual object behind it, or the real one with its key.
    ///
    /// # Errors
    /// [`Failure::Guest`] EBADF when there is no such descriptor.
    pub fn descriptor(&self, tid: u32, fd: i32) -> Result<Found, Failure> {
        if fd < 0 {
            return Err(Errno::EBADF.into());
        }
        let task = self.views.task(tid).or_gone("read the identity of a task")?;
        let open = self.views.open_of(tid, &format!("fd/{fd}")).map_err(|_| Errno::EBADF)?;
        let stat = file::stat_fd(open.as_fd()).or_fault("look at a descriptor of a task")?;
        if let Some(key) = self.carriers.identify(&stat)
            && let Some(object) = Object::at(&self.tree, &key)
        {
            return Ok(Found::Virtual(object));
        }
        let kind = place::kind_of(&task, open.as_fd(), &stat);
        let key = place::key_of(&self.views, &task, open.as_fd(), &stat);
        Ok(Found::Kernel(Some(Rc::new(Real { fd: open, stat, kind, key }))))
    }
}
