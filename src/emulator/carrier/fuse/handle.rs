//! One open file of the FUSE mount.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::emulator::carrier::Opening;
use crate::emulator::errno::Errno;
use crate::emulator::object::{Object, ObjectKind};
use crate::emulator::scope::ScopeId;
use crate::emulator::store::{Store, honours_offset};
use crate::policy::What;

/// One open file.
pub struct Open {
    /// What it is.
    pub object: Object,
    bound: Option<ScopeId>,
    honours_offset: bool,
    state: Mutex<State>,
}

struct State {
    /// The content as of open(2), or as of the last read(2) from the start.
    content: Bytes,
    /// Whether `content` is still what open(2) found, so that the first read(2) need not look again.
    is_fresh: bool,
    /// The last change that poll(2) told of.
    event: u64,
    /// Where a procfs file would be. The kernel's own position of a FUSE file differs when it is opened for
    /// appending, and after handlers that do not move it.
    position: u64,
    /// The kernel's position at which `position` stands for it.
    skewed_at: Option<u64>,
}

impl Open {
    /// A file that was just opened, with the number of changes so far.
    pub fn new(object: Object, opening: Opening, event: u64) -> Self {
        let state = State { content: opening.content, is_fresh: true, event, position: 0, skewed_at: None };
        Open {
            honours_offset: honours_offset(&object),
            object,
            bound: opening.bound,
            state: Mutex::new(state),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// read(2) by a task: numbers give what they have at the start only; a read from the start, and any of a
    /// string, sees what was written meanwhile.
    ///
    /// # Errors
    /// As [`Store::content`].
    pub fn read(&self, store: &Store, tid: u32, offset: u64, size: usize) -> Result<Bytes, Errno> {
        let (at, is_fresh, mut content) = {
            let mut state = self.state();
            let at = if state.skewed_at == Some(offset) { state.position } else { offset };
            (at, std::mem::take(&mut state.is_fresh), state.content.clone())
        };
        if at != 0 && !self.honours_offset {
            return Ok(Bytes::new());
        }
        if (at == 0 && !is_fresh) || store.has_written(&self.object) {
            content = store.content_in(&self.object, tid, self.bound)?;
            self.state().content = content.clone();
        }
        let start = usize::try_from(at).unwrap_or(usize::MAX).min(content.len());
        let end = content.len().min(start.saturating_add(size));
        let mut state = self.state();
        state.position = end as u64;
        state.skewed_at = (at != offset).then(|| offset + (end - start) as u64);
        Ok(content.slice(start..end))
    }

    /// write(2) by a task that may do it.
    ///
    /// # Errors
    /// As [`Store::write`].
    pub fn write(
        &self,
        store: &Store,
        tid: u32,
        offset: u64,
        data: &[u8],
        appends: bool,
    ) -> Result<usize, Errno> {
        let at = {
            let state = self.state();
            if appends || state.skewed_at == Some(offset) { state.position } else { offset }
        };
        let written = store.write(&self.object, tid, self.bound, data, at);
        let count = written.result?;
        let mut state = self.state();
        state.is_fresh = false;
        state.position = if written.moves { at + count as u64 } else { at };
        let kernels = offset + count as u64;
        state.skewed_at = (kernels != state.position).then_some(kernels);
        Ok(count)
    }

    /// Whether poll(2) tells of changes.
    pub fn can_be_polled(&self) -> bool {
        match &self.object.kind {
            ObjectKind::File(row) => matches!(&row.what, What::File { rules, .. } if rules.poll),
            _ => false,
        }
    }

    /// Notes a change, and says whether it is a new one.
    pub fn sees(&self, event: u64) -> bool {
        std::mem::replace(&mut self.state().event, event) != event
    }
}
