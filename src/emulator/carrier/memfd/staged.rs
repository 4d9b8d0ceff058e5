//! Writing through memfds. Where nobody tells when a tracee writes one, each open(2) for writing gets a memfd of its own,
//! and what is in it counts as written when somebody looks next. Where a backend hears of each write it is done here.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use nix::errno::Errno as OsErrno;
use nix::sys::uio::pread;

use super::Identity;
use crate::emulator::codec::write::Written;
use crate::emulator::context::Who;
use crate::emulator::errno::Errno;
use crate::emulator::failure::Failure;
use crate::emulator::object::Object;
use crate::emulator::scope::{self, ScopeId};
use crate::emulator::store::Store;
use crate::emulator::sys::OsResult;
use crate::emulator::sys::file;

/// Files that are looked at; of more, the oldest are let go.
const MAX_STAGED: usize = 1024;
/// Most bytes of one that are looked at: more than any row takes.
const MAX_LOOKED_AT: usize = 1 << 20;

/// One open(2) for writing.
struct Staged {
    object: Object,
    tid: u32,
    scope: ScopeId,
    /// Read-only, so that the writers can be asked after.
    file: OwnedFd,
    identity: Identity,
    /// What was in it at the last look.
    seen: Bytes,
    /// Whether the opener also reads it.
    is_read: bool,
    /// Whether the opener may write at all; beyond that nobody's rights can be looked at again.
    may_write: bool,
}

/// All files open for writing, oldest first.
#[derive(Default)]
pub struct StagedFiles(Mutex<Vec<Staged>>);

impl StagedFiles {
    fn list(&self) -> MutexGuard<'_, Vec<Staged>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes up a file that a task gets for writing, and perhaps for reading `seen`, which it holds.
    ///
    /// # Errors
    /// As fstat(2).
    pub fn add(
        &self,
        store: &Store,
        object: &Object,
        (tid, scope): (u32, ScopeId),
        file: OwnedFd,
        (seen, is_read): (Bytes, bool),
    ) -> OsResult<()> {
        let may_write = store.may_write(object, tid);
        let identity = identity_of(&file)?;
        self.push(Staged { object: object.clone(), tid, scope, file, identity, seen, is_read, may_write });
        Ok(())
    }

    fn push(&self, staged: Staged) {
        let mut list = self.list();
        if list.len() >= MAX_STAGED {
            list.remove(0);
        }
        list.push(staged);
    }

    /// Whether this is one of them.
    pub fn has(&self, identity: Identity) -> bool {
        self.list().iter().any(|staged| staged.identity == identity)
    }

    /// Takes up a copy of one of them; `false` when it is none.
    ///
    /// # Errors
    /// As fstat(2).
    pub fn add_copy(&self, original: Identity, copy: OwnedFd) -> OsResult<bool> {
        let found = self.list().iter().find(|staged| staged.identity == original).map(|staged| {
            let object = staged.object.clone();
            (object, staged.tid, staged.scope, staged.seen.clone(), staged.is_read, staged.may_write)
        });
        let Some((object, tid, scope, seen, is_read, may_write)) = found else { return Ok(false) };
        let identity = identity_of(&copy)?;
        self.push(Staged { object, tid, scope, file: copy, identity, seen, is_read, may_write });
        Ok(true)
    }

    /// write(2) of one of them by a task; `None` when it is none.
    pub fn write(
        &self,
        store: &Store,
        identity: Identity,
        tid: u32,
        data: &[u8],
        offset: u64,
    ) -> Option<Written> {
        let mut list = self.list();
        let staged = list.iter_mut().find(|staged| staged.identity == identity)?;
        // Checked at each write(2), because rights can be given up and descriptors passed on.
        if let Err(Failure::Guest(_)) = scope::permit(&store.views, tid, &staged.object, 2, Who::Effective) {
            return Some(Written { content: None, result: Err(Errno::EPERM), moves: false });
        }
        let written = store.write(&staged.object, tid, Some(staged.scope), data, offset);
        if written.content.is_some() && staged.is_read {
            let shown = store.content_in(&staged.object, tid, Some(staged.scope));
            if let Err(errno) =
                shown.map_err(|errno| OsErrno::from_raw(errno.raw())).and_then(|now| staged.show(now))
            {
                tracing::warn!(path = %staged.object.key, %errno, "a reader keeps an old value");
            }
        }
        Some(written)
    }

