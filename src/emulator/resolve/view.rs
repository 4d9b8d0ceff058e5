//! What a task sees of the file system: its root directory and its mounts, kept for a short while.
//!
//! Reading a task's identity costs several kernel entries, so it is remembered. Three things bound how stale
//! it can be: calls of tracees that change it (chroot, mount, unshare, ...) are trapped and raise the
//! *generation*; for a moment after such a call nothing is remembered at all, because the call itself runs
//! after it was let through; and each memory ends after [`LIFETIME`], because others can change mounts too.

use std::borrow::Cow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use nix::errno::Errno as OsErrno;

use super::mounts::{FsKind, MountTable};
use super::task::{Status, Task};
use crate::emulator::errno::Errno;
use crate::emulator::sys::file::{self, Stat};
use crate::emulator::sys::{OsResult, memory, mount, tape};

/// The name of the supervisor's `/proc` in records.
const PROC: &str = "proc";

/// The kinds of namespaces that are asked for (namespaces(7)).
const KINDS: [&str; 6] = ["mnt", "net", "uts", "ipc", "user", "pid"];

/// How long a task's identity is believed.
pub const LIFETIME: Duration = Duration::from_millis(500);

/// How long after a trapped change nothing is remembered.
const UNSETTLED: Duration = Duration::from_millis(10);

/// A root directory with its mounts. No descriptor of it is kept: one would keep the tracee from unmounting
/// what its processes were in.
#[derive(Debug)]
pub struct View {
    /// Metadata of the root directory.
    pub root_stat: Stat,
    /// Its path as the supervisor sees it; `/` when both share it.
    pub root_text: Vec<u8>,
    /// Whether the supervisor has the same root directory in the same mount namespace.
    pub is_own: bool,
    /// The mounts.
    pub mounts: MountTable,
    /// The mounts of managed file systems that can be reached.
    managed: Vec<Managed>,
}

/// A mount of a managed file system.
#[derive(Debug)]
struct Managed {
    point: String,
    kind: FsKind,
    /// What the key of the mount point is.
    key: String,
    /// Mount points below.
    nested: Vec<String>,
}

impl Managed {
    fn all(mounts: &MountTable, root: u64) -> Vec<Managed> {
        let reachable =
            |point: &str, id: u64| mounts.locate(root, point).0.is_some_and(|mount| mount.id == id);
        let all = mounts.iter().filter_map(|mount| {
            let prefix = mount.kind.prefix()?;
            if !reachable(&mount.point, mount.id) {
                return None;
            }
            let nested = mounts.iter().map(|other| other.point.clone());
            let nested =
                nested.filter(|point| *point != mount.point && super::path::is_below(point, &mount.point));
            Some(Managed {
                point: mount.point.clone(),
                kind: mount.kind,
                key: format!("{prefix}{}", mount.root),
                nested: nested.collect(),
            })
        });
        all.collect()
    }
}

type ViewKey = (u64, u64, u64);

/// The memory of tasks and views.
pub struct Views {
    proc: OwnedFd,
    own: ViewKey,
    own_uts: u64,
    /// Kinds of namespaces that cannot be told apart here.
    untold: Vec<&'static str>,
    tasks: DashMap<u32, Arc<Task>>,
    views: DashMap<ViewKey, (Instant, u64, Arc<View>)>,
    generation: AtomicU64,
    start: Instant,
    /// Milliseconds after `start` until which nothing is remembered.
    unsettled_until: AtomicU64,
}

