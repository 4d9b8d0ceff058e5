//! Working directories that exist only virtually.
//!
//! The kernel cannot be made to stand in a directory it does not have, so chdir(2) into one is remembered
//! here and every relative path of the process starts from it, until it goes elsewhere. Threads share the
//! record of their process; a child takes over that of its parent when it first asks for a path.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use dashmap::DashMap;

use super::task::Task;
use super::view::Views;
use crate::emulator::sys::{file, tape};

#[derive(Clone)]
struct Record {
    /// The process, by its `/proc` directory: useless once it died, whoever has its number then.
    process: Arc<OwnedFd>,
    /// The directory; `None` once the process went to a real one.
    key: Option<Arc<str>>,
}

fn process_label(process: u32) -> String {
    format!("process {process}")
}

/// The records.
#[derive(Default)]
pub struct Cwds {
    records: DashMap<u32, Record>,
}

impl Cwds {
    /// Whether no process ever entered a virtual directory.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Where the task stands, when that is recorded.
    pub fn get(&self, views: &Views, task: &Task) -> Option<Arc<str>> {
        if self.records.is_empty() {
            return None;
        }
        if let Some(record) = self.live(task.status.tgid) {
            return record.key;
        }
        let inherited = self.live(task.status.ppid)?;
        self.set(views, task, inherited.key.clone());
        inherited.key
    }

    /// The processes that have records.
    pub fn processes(&self) -> Vec<u32> {
        self.records.iter().map(|record| *record.key()).collect()
    }

    /// All records, by process.
    pub fn all(&self) -> Vec<(u32, Option<String>)> {
        let mut all: Vec<_> = self
            .records
            .iter()
            .map(|record| {
                tape::label(record.process.as_fd(), || process_label(*record.key()));
                (*record.key(), record.value().key.as_deref().map(str::to_owned))
            })
            .collect();
        all.sort_unstable();
        all
    }

    /// Takes these records, whose processes are stand-ins, in place of all others. For a call that is played.
    pub fn replace(&self, directories: &[(u32, Option<String>)]) {
        self.records.clear();
        for (process, key) in directories {
            let Ok(fd) = tape::stand_in() else { continue };
            tape::label(fd.as_fd(), || process_label(*process));
            let key = key.as_deref().map(Into::into);
            self.records.insert(*process, Record { process: Arc::new(fd), key });
        }
    }

    fn live(&self, tgid: u32) -> Option<Record> {
        let record = self.records.get(&tgid)?.clone();
        if file::stat(Some(record.process.as_fd()), c"status", 0).is_ok() {
            return Some(record);
        }
        self.records.remove(&tgid);
        None
    }

    /// Records where the process of the task stands now; `None` for a directory the kernel knows.
    pub fn set(&self, views: &Views, task: &Task, key: Option<Arc<str>>) {
        if let Ok(process) = views.open_of(task.status.tgid, "") {
            self.records.insert(task.status.tgid, Record { process: Arc::new(process), key });
        }
    }
}