    /// Takes what was written since the last look, on behalf of a task that looks; whether anything changed.
    pub fn commit(&self, store: &Store, looker: u32) -> bool {
        let mut list = self.list();
        if list.is_empty() {
            return false;
        }
        let mut changed = false;
        list.retain_mut(|staged| {
            // In this order: what is written before the last close(2) is in the file then.
            let is_open = has_writers(&staged.file);
            match read(&staged.file) {
                Ok(now) => changed |= staged.take(store, now, looker),
                Err(errno) => {
                    tracing::warn!(path = %staged.object.key, %errno, "cannot look at what was written")
                }
            }
            is_open
        });
        changed
    }
}

fn identity_of(file: &OwnedFd) -> OsResult<Identity> {
    let stat = file::stat_fd(file.as_fd())?;
    Ok((stat.dev, stat.ino))
}

impl Staged {
    /// Puts a new value where the opener reads it.
    fn show(&mut self, now: Bytes) -> OsResult<()> {
        // Opened for this only: who has it open for writing decides whether it is still of interest.
        let file = file::open(None, &file::self_fd_path(self.file.as_fd()), libc::O_WRONLY)?;
        nix::sys::uio::pwrite(&file, &now, 0)?;
        nix::unistd::ftruncate(&file, now.len() as i64)?;
        self.seen = now;
        Ok(())
    }

    fn take(&mut self, store: &Store, now: Bytes, looker: u32) -> bool {
        if now == self.seen {
            return false;
        }
        // What came behind is a write(2) there; anything else counts as one at the start.
        let offset = if now.starts_with(&self.seen) { self.seen.len() } else { 0 };
        self.seen = now.clone();
        let data = &now[offset..];
        if data.is_empty() {
            return false;
        }
        let key = &self.object.key;
        if !self.may_write {
            tracing::warn!(path = %key, "refused what was written: the program lacks the capability for it");
            return false;
        }
        // The writer may be gone, and its namespaces be reached through somebody else in them only.
        let tid = if store.scope_of(&self.object, looker) == self.scope { looker } else { self.tid };
        let written = store.apply(&self.object, tid, Some(self.scope), data, offset as u64);
        if let Err(errno) = written.result {
            let text = String::from_utf8_lossy(&data[..data.len().min(80)]).into_owned();
            tracing::warn!(path = %key, %errno, "refused what was written, {text:?}: the value stays");
        }
        written.content.is_some()
    }
}

/// Whether somebody has the file open for writing. A read lease (fcntl(2), F_SETLEASE) is given only when nobody has.
fn has_writers(file: &OwnedFd) -> bool {
    match file::set_lease(file.as_fd(), libc::F_RDLCK) {
        Ok(()) => {
            let _ = file::set_lease(file.as_fd(), libc::F_UNLCK);
            false
        }
        // EAGAIN: there are some. Where there are no leases (gVisor) nobody can tell.
        Err(_) => true,
    }
}

fn read(file: &OwnedFd) -> OsResult<Bytes> {
    let mut bytes = vec![0; 4096];
    let mut len = 0;
    loop {
        match pread(file.as_fd(), &mut bytes[len..], len as i64) {
            Ok(0) => break,
            Ok(got) => len += got,
            Err(OsErrno::EINTR) => continue,
            Err(errno) => return Err(errno),
        }
        if len == MAX_LOOKED_AT {
            break;
        }
        let room = (2 * bytes.len()).min(MAX_LOOKED_AT);
        bytes.resize(room.max(len), 0);
    }
    bytes.truncate(len);
    Ok(bytes.into())
}