impl Views {
    /// Opens the supervisor's own `/proc`; where that is allowed, in a mount attached nowhere, so that the one
    /// in use can be unmounted.
    ///
    /// # Errors
    /// As open(2): without `/proc` nothing can be resolved.
    pub fn new() -> OsResult<Self> {
        let open = || {
            mount::detached_copy(c"/proc")
                .or_else(|_| file::open(None, c"/proc", libc::O_PATH | libc::O_DIRECTORY))
        };
        let proc = tape::fd(|| format!("own {PROC}"), open)?;
        let mut views = Views {
            proc,
            own: (0, 0, 0),
            own_uts: 0,
            untold: Vec::new(),
            tasks: DashMap::new(),
            views: DashMap::new(),
            generation: AtomicU64::new(0),
            start: Instant::now(),
            unsettled_until: AtomicU64::new(0),
        };
        let own = tape::fact(|| "own thread".to_owned(), || nix::unistd::gettid().as_raw().cast_unsigned());
        views.untold = KINDS.into_iter().filter(|kind| !views.tells(kind)).collect();
        views.own = views.key(own)?.0;
        views.own_uts = views.namespace(own, "uts")?;
        Ok(views)
    }

    /// The supervisor's `/proc`, whatever is mounted over it later.
    pub fn proc(&self) -> BorrowedFd<'_> {
        tape::label(self.proc.as_fd(), || PROC.to_owned());
        self.proc.as_fd()
    }

    /// Opens something below the task's `/proc` directory with O_PATH, following a final magic link.
    ///
    /// # Errors
    /// ENOENT, ESRCH: the task is gone. EACCES: not allowed to look.
    pub fn open_of(&self, tid: u32, what: &str) -> OsResult<OwnedFd> {
        let path = file::c_path(format!("{tid}/{what}").as_bytes())?;
        file::open(Some(self.proc()), &path, libc::O_PATH)
    }

    /// The text of a magic link below the task's `/proc` directory, as the supervisor sees it.
    ///
    /// # Errors
    /// As [`Views::open_of`].
    pub fn link_of(&self, tid: u32, what: &str) -> OsResult<Vec<u8>> {
        let path = file::c_path(format!("{tid}/{what}").as_bytes())?;
        file::readlink(Some(self.proc()), &path)
    }

    /// The content of a file below the task's `/proc` directory.
    ///
    /// # Errors
    /// As [`Views::open_of`].
    pub fn read_of(&self, tid: u32, what: &str) -> OsResult<String> {
        let path = file::c_path(format!("{tid}/{what}").as_bytes())?;
        let fd = file::open(Some(self.proc()), &path, libc::O_RDONLY)?;
        let text = file::read_all(fd.as_fd());
        file::close(fd);
        text
    }

    /// The inode number of one of the task's namespaces (namespaces(7)); 0 for all tasks where they cannot be told
    /// apart.
    ///
    /// # Errors
    /// As [`Views::open_of`].
    pub fn namespace(&self, tid: u32, kind: &str) -> OsResult<u64> {
        if self.untold.contains(&kind) {
            return self.open_of(tid, "").map(|_| 0);
        }
        self.read_namespace(&tid.to_string(), kind)
    }

    /// Whether the numbers of namespaces mean something: in gVisor some kinds have no link, and some have another number
    /// for each directory that the link is in.
    fn tells(&self, kind: &str) -> bool {
        let own = tape::own_process();
        let number = self.read_namespace(&own.to_string(), kind);
        number.is_ok() && number == self.read_namespace(&format!("{own}/task/{own}"), kind)
    }

    /// By the text of the link: what stat(2) tells of it in gVisor is another number each time.
    fn read_namespace(&self, directory: &str, kind: &str) -> OsResult<u64> {
        let path = file::c_path(format!("{directory}/ns/{kind}").as_bytes())?;
        let text = file::readlink(Some(self.proc()), &path)?;
        let text = String::from_utf8_lossy(&text);
        let number = text.split_once('[').and_then(|(_, rest)| rest.strip_suffix(']')?.parse().ok());
        number.ok_or(OsErrno::EIO)
    }

    /// One of the task's namespaces, for setns(2).
    ///
    /// # Errors
    /// As [`Views::open_of`].
    pub fn open_namespace(&self, tid: u32, kind: &str) -> OsResult<OwnedFd> {
        let path = file::c_path(format!("{tid}/ns/{kind}").as_bytes())?;
        file::open(Some(self.proc()), &path, libc::O_RDONLY)
    }

    /// Whether the task is in the supervisor's own user namespace.
    ///
    /// # Errors
    /// As [`Views::open_of`].
    pub fn shares_user_namespace(&self, tid: u32) -> OsResult<bool> {
        Ok(self.namespace(tid, "user")? == self.namespace(tape::own_process(), "user")?)
    }

    /// Whether the task is in the supervisor's own UTS namespace.
    ///
    /// # Errors
    /// As [`Views::open_of`].
    pub fn shares_uts(&self, tid: u32) -> OsResult<bool> {
        let task = self.task(tid)?;
        if let Some(uts) = task.uts.get() {
            return Ok(*uts == self.own_uts);
        }
        let uts = self.namespace(tid, "uts")?;
        Ok(*task.uts.get_or_init(|| uts) == self.own_uts)
    }

    /// The task's personality(2) as of now; 0 where the kernel has no file for it (gVisor).
    ///
    /// # Errors
    /// As [`Views::open_of`], but for ENOENT.
    pub fn personality(&self, tid: u32) -> OsResult<i32> {
        let text = match self.read_of(tid, "personality") {
            Err(OsErrno::ENOENT) => return Ok(0),
            text => text?,
        };
        Ok(u32::from_str_radix(text.trim(), 16).unwrap_or(0).cast_signed())
    }

    /// The task's credentials and ids as of now.
    ///
    /// # Errors
    /// As [`Views::open_of`].
    pub fn status(&self, tid: u32) -> OsResult<Status> {
        Ok(Status::parse(&self.read_of(tid, "status")?))
    }

    /// Milliseconds since the start.
    fn millis(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.start).as_millis()).unwrap_or(u64::MAX)
    }

    /// Says that a call is about to run that can change what tasks see.
    pub fn invalidate(&self) {
        let until = self.millis(Instant::now()) + u64::try_from(UNSETTLED.as_millis()).unwrap_or(0);
        self.unsettled_until.fetch_max(until, Ordering::SeqCst);
        self.generation.fetch_add(1, Ordering::SeqCst);
    }

    /// Whether answers may be remembered now.
    pub fn is_settled(&self) -> bool {
        self.is_settled_at(Instant::now())
    }

    fn is_settled_at(&self, now: Instant) -> bool {
        if tape::is_on() {
            return false;
        }
        let until = self.unsettled_until.load(Ordering::SeqCst);
        until == 0 || self.millis(now) > until
    }

    /// Counts changes; what was remembered under another generation is void.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

    /// The identity of a task, from memory when it is fresh.
    ///
    /// # Errors
    /// As [`Views::open_of`].
    pub fn task(&self, tid: u32) -> OsResult<Arc<Task>> {
        let generation = self.generation();
        let now = Instant::now();
        if let Some(task) = self.tasks.get(&tid)
            && task.generation == generation
            && now.saturating_duration_since(task.seen) < LIFETIME
            && self.is_settled_at(now)
        {
            return Ok(task.clone());
        }
        let status = self.status(tid)?;
        let view = self.view(tid, generation)?;
        let task =
            Arc::new(Task { tid, status, view, uts: OnceLock::new(), seen: Instant::now(), generation });
        if self.tasks.len() > 4096 {
            self.tasks.retain(|_, task| task.seen.elapsed() < LIFETIME);
        }
        self.tasks.insert(tid, task.clone());
        Ok(task)
    }

    /// The task's root directory (O_PATH).
    ///
    /// # Errors
    /// As [`Views::open_of`].
    pub fn open_root(&self, tid: u32) -> OsResult<OwnedFd> {
        self.open_of(tid, "root")
    }

    fn key(&self, tid: u32) -> OsResult<(ViewKey, OwnedFd, Stat)> {
        let root = self.open_root(tid)?;
        let root_stat = file::stat_fd(root.as_fd())?;
        Ok(((self.namespace(tid, "mnt")?, root_stat.mount, root_stat.ino), root, root_stat))
    }

    fn view(&self, tid: u32, generation: u64) -> OsResult<Arc<View>> {
        let (key, root, root_stat) = self.key(tid)?;
        if let Some(entry) = self.views.get(&key) {
            let (seen, of, view) = entry.value();
            if *of == generation && seen.elapsed() < LIFETIME && self.is_settled() {
                return Ok(view.clone());
            }
        }
        let text = self.read_of(tid, "mountinfo")?;
        let mut mounts = match root_stat.knows_mount() {
            true => MountTable::parse(&text),
            false => MountTable::parse_by_device(&text),
        };
        if mounts.get(root_stat.mount).is_none()
            && FsKind::of_magic(file::statfs_fd(root.as_fd())?.f_type) == FsKind::Plain
        {
            mounts.add_root(root_stat.mount);
        }
        let root_text = self.link_of(tid, "root")?;
        let managed = Managed::all(&mounts, root_stat.mount);
        let view = Arc::new(View { root_stat, root_text, is_own: key == self.own, mounts, managed });
        self.views.retain(|_, (seen, ..)| seen.elapsed() < LIFETIME);
        self.views.insert(key, (Instant::now(), generation, view.clone()));
        Ok(view)
    }
}

