//! Following a path component by component, as path_resolution(7) and the kernel's `fs/namei.c` do, through
//! the real file system and the virtual tree laid over it.
//!
//! Real directories are held as O_PATH descriptors in the tracee's own mounts. The walk decides only whether
//! something virtual is met; where nothing is, the kernel runs the call and its answer stands, errno
//! included.

use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;

use nix::errno::Errno as OsErrno;

use super::cwds::Cwds;
use super::mounts::FsKind;
use super::task::Task;
use super::view::Views;
use super::{Identify, Names, place};
use crate::emulator::errno::Errno;
use crate::emulator::object::{Object, ObjectKind, child_key};
use crate::emulator::resolve::path;
use crate::emulator::sys::file::{self, Stat};
use crate::emulator::tree::{Cursor, Entry, Tree};
use crate::policy::{What, When};

/// Links followed before ELOOP (MAXSYMLINKS).
const MAX_LINKS: u32 = 40;

/// A real object on the way.
#[derive(Debug)]
pub struct Real {
    /// O_PATH.
    pub fd: OwnedFd,
    /// Its metadata.
    pub stat: Stat,
    /// What kind of file system it is in.
    pub kind: FsKind,
    /// Its canonical key, when it has one.
    pub key: Option<String>,
}

impl Real {
    /// Whether it is the root directory of a procfs or sysfs.
    pub fn is_root(&self) -> bool {
        self.kind.prefix().is_some() && self.key.as_deref() == self.kind.prefix()
    }
}

/// Where the walk stands.
#[derive(Clone, Debug)]
pub(super) enum Pos {
    Real(Rc<Real>, Cursor),
    /// Below the last real directory, by names that only the tree knows.
    Virtual(Rc<Real>, Vec<String>),
}

/// What the walk came to.
#[derive(Debug)]
pub enum Found {
    /// Nothing virtual was met; the real object, when it exists.
    Kernel(Option<Rc<Real>>),
    /// A real object that the kernel would not reach by this path.
    OnBehalf(Rc<Real>),
    /// A virtual object.
    Virtual(Object),
    /// The virtual tree makes the lookup fail.
    Refused(Errno),
}

/// Whether a final symbolic link is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Final {
    /// stat(2), open(2).
    Follow,
    /// lstat(2), O_NOFOLLOW.
    NoFollow,
}

enum Stop {
    /// The kernel finds this error by itself, unless something virtual on the way hides it from the kernel.
    Kernel(Errno),
    /// The virtual tree is the reason.
    Refused(Errno),
}

impl From<OsErrno> for Stop {
    /// Of the supervisor's own look at a real object, which fails as the tracee's would.
    fn from(errno: OsErrno) -> Self {
        Stop::Kernel(Errno::from_raw(errno as i32))
    }
}

type Step<T> = Result<T, Stop>;

/// One walk.
pub(super) struct Walk<'w> {
    pub tree: &'w Tree,
    pub views: &'w Views,
    pub carriers: &'w dyn Identify,
    pub names: &'w dyn Names,
    pub cwds: &'w Cwds,
    pub task: &'w Task,
    /// RESOLVE_* of openat2(2).
    pub resolve: u64,
    /// Something virtual was met, so the kernel cannot find the rest.
    pub tainted: bool,
    /// The answer depends on who asks.
    pub personal: bool,
    pub links: u32,
    /// Where `..` stops and absolute links start: the task's root, or the start under RESOLVE_IN_ROOT.
    pub root: Pos,
    /// The start, for RESOLVE_BENEATH.
    pub beneath: Option<Pos>,
}

enum Next {
    Pos(Pos),
    File(Object),
    /// A virtual link and its text.
    Link(Object, String),
    RealLink(Rc<Real>),
}

