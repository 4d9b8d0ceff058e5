//! The memfd carrier: a sealed memfd (memfd_create(2)) for each file, reopened for each open(2), and an
//! unlinked temporary directory for each directory that exists only virtually.
//!
//! Works for everybody everywhere. [`DIFFERENCES`] says what differs from a file of procfs.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use dashmap::DashMap;
use nix::errno::Errno as OsErrno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::stat::{Mode, fchmod};

use super::{Carrier, Opening};
use crate::emulator::codec::write::Written;
use crate::emulator::object::{Object, ObjectKind};
use crate::emulator::resolve::Identify;
use crate::emulator::scope::{self, ScopeId};
use crate::emulator::store::{Store, content_of};
use crate::emulator::sys::OsResult;
use crate::emulator::sys::file::{self, Stat};
use crate::emulator::write;
use crate::policy::Content;

type Identity = ((u32, u32), u64);

mod staged;

use staged::StagedFiles;

/// Files with changing content whose descriptors are recognised.
const REMEMBERED: usize = 4096;

/// How these files differ from the kernel's, beyond what FUSE files do; for people.
pub const DIFFERENCES: &str = "fstat(2) shows the size and a link count of 0, SEEK_END, SEEK_DATA, SEEK_HOLE and FIONREAD \
     know the size, mmap(2) and fsync(2) work, epoll refuses them, numbers can be read in pieces, root can chmod and \
     chown them";

/// The carrier.
pub struct MemfdCarrier {
    store: Arc<Store>,
    /// Files whose content never changes, and directories: made once, reopened each time.
    kept: DashMap<Arc<str>, (Arc<OwnedFd>, Identity)>,
    /// Keys by identity, also of files made for one open(2).
    known: DashMap<Identity, Arc<str>>,
    /// Identities of files made for one open(2), oldest first: forgotten after [`REMEMBERED`] others, so that
    /// neither memory grows nor a recycled inode number is mistaken.
    passing: Mutex<VecDeque<Identity>>,
    /// Files that can be written, as their readers have them: one for each namespace, which a write changes.
    shared: DashMap<(Arc<str>, ScopeId), Arc<Shared>>,
    staged: StagedFiles,
    directories: AtomicU64,
}

/// What all readers of a writable file have open.
struct Shared {
    object: Object,
    file: OwnedFd,
    identity: Identity,
    content: Mutex<Bytes>,
}

impl MemfdCarrier {
    /// Checks that memfds can be made.
    ///
    /// # Errors
    /// As memfd_create(2).
    pub fn new(store: Arc<Store>) -> OsResult<Self> {
        let probe = file::memfd(c"sysemu")?;
        let stat = file::stat_fd(probe.as_fd())?;
        let _ = store.device.set(stat.dev);
        Ok(MemfdCarrier {
            store,
            kept: DashMap::new(),
            known: DashMap::new(),
            passing: Mutex::default(),
            shared: DashMap::new(),
            staged: StagedFiles::default(),
            directories: AtomicU64::new(0),
        })
    }

    fn make_file(&self, object: &Object, content: &[u8]) -> OsResult<(OwnedFd, Identity)> {
        let (fd, identity) = self.make_open_file(object, content)?;
        let seals =
            SealFlag::F_SEAL_SEAL | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE;
        fcntl(&fd, FcntlArg::F_ADD_SEALS(seals))?;
        Ok((fd, identity))
    }

    /// One that is not sealed.
    fn make_open_file(&self, object: &Object, content: &[u8]) -> OsResult<(OwnedFd, Identity)> {
        let name = file::c_path(object.key.trim_start_matches('/').as_bytes())?;
        // Longer names than 249 bytes are refused; the name is only for show.
        let fd = file::memfd(&name).or_else(|_| file::memfd(c"sysemu"))?;
        let mut rest = content;
        while !rest.is_empty() {
            let written = nix::unistd::write(&fd, rest)?;
            rest = &rest[written..];
        }
        fchmod(&fd, Mode::from_bits_truncate(object.mode() & 0o7777))?;
        let stat = file::stat_fd(fd.as_fd())?;
        let identity = (stat.dev, stat.ino);
        self.known.insert(identity, object.key.clone());
        Ok((fd, identity))
    }