impl View {
    /// A path as the supervisor sees it, seen from this root; `None` when it is outside.
    pub fn strip_root<'t>(&self, text: &'t [u8]) -> Option<&'t [u8]> {
        if self.root_text == b"/" {
            return text.starts_with(b"/").then_some(text);
        }
        let rest = text.strip_prefix(self.root_text.as_slice())?;
        match rest.first() {
            None => Some(b"/"),
            Some(b'/') => Some(rest),
            Some(_) => None,
        }
    }

    /// The key of a plain absolute path that leads into procfs or sysfs by its text alone; `None` when it
    /// leads elsewhere. See [`MountTable::locate`] for what is not looked at.
    pub fn managed_key<'p>(&self, path: &'p str) -> Option<(FsKind, Cow<'p, str>)> {
        let is_below = super::path::is_below;
        let managed = self.managed.iter().find(|managed| {
            is_below(path, &managed.point) && !managed.nested.iter().any(|point| is_below(path, point))
        });
        if let Some(managed) = managed {
            let rest = &path[managed.point.trim_end_matches('/').len()..];
            let key = match managed.key == managed.point {
                true => Cow::Borrowed(path),
                false => Cow::Owned(format!("{}{rest}", managed.key)),
            };
            return Some((managed.kind, key));
        }
        // Something mounted inside a managed file system keeps the path it has there.
        let inside = self.managed.iter().find(|managed| {
            is_below(path, &managed.point)
                && managed.kind.prefix().is_some_and(|prefix| is_below(path, prefix))
        })?;
        let (mount, rest) = self.mounts.locate(self.root_stat.mount, path);
        let mount = mount?;
        match mount.kind.prefix() {
            Some(prefix) => Some((mount.kind, Cow::Owned(format!("{prefix}{}{rest}", mount.root)))),
            None => {
                self.mounts.is_inside(mount.id, inside.kind).then_some((FsKind::Plain, Cow::Borrowed(path)))
            }
        }
    }
}

impl View {
    /// Whether a path text begins in a managed file system.
    pub fn is_managed(&self, text: &[u8]) -> bool {
        std::str::from_utf8(text)
            .is_ok_and(|text| self.managed.iter().any(|managed| super::path::is_below(text, &managed.point)))
    }
}

/// Memory of a live task.
pub struct TaskMemory(pub u32);

impl super::path::ReadMemory for TaskMemory {
    /// EPERM and ESRCH are the supervisor's: it may not look, or the task is gone.
    fn read(&self, addr: u64, buf: &mut [u8]) -> Result<usize, Errno> {
        memory::read(self.0, addr, buf).map_err(|errno| match errno {
            OsErrno::EPERM => Errno::EPERM,
            OsErrno::ESRCH => Errno::ESRCH,
            _ => Errno::EFAULT,
        })
    }
}
