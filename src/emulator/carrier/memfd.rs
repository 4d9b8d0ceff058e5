//! The memfd carrier: a sealed memfd (memfd_create(2)) for each file, reopened for each open(2), and an
//! unlinked temporary directory for each directory that exists only virtually.
//!
//! Works for everybody everywhere. [`DIFFERENCES`] says what differs from a file of procfs.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use dashmap::DashMap;
use nix::errno::Errno as OsErrno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::stat::{Mode, fchmod};

use super::{Carrier, Opening};
use crate::emulator::object::{Object, ObjectKind};
use crate::emulator::resolve::Identify;
use crate::emulator::store::{Store, content_of};
use crate::emulator::sys::OsResult;
use crate::emulator::sys::file::{self, Stat};
use crate::policy::Content;

type Identity = ((u32, u32), u64);

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
    directories: AtomicU64,
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
            directories: AtomicU64::new(0),
        })
    }

    fn make_file(&self, object: &Object, content: &[u8]) -> OsResult<(OwnedFd, Identity)> {
        let name = file::c_path(object.key.trim_start_matches('/').as_bytes())?;
        // Longer names than 249 bytes are refused; the name is only for show.
        let fd = file::memfd(&name).or_else(|_| file::memfd(c"sysemu"))?;
        let mut rest = content;
        while !rest.is_empty() {
            let written = nix::unistd::write(&fd, rest)?;
            rest = &rest[written..];
        }
        fchmod(&fd, Mode::from_bits_truncate(object.mode() & 0o7777))?;
        let seals =
            SealFlag::F_SEAL_SEAL | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE;
        fcntl(&fd, FcntlArg::F_ADD_SEALS(seals))?;
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
        let opening = Opening { content, bound: None };
        if object.is_dir() { self.open_dir(object, 0) } else { self.open_file(object, opening, 0) }
    }

    fn adopt(&self, copy: &Stat, key: &Arc<str>) {
        let identity = (copy.dev, copy.ino);
        self.known.insert(identity, key.clone());
        self.pass(identity);
    }

    fn identity(&self, object: &Object) -> Option<Identity> {
        self.kept(object).ok().flatten().map(|(_, identity)| identity)
    }

    fn mount(&self) -> Option<u64> {
        None
    }

    fn shows_path(&self) -> bool {
        false
    }
}