impl Walk<'_> {
    /// Walks `text` from `start`.
    pub fn run(&mut self, start: Pos, text: &[u8], last: Final) -> Found {
        match self.try_run(start, text, last) {
            Ok(found) => found,
            Err(Stop::Kernel(errno)) if self.tainted => Found::Refused(errno),
            Err(Stop::Kernel(_)) => Found::Kernel(None),
            Err(Stop::Refused(errno)) => Found::Refused(errno),
        }
    }

    fn try_run(&mut self, mut pos: Pos, text: &[u8], last: Final) -> Step<Found> {
        let mut todo: Vec<Vec<u8>> = Vec::new();
        let mut wants_directory = path::wants_directory(text);
        push(&mut todo, text);
        while let Some(name) = todo.pop() {
            if name == b".." {
                pos = self.up(pos)?;
                continue;
            }
            let is_last = todo.is_empty();
            let follow = !is_last || last == Final::Follow || wants_directory;
            let target = match self.down(&pos, &name)? {
                Next::Pos(next) => {
                    pos = next;
                    continue;
                }
                Next::File(object) if is_last && !wants_directory => return Ok(Found::Virtual(object)),
                Next::File(_) => return self.refuse(Errno::ENOTDIR),
                Next::Link(object, _) if !follow => return Ok(Found::Virtual(object)),
                Next::Link(_, target) => {
                    self.tainted = true;
                    target.into_bytes()
                }
                Next::RealLink(link) if !follow => return Ok(self.real(link)),
                Next::RealLink(link) => match self.read_link(&pos, &name, &link)? {
                    Link::Text(target) => target,
                    Link::Jump(next) => {
                        pos = next;
                        continue;
                    }
                    Link::File(object) if is_last && !wants_directory => return Ok(Found::Virtual(object)),
                    Link::File(_) => return self.refuse(Errno::ENOTDIR),
                },
            };
            self.count_link()?;
            if is_last {
                wants_directory |= path::wants_directory(&target);
            }
            if target.first() == Some(&b'/') {
                if self.resolve & libc::RESOLVE_BENEATH != 0 {
                    return self.refuse(Errno::EXDEV);
                }
                pos = self.root.clone();
            }
            push(&mut todo, &target);
        }
        Ok(match pos {
            Pos::Real(real, _) if wants_directory && !real.stat.is(libc::S_IFDIR) => {
                return Err(Stop::Kernel(Errno::ENOTDIR));
            }
            Pos::Real(real, _) => self.real(real),
            Pos::Virtual(base, names) => {
                let key = virtual_key(&base, &names);
                match self.tree.entry(&self.tree.at(&key)) {
                    Entry::Dir(row) => Found::Virtual(Object { key: key.into(), kind: ObjectKind::Dir(row) }),
                    _ => Found::Virtual(Object { key: key.into(), kind: ObjectKind::Dir(None) }),
                }
            }
        })
    }

    fn real(&self, real: Rc<Real>) -> Found {
        if self.tainted { Found::OnBehalf(real) } else { Found::Kernel(Some(real)) }
    }

    /// The error is the virtual tree's own doing.
    fn refuse<T>(&self, errno: Errno) -> Step<T> {
        Err(Stop::Refused(errno))
    }

    fn count_link(&mut self) -> Step<()> {
        self.links += 1;
        if self.resolve & libc::RESOLVE_NO_SYMLINKS != 0 || self.links > MAX_LINKS {
            return Err(Stop::Kernel(Errno::ELOOP));
        }
        Ok(())
    }

    fn crossing(&self, from: &Stat, to: &Stat) -> Step<()> {
        if self.resolve & libc::RESOLVE_NO_XDEV != 0 && from.mount != to.mount {
            return Err(Stop::Kernel(Errno::EXDEV));
        }
        Ok(())
    }

    fn up(&mut self, pos: Pos) -> Step<Pos> {
        if let Some(beneath) = &self.beneath
            && same(&pos, beneath)
        {
            return Err(Stop::Kernel(Errno::EXDEV));
        }
        if same(&pos, &self.root) {
            return Ok(pos);
        }
        match pos {
            Pos::Virtual(base, mut names) => {
                names.pop();
                Ok(if names.is_empty() { self.at_real(base) } else { Pos::Virtual(base, names) })
            }
            Pos::Real(real, _) => {
                let fd = file::open(Some(real.fd.as_fd()), c"..", libc::O_PATH)?;
                let stat = file::stat_fd(fd.as_fd())?;
                if (stat.dev, stat.ino, stat.mount) == (real.stat.dev, real.stat.ino, real.stat.mount) {
                    // The root of a mount that is attached nowhere.
                    return Ok(self.at_real(real));
                }
                self.crossing(&real.stat, &stat)?;
                let key = match &real.key {
                    // A thread's directory has a shorter key than the way to it.
                    Some(key) if stat.mount == real.stat.mount && !is_process_dir(Some(key)) => {
                        key.rsplit_once('/').map(|(parent, _)| parent.to_owned())
                    }
                    _ => place::key_of(self.views, self.task, fd.as_fd(), &stat),
                };
                let kind = place::kind_of(self.task, fd.as_fd(), &stat);
                Ok(self.at_real(Rc::new(Real { fd, stat, kind, key })))
            }
        }
    }

    fn at_real(&self, real: Rc<Real>) -> Pos {
        let cursor = real.key.as_deref().map(|key| self.tree.at(key)).unwrap_or_default();
        Pos::Real(real, cursor)
    }

    fn down(&mut self, pos: &Pos, name: &[u8]) -> Step<Next> {
        let text = std::str::from_utf8(name).ok();
        match pos {
            Pos::Real(base, cursor) => {
                let is_procfs = base.kind == FsKind::Proc && base.key.as_deref() == Some("/proc");
                if is_procfs && let Some(next) = self.self_link(base, name)? {
                    return Ok(next);
                }
                let is_process = name.iter().all(u8::is_ascii_digit);
                let is_left_out =
                    is_procfs && !is_process && self.task.view.mounts.is_subset(base.stat.mount);
                let child = match text {
                    Some(name) if !cursor.is_empty() && !is_left_out => self.tree.child(cursor, name),
                    _ => Cursor::default(),
                };
                self.down_real(base, child, name)
            }
            Pos::Virtual(base, names) => {
                // Nothing real can be here.
                self.tainted = true;
                let text = text.ok_or(Stop::Refused(Errno::ENOENT))?;
                let parent = virtual_key(base, names);
                let cursor = self.tree.at(&parent);
                let child = self.tree.child(&cursor, text);
                let entry = self.existing_entry(&child, &parent, text);
                let key = child_key(&parent, text);
                match entry {
                    Entry::Nothing | Entry::Absent(_) => self.refuse(Errno::ENOENT),
                    Entry::Dir(_) => {
                        let mut names = names.clone();
                        names.push(text.to_owned());
                        Ok(Next::Pos(Pos::Virtual(base.clone(), names)))
                    }
                    Entry::File(row) => {
                        Ok(Next::File(Object { key: key.into(), kind: ObjectKind::File(row) }))
                    }
                    Entry::Link(row) => Ok(virtual_link(key, row)),
                }
            }
        }
    }

    /// What the tree says, leaving out names that only a `*` accounts for and that do not exist.
    fn existing_entry(&self, cursor: &Cursor, parent: &str, name: &str) -> Entry {
        if cursor.is_wild_only() && !self.names.exists(self.task.tid, parent, name) {
            return Entry::Nothing;
        }
        self.tree.entry(cursor)
    }

    fn down_real(&mut self, base: &Rc<Real>, child: Cursor, name: &[u8]) -> Step<Next> {
        let entry = if child.is_empty() { Entry::Nothing } else { self.tree.entry(&child) };
        // Which rows decide without a look at the real object.
        if !child.is_wild_only() {
            match &entry {
                Entry::Absent(_) => return self.refuse(Errno::ENOENT),
                Entry::File(row) | Entry::Link(row) if row.when == When::Always => {
                    if let Some(mounted) = self.mounted_over(base, name) {
                        return self.only_real(base, Ok(mounted));
                    }
                    return Ok(self.virtual_leaf(base, name, entry));
                }
                _ => {}
            }
        }
        let real = self.open_real(base, name);
        let exists = match (&real, base.key.as_deref(), std::str::from_utf8(name)) {
            (Ok(_), ..) => true,
            (Err(_), Some(parent), Ok(name)) => self.names.exists(self.task.tid, parent, name),
            _ => false,
        };
        if child.is_empty() || (child.is_wild_only() && !exists) {
            return self.only_real(base, real);
        }
        match (&entry, &real) {
            (Entry::Absent(_), _) => self.refuse(Errno::ENOENT),
            (Entry::File(row) | Entry::Link(row), _) if row.when == When::Always => {
                Ok(self.virtual_leaf(base, name, entry))
            }
            (Entry::File(_) | Entry::Link(_), Ok(real)) if is_readable(real) => {
                self.only_real(base, Ok(real.clone()))
            }
            (Entry::File(_) | Entry::Link(_), _) => Ok(self.virtual_leaf(base, name, entry)),
            // A procfs without it was mounted with subset=pid, which leaves out everything but processes.
            (Entry::Dir(_), Err(OsErrno::ENOENT))
                if base.kind == FsKind::Proc && base.key.as_deref() == Some("/proc") && name == b"sys" =>
            {
                self.only_real(base, real)
            }
            (Entry::Dir(_), Err(OsErrno::ENOENT)) => {
                // The kernel cannot follow, wherever the path leads from here.
                self.tainted = true;
                let name = String::from_utf8_lossy(name).into_owned();
                Ok(Next::Pos(Pos::Virtual(base.clone(), vec![name])))
            }
            _ => self.only_real(base, real),
        }
    }

    /// What is mounted on an entry: mounting over a file puts another file there, whatever its name.
    fn mounted_over(&self, base: &Real, name: &[u8]) -> Option<Rc<Real>> {
        if !self.task.view.mounts.has_mounts_on(base.stat.mount) {
            return None;
        }
        self.open_real(base, name).ok().filter(|real| real.stat.mount != base.stat.mount)
    }

    fn virtual_leaf(&self, base: &Real, name: &[u8], entry: Entry) -> Next {
        let key = child_key(base.key.as_deref().unwrap_or(""), &String::from_utf8_lossy(name));
        match entry {
            Entry::Link(row) => virtual_link(key, row),
            Entry::File(row) | Entry::Absent(row) => {
                Next::File(Object { key: key.into(), kind: ObjectKind::File(row) })
            }
            Entry::Dir(_) | Entry::Nothing => unreachable!("only called for files and links"),
        }
    }

    fn only_real(&mut self, base: &Rc<Real>, real: Result<Rc<Real>, OsErrno>) -> Step<Next> {
        let real = real?;
        self.crossing(&base.stat, &real.stat)?;
        if real.stat.is(libc::S_IFLNK) {
            return Ok(Next::RealLink(real));
        }
        Ok(Next::Pos(self.at_real(real)))
    }

    fn open_real(&self, base: &Real, name: &[u8]) -> Result<Rc<Real>, OsErrno> {
        let c_name = file::c_path(name)?;
        let fd = file::open(Some(base.fd.as_fd()), &c_name, libc::O_PATH | libc::O_NOFOLLOW)?;
        let stat = file::stat_fd(fd.as_fd())?;
        if stat.mount == base.stat.mount {
            let name = std::str::from_utf8(name).ok();
            let key = base
                .key
                .as_deref()
                .zip(name)
                .and_then(|(parent, name)| place::child(base.kind, parent, name));
            return Ok(Rc::new(Real { fd, stat, kind: base.kind, key }));
        }
        let kind = place::kind_of(self.task, fd.as_fd(), &stat);
        let key = match kind {
            FsKind::Plain => {
                let name = std::str::from_utf8(name).ok();
                base.key.as_deref().zip(name).and_then(|(parent, name)| place::child(base.kind, parent, name))
            }
            FsKind::Proc | FsKind::Sysfs => place::key_of(self.views, self.task, fd.as_fd(), &stat),
        };
        Ok(Rc::new(Real { fd, stat, kind, key }))
    }

    /// `self` and `thread-self` in the root of a procfs are links that depend on who asks; the supervisor's
    /// own lookup would find itself.
    fn self_link(&mut self, base: &Rc<Real>, name: &[u8]) -> Step<Option<Next>> {
        if name != b"self" && name != b"thread-self" {
            return Ok(None);
        }
        self.personal = true;
        let real = self.open_real(base, name)?;
        Ok(Some(Next::RealLink(real)))
    }

    fn read_link(&mut self, pos: &Pos, name: &[u8], link: &Rc<Real>) -> Step<Link> {
        let Pos::Real(base, _) = pos else {
            return self.refuse(Errno::ENOENT);
        };
        if base.kind == FsKind::Proc {
            if base.key.as_deref() == Some("/proc") && (name == b"self" || name == b"thread-self") {
                let (tgid, tid) =
                    place::ids_in(self.views, self.task, base).ok_or(Stop::Kernel(Errno::ENOENT))?;
                let text = if name == b"self" { format!("{tgid}") } else { format!("{tgid}/task/{tid}") };
                return Ok(Link::Text(text.into_bytes()));
            }
            if is_process_dir(base.key.as_deref()) {
                return self.jump(base, name);
            }
        }
        Ok(Link::Text(file::readlink(Some(link.fd.as_fd()), c"")?))
    }

    /// A magic link leads to its object, not along its text.
    fn jump(&mut self, base: &Real, name: &[u8]) -> Step<Link> {
        self.personal = true;
        if self.resolve & (libc::RESOLVE_NO_MAGICLINKS | libc::RESOLVE_NO_SYMLINKS) != 0 {
            return Err(Stop::Kernel(Errno::ELOOP));
        }
        if self.resolve & (libc::RESOLVE_BENEATH | libc::RESOLVE_IN_ROOT) != 0 {
            return Err(Stop::Kernel(Errno::EXDEV));
        }
        if name == b"cwd"
            && let Some(key) = self.cwd_of(base)
        {
            return self.jump_to(&key);
        }
        let c_name = file::c_path(name)?;
        let fd = file::open(Some(base.fd.as_fd()), &c_name, libc::O_PATH)?;
        let stat = file::stat_fd(fd.as_fd())?;
        if let Some(key) = self.carriers.identify(&stat) {
            return self.jump_to(&key);
        }
        self.crossing(&base.stat, &stat)?;
        let kind = place::kind_of(self.task, fd.as_fd(), &stat);
        let key = place::key_of(self.views, self.task, fd.as_fd(), &stat);
        Ok(Link::Jump(self.at_real(Rc::new(Real { fd, stat, kind, key }))))
    }

    /// The virtual working directory of the process whose procfs directory this is.
    fn cwd_of(&self, process: &Real) -> Option<Arc<str>> {
        if self.cwds.is_empty() {
            return None;
        }
        let number = process.key.as_deref()?.strip_prefix("/proc/")?.parse().ok()?;
        let candidates = [self.task.status.tgid].into_iter().chain(self.cwds.processes());
        let tid = place::task_behind(self.views, process, number, candidates)?;
        self.cwds.get(self.views, &*self.views.task(tid).ok()?)
    }

    fn jump_to(&mut self, key: &str) -> Step<Link> {
        if let Some(pos) = self.start_virtual(key) {
            self.tainted = true;
            return Ok(Link::Jump(pos));
        }
        match self.tree.entry(&self.tree.at(key)) {
            Entry::File(row) => Ok(Link::File(Object { key: key.into(), kind: ObjectKind::File(row) })),
            _ => Err(Stop::Kernel(Errno::ENOENT)),
        }
    }

    /// The position of a virtual directory, found by walking its key from the task's root. `None` for files
    /// and for what is no longer there.
    pub fn start_virtual(&mut self, key: &str) -> Option<Pos> {
        let tainted = self.tainted;
        let mut pos = self.root.clone();
        for name in path::components(key.as_bytes()) {
            match self.down(&pos, name) {
                Ok(Next::Pos(next)) => pos = next,
                _ => {
                    self.tainted = tainted;
                    return None;
                }
            }
        }
        Some(pos)
    }
}

