//! Carriers: the real kernel objects whose descriptors tracees receive for virtual files and directories.
//!
//! [`fuse`] serves them from a FUSE mount that is attached nowhere: sizes, offsets, polling, link texts and
//! permissions are then the server's. [`memfd`] needs no privilege and no `/dev/fuse`, and differs in what
//! DESIGN.md lists.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use bytes::Bytes;
use nix::errno::Errno as OsErrno;

use super::codec::write::Written;
use super::object::Object;
use super::resolve::Identify;
use super::scope::ScopeId;
use super::store::Store;
use super::sys::OsResult;
use super::sys::file::Stat;

pub mod fuse;
pub mod memfd;
pub mod taped;

/// What a new open file starts with.
#[derive(Clone, Debug)]
pub struct Opening {
    /// Its content now.
    pub content: Bytes,
    /// The task that opens it.
    pub tid: u32,
    /// The scope that it is bound to; `None` when values are those of whoever reads or writes.
    pub bound: Option<ScopeId>,
}

/// A way to make descriptors for virtual objects.
pub trait Carrier: Identify {
    /// Name for logs and `sysemu doctor`.
    fn name(&self) -> &'static str;

    /// A new open file description of a file, with these open(2) flags (an access mode, O_NONBLOCK and the like).
    ///
    /// # Errors
    /// The supervisor's own failure, such as EMFILE.
    fn open_file(&self, object: &Object, opening: Opening, flags: i32) -> OsResult<OwnedFd>;

    /// A new open file description of a directory that exists only virtually.
    ///
    /// # Errors
    /// The supervisor's own failure, such as EMFILE.
    fn open_dir(&self, object: &Object, flags: i32) -> OsResult<OwnedFd>;

    /// Something that inotify_add_watch(2) takes as path for the object's inode.
    ///
    /// # Errors
    /// The supervisor's own failure, such as EMFILE.
    fn open_path(&self, object: &Object) -> OsResult<OwnedFd>;

    /// Device and inode number of the object, when the carrier and not the store decides them.
    fn identity(&self, object: &Object) -> Option<((u32, u32), u64)>;

    /// Recognises a copy of an object's file that a tracee made itself.
    fn adopt(&self, copy: &Stat, key: &Arc<str>) {
        let _ = (copy, key);
    }

    /// Takes note of what tracees wrote and nobody told of, before `looker` looks at a file.
    fn look(&self, looker: u32) {
        let _ = looker;
    }

    /// Whether a file is one open for writing that nobody else tells of writes to; see [`Carrier::write`].
    fn is_staged(&self, file: &Stat) -> bool {
        let _ = file;
        false
    }

    /// Takes up a copy of such a file, made by a tracee; `false` when it is a copy of none.
    ///
    /// # Errors
    /// As fstat(2).
    fn stage_copy(&self, original: &Stat, copy: OwnedFd) -> OsResult<bool> {
        let _ = (original, copy);
        Ok(false)
    }

    /// write(2) of such a file by a task; `None` when it is none.
    fn write(&self, file: &Stat, tid: u32, data: &[u8], offset: u64) -> Option<Written> {
        let _ = (file, tid, data, offset);
        None
    }

    /// The mount id that statx(2) shows for descriptors.
    fn mount(&self) -> Option<u64>;

    /// Whether `/proc/PID/fd` shows the path of the object by itself.
    fn shows_path(&self) -> bool;
}

/// Which carrier to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CarrierChoice {
    /// The best that the host allows.
    #[default]
    Auto,
    /// FUSE or nothing.
    Fuse,
    /// memfd even where FUSE would work.
    Memfd,
}

/// What was chosen, and why not something better.
pub struct Chosen {
    /// The carrier.
    pub carrier: Arc<dyn Carrier>,
    /// Why FUSE was not to be had.
    pub fuse_error: Option<(fuse::Step, OsErrno)>,
}

/// Chooses a carrier by trying.
///
/// # Errors
/// Why FUSE cannot be had, when it was asked for; why a memfd cannot.
pub fn choose(store: &Arc<Store>, choice: CarrierChoice) -> Result<Chosen, (fuse::Step, OsErrno)> {
    let fuse_error = match choice {
        CarrierChoice::Memfd => None,
        CarrierChoice::Auto | CarrierChoice::Fuse => match fuse::FuseCarrier::new(store.clone()) {
            Ok(carrier) => return Ok(Chosen { carrier: Arc::new(carrier), fuse_error: None }),
            Err(error) if choice == CarrierChoice::Fuse => return Err(error),
            Err(error) => Some(error),
        },
    };
    let carrier = memfd::MemfdCarrier::new(store.clone()).map_err(|errno| (fuse::Step::Memfd, errno))?;
    Ok(Chosen { carrier: Arc::new(carrier), fuse_error })
}