    /// Remembers a file made for one open(2) for a while.
    fn pass(&self, identity: Identity) {
        let mut passing = self.passing.lock().unwrap_or_else(PoisonError::into_inner);
        passing.push_back(identity);
        if passing.len() > REMEMBERED
            && let Some(oldest) = passing.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    fn make_dir(&self, object: &Object) -> OsResult<(OwnedFd, Identity)> {
        let number = self.directories.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!(".sysemu-{}-{number}", std::process::id()));
        let to_os = |error: std::io::Error| OsErrno::from_raw(error.raw_os_error().unwrap_or(libc::EIO));
        std::fs::create_dir(&path).map_err(to_os)?;
        let c_path = file::c_path(std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()))?;
        let fd = file::open(None, &c_path, libc::O_RDONLY | libc::O_DIRECTORY);
        std::fs::remove_dir(&path).map_err(to_os)?;
        let fd = fd?;
        fchmod(&fd, Mode::from_bits_truncate(object.mode() & 0o7777))?;
        let stat = file::stat_fd(fd.as_fd())?;
        let identity = (stat.dev, stat.ino);
        self.known.insert(identity, object.key.clone());
        Ok((fd, identity))
    }

    fn keep(
        &self,
        object: &Object,
        make: impl FnOnce() -> OsResult<(OwnedFd, Identity)>,
    ) -> OsResult<(Arc<OwnedFd>, Identity)> {
        if let Some(kept) = self.kept.get(&object.key) {
            return Ok(kept.clone());
        }
        let (fd, identity) = make()?;
        Ok(self.kept.entry(object.key.clone()).or_insert((Arc::new(fd), identity)).clone())
    }

    /// The file that readers in a namespace share, with this content.
    fn shared(&self, object: &Object, scope: ScopeId, content: &Bytes) -> OsResult<Arc<Shared>> {
        let key = (object.key.clone(), scope);
        if let Some(shared) = self.shared.get(&key).map(|shared| shared.clone()) {
            shared.update(content)?;
            return Ok(shared);
        }
        let (file, identity) = self.make_open_file(object, content)?;
        let (object, content) = (object.clone(), Mutex::new(content.clone()));
        let made = Arc::new(Shared { object, file, identity, content });
        if self.shared.len() >= REMEMBERED {
            // Those who have one open keep it; only later changes do not reach them.
            self.shared.clear();
        }
        Ok(self.shared.entry(key).or_insert(made).clone())
    }

    /// A file of its own for somebody who writes.
    fn stage(&self, object: &Object, opening: Opening, flags: i32) -> OsResult<OwnedFd> {
        let reads = flags & libc::O_ACCMODE == libc::O_RDWR;
        let content = if reads { opening.content } else { Bytes::new() };
        let (file, identity) = self.make_open_file(object, &content)?;
        self.pass(identity);
        let path = file::self_fd_path(file.as_fd());
        let (theirs, ours) = (file::open(None, &path, flags)?, file::open(None, &path, libc::O_RDONLY)?);
        let scope = opening.bound.unwrap_or_else(|| self.store.scope_of(object, opening.tid));
        self.staged.add(&self.store, object, (opening.tid, scope), ours, (content, reads))?;
        Ok(theirs)
    }

    /// Brings what readers have open up to date.
    fn refresh(&self, looker: u32) {
        let shared: Vec<(ScopeId, Arc<Shared>)> =
            self.shared.iter().map(|entry| (entry.key().1, entry.value().clone())).collect();
        for (scope, shared) in shared {
            let Ok(content) = self.store.content_in(&shared.object, looker, Some(scope)) else { continue };
            if let Err(errno) = shared.update(&content) {
                tracing::warn!(path = %shared.object.key, %errno, "readers keep an old value");
            }
        }
    }

    fn is_fixed(object: &Object) -> bool {
        match &object.kind {
            ObjectKind::File(row) => matches!(content_of(row), Some(Content::Fixed(_))),
            _ => false,
        }
    }

    fn kept(&self, object: &Object) -> OsResult<Option<(Arc<OwnedFd>, Identity)>> {
        if object.is_dir() {
            return self.keep(object, || self.make_dir(object)).map(Some);
        }
        if !Self::is_fixed(object) {
            return Ok(None);
        }
        let content = self.store.content(object, 0).map_err(|errno| OsErrno::from_raw(errno.raw()))?;
        self.keep(object, || self.make_file(object, &content)).map(Some)
    }
}