enum Link {
    Text(Vec<u8>),
    Jump(Pos),
    File(Object),
}

fn push(todo: &mut Vec<Vec<u8>>, text: &[u8]) {
    todo.extend(path::components(text).rev().map(<[u8]>::to_vec));
}

fn virtual_key(base: &Real, names: &[String]) -> String {
    let mut key = base.key.clone().unwrap_or_default();
    for name in names {
        key = child_key(&key, name);
    }
    key
}

fn virtual_link(key: String, row: Arc<crate::policy::Row>) -> Next {
    let target = match &row.what {
        What::Link { target } => target.clone(),
        _ => String::new(),
    };
    Next::Link(Object { key: key.into(), kind: ObjectKind::Link(row) }, target)
}

fn same(a: &Pos, b: &Pos) -> bool {
    match (a, b) {
        (Pos::Real(a, _), Pos::Real(b, _)) => {
            (a.stat.dev, a.stat.ino, a.stat.mount) == (b.stat.dev, b.stat.ino, b.stat.mount)
        }
        (Pos::Virtual(a, x), Pos::Virtual(b, y)) => virtual_key(a, x) == virtual_key(b, y),
        _ => false,
    }
}

/// Whether links in a directory of procfs are magic: all of them are, below process directories.
fn is_process_dir(key: Option<&str>) -> bool {
    match key {
        None => true,
        Some(key) => {
            let first = key.strip_prefix("/proc/").and_then(|rest| rest.split('/').next());
            first.is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
        }
    }
}

/// Whether the supervisor can read a real object. Write-only files count as readable: that they refuse
/// reading is their nature, and `when = "missing"` is not meant for them.
fn is_readable(real: &Real) -> bool {
    real.stat.mode & 0o444 == 0
        || file::access(Some(real.fd.as_fd()), c"", libc::R_OK, libc::AT_EMPTY_PATH | libc::AT_EACCESS)
            .is_ok()
}
