//! Writing through memfds. Nobody tells when a tracee writes one, so each open(2) for writing gets a memfd of its own,
//! and what is in it counts as written when somebody looks next.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use nix::errno::Errno as OsErrno;
use nix::sys::uio::pread;

use crate::emulator::object::Object;
use crate::emulator::scope::ScopeId;
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
    /// What was in it at the last look.
    seen: Bytes,
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

    /// Takes up a file that a task gets for writing; `seen` is what it holds.
    pub fn add(
        &self,
        store: &Store,
        object: &Object,
        (tid, scope): (u32, ScopeId),
        file: OwnedFd,
        seen: Bytes,
    ) {
        let may_write = store.may_write(object, tid);
        let mut list = self.list();
        if list.len() >= MAX_STAGED {
            list.remove(0);
        }
        list.push(Staged { object: object.clone(), tid, scope, file, seen, may_write });
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

impl Staged {
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