impl Shared {
    fn update(&self, content: &Bytes) -> OsResult<()> {
        let mut current = self.content.lock().unwrap_or_else(PoisonError::into_inner);
        if *current == *content {
            return Ok(());
        }
        // Longer first: a reader in between sees too much rather than nothing.
        nix::sys::uio::pwrite(&self.file, content, 0)?;
        nix::unistd::ftruncate(&self.file, content.len() as i64)?;
        *current = content.clone();
        Ok(())
    }
}

impl Identify for MemfdCarrier {
    fn identify(&self, stat: &Stat) -> Option<Arc<str>> {
        self.known.get(&(stat.dev, stat.ino)).map(|key| key.clone())
    }
}

impl Carrier for MemfdCarrier {
    fn name(&self) -> &'static str {
        "memfd"
    }

    fn open_file(&self, object: &Object, opening: Opening, flags: i32) -> OsResult<OwnedFd> {
        // What is opened is a link below /proc.
        let flags = flags & !libc::O_NOFOLLOW;
        if flags & libc::O_ACCMODE != libc::O_RDONLY {
            return self.stage(object, opening, flags);
        }
        if Self::is_fixed(object) && write::is_writable(object) {
            let scope = opening.bound.unwrap_or_else(|| self.store.scope_of(object, opening.tid));
            let shared = self.shared(object, scope, &opening.content)?;
            return file::open(None, &file::self_fd_path(shared.file.as_fd()), flags);
        }
        if let Some((fd, _)) = self.kept(object)? {
            return file::open(None, &file::self_fd_path(fd.as_fd()), flags);
        }
        let (fd, identity) = self.make_file(object, &opening.content)?;
        self.pass(identity);
        file::open(None, &file::self_fd_path(fd.as_fd()), flags)
    }

    fn open_dir(&self, object: &Object, flags: i32) -> OsResult<OwnedFd> {
        let (fd, _) = self.keep(object, || self.make_dir(object))?;
        file::open(None, &file::self_fd_path(fd.as_fd()), flags | libc::O_RDONLY | libc::O_DIRECTORY)
    }

    fn open_path(&self, object: &Object) -> OsResult<OwnedFd> {
        let content = self.store.content(object, 0).unwrap_or_default();
        let opening = Opening { content, tid: 0, bound: None };
        if object.is_dir() { self.open_dir(object, 0) } else { self.open_file(object, opening, 0) }
    }

    fn adopt(&self, copy: &Stat, key: &Arc<str>) {
        let identity = (copy.dev, copy.ino);
        self.known.insert(identity, key.clone());
        self.pass(identity);
    }

    fn look(&self, looker: u32) {
        if self.staged.commit(&self.store, looker) {
            self.refresh(looker);
        }
    }

    fn is_staged(&self, file: &Stat) -> bool {
        self.staged.has((file.dev, file.ino))
    }

    fn stage_copy(&self, original: &Stat, copy: OwnedFd) -> OsResult<bool> {
        let Some(key) = self.identify(original) else { return Ok(false) };
        self.adopt(&file::stat_fd(copy.as_fd())?, &key);
        self.staged.add_copy((original.dev, original.ino), copy)
    }

    fn write(&self, file: &Stat, tid: u32, data: &[u8], offset: u64) -> Option<Written> {
        let written = self.staged.write(&self.store, (file.dev, file.ino), tid, data, offset)?;
        if written.content.is_some() {
            self.refresh(tid);
        }
        Some(written)
    }

    fn identity(&self, object: &Object) -> Option<Identity> {
        if Self::is_fixed(object) && write::is_writable(object) {
            // Where values differ between namespaces, one of them stands for all.
            let of = |entry: dashmap::mapref::multiple::RefMulti<'_, (Arc<str>, ScopeId), Arc<Shared>>| {
                (entry.key().0 == object.key).then(|| entry.identity)
            };
            let global = self.shared.get(&(object.key.clone(), scope::GLOBAL)).map(|shared| shared.identity);
            return global.or_else(|| self.shared.iter().find_map(of)).or_else(|| {
                let content = self.store.content(object, 0).ok()?;
                let scope = self.store.scope_of(object, 0);
                Some(self.shared(object, scope, &content).ok()?.identity)
            });
        }
        self.kept(object).ok().flatten().map(|(_, identity)| identity)
    }

    fn mount(&self) -> Option<u64> {
        None
    }

    fn shows_path(&self) -> bool {
        false
    }
}
