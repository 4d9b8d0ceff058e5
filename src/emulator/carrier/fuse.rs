//! The FUSE carrier: a detached FUSE mount (fuse(4), fsmount(2)) that holds the whole path of each virtual
//! object, served by threads of the supervisor.
//!
//! Attached nowhere, it is in nobody's mountinfo, `..` stays inside, and `/proc/PID/fd` shows the right
//! path. Files are opened for direct I/O: each read(2) and write(2) asks the server, so offsets behave as the node's
//! type wants, no page cache can be stale, and errors of write(2) are the server's.

use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use dashmap::DashMap;
use fuser::{Config, Session, SessionACL};
use nix::errno::Errno as OsErrno;

use super::{Carrier, Opening};
use crate::emulator::object::{Object, ObjectKind};
use crate::emulator::resolve::Identify;
use crate::emulator::store::{Store, content_of};
use crate::emulator::sys::OsResult;
use crate::emulator::sys::file::{self, Stat};
use crate::emulator::sys::mount::{Access, detached_fuse};
use crate::policy::Content;

mod handle;
mod server;

use server::Server;

/// A step of the set-up that can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Opening `/dev/fuse`.
    Device,
    /// Making the detached mount.
    Mount,
    /// Exchanging versions with the kernel.
    Handshake,
    /// Reading a file.
    Read,
    /// Making a memfd (of the other carrier).
    Memfd,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::Device => "open /dev/fuse",
            Step::Mount => "make a detached FUSE mount",
            Step::Handshake => "exchange versions with the kernel's FUSE",
            Step::Read => "read through the kernel's FUSE",
            Step::Memfd => "create a memfd",
        })
    }
}

/// The carrier.
pub struct FuseCarrier {
    store: Arc<Store>,
    root: OwnedFd,
    root_stat: Stat,
    pending: Arc<Pending>,
}

/// What a receiver found out for the open(2) it is about to make, by its thread id.
type Pending = DashMap<u32, Opening>;

thread_local! {
    /// The thread's id, asked for once: the C library makes a system call each time.
    static TID: u32 = nix::unistd::gettid().as_raw().cast_unsigned();
}

impl FuseCarrier {
    /// Makes the mount and starts serving it.
    ///
    /// # Errors
    /// The step that failed, and why.
    pub fn new(store: Arc<Store>) -> Result<Self, (Step, OsErrno)> {
        let device = file::open(None, c"/dev/fuse", libc::O_RDWR).map_err(|errno| (Step::Device, errno))?;
        let is_root = nix::unistd::geteuid().is_root();
        let (access, acl) =
            if is_root { (Access::Everybody, SessionACL::All) } else { (Access::Owner, SessionACL::Owner) };
        let root = detached_fuse(device.as_fd(), c"sysemu", access).map_err(|errno| (Step::Mount, errno))?;
        let pending = Arc::new(Pending::new());
        let server = Server::new(store.clone(), pending.clone());
        let mut config = Config::default();
        config.acl = acl;
        config.n_threads = Some(2);
        let failed = |error: std::io::Error| {
            (Step::Handshake, OsErrno::from_raw(error.raw_os_error().unwrap_or(libc::EPROTO)))
        };
        let session = Session::from_fd(server, device, acl, config).map_err(failed)?;
        std::thread::Builder::new()
            .name("fuse".into())
            .spawn(move || {
                if let Err(error) = session.run() {
                    tracing::warn!(%error, "the FUSE server ended");
                }
            })
            .map_err(failed)?;
        let root_stat = file::stat_fd(root.as_fd()).map_err(|errno| (Step::Handshake, errno))?;
        let _ = store.device.set(root_stat.dev);
        let carrier = FuseCarrier { store, root, root_stat, pending };
        carrier.try_reading().map_err(|errno| (Step::Read, errno))?;
        Ok(carrier)
    }

    /// Reads one of the files: gVisor of 2026 takes their size, which is 0, for their end.
    fn try_reading(&self) -> OsResult<()> {
        let fixed = |key: &str| {
            let object = self.store.object(key)?;
            match &object.kind {
                ObjectKind::File(row) => match content_of(row)? {
                    Content::Fixed(bytes) if !bytes.is_empty() => Some((object.clone(), bytes.clone())),
                    _ => None,
                },
                _ => None,
            }
        };
        let Some((object, content)) = self.store.tree.certain_keys().find_map(fixed) else { return Ok(()) };
        let opening = Opening { content, tid: std::process::id(), bound: None };
        let file = self.open_file(&object, opening, 0)?;
        let mut byte = [0];
        match nix::unistd::read(&file, &mut byte)? {
            0 => Err(OsErrno::ENODATA),
            _ => Ok(()),
        }
    }

    fn open(&self, object: &Object, flags: i32) -> OsResult<OwnedFd> {
        // The server answers look-ups of names that a `*` row matches only when they are known to exist.
        for (end, _) in object.key.match_indices('/').skip(1) {
            self.store.inodes.number(&object.key[..end]);
        }
        self.store.inodes.number(&object.key);
        let path = object.key.trim_start_matches('/');
        let path = file::c_path(if path.is_empty() { b"." } else { path.as_bytes() })?;
        file::open(Some(self.root.as_fd()), &path, flags)
    }
}

impl Identify for FuseCarrier {
    fn identify(&self, stat: &Stat) -> Option<Arc<str>> {
        if stat.dev != self.root_stat.dev {
            return None;
        }
        self.store.inodes.key(stat.ino)
    }
}

impl Carrier for FuseCarrier {
    fn name(&self) -> &'static str {
        "fuse"
    }

    fn open_file(&self, object: &Object, opening: Opening, flags: i32) -> OsResult<OwnedFd> {
        let tid = TID.with(|tid| *tid);
        self.pending.insert(tid, opening);
        // Without O_DIRECT sendfile(2) and splice(2) would go through the page cache, which ends at a size of 0.
        let fd = self.open(object, flags | libc::O_DIRECT);
        self.pending.remove(&tid);
        fd
    }

    fn open_dir(&self, object: &Object, flags: i32) -> OsResult<OwnedFd> {
        self.open(object, flags | libc::O_RDONLY | libc::O_DIRECTORY)
    }

    fn open_path(&self, object: &Object) -> OsResult<OwnedFd> {
        self.open(object, libc::O_PATH | libc::O_NOFOLLOW)
    }

    fn identity(&self, _object: &Object) -> Option<((u32, u32), u64)> {
        None
    }

    fn mount(&self) -> Option<u64> {
        Some(self.root_stat.mount)
    }

    fn shows_path(&self) -> bool {
        true
    }
}
