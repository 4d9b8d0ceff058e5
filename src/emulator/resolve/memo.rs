//! Outcomes of walks of absolute paths, remembered for a short while.
//!
//! An outcome holds for the root directory and file system user it was found for, until something that can
//! change paths is let through (see [`super::view::Views::invalidate`]) or its lifetime is over.

use std::time::{Duration, Instant};

use dashmap::DashMap;

use super::task::Task;
use super::{Final, Query};
use crate::emulator::object::Object;

/// How long an outcome is believed.
const LIFETIME: Duration = Duration::from_millis(250);

/// Outcomes kept at most; when full, old ones go.
const CAPACITY: usize = 16384;

#[derive(PartialEq, Eq, Hash)]
struct Key {
    root: (u64, u64),
    uid: u32,
    last: Final,
    path: Box<[u8]>,
}

struct Outcome {
    seen: Instant,
    generation: u64,
    /// `None`: the kernel finds it.
    object: Option<Object>,
}

/// The memory.
#[derive(Default)]
pub struct Memo {
    outcomes: DashMap<Key, Outcome>,
}

fn key(task: &Task, query: &Query<'_>) -> Key {
    let root = &task.view.root_stat;
    Key { root: (root.mount, root.ino), uid: task.status.uid[3], last: query.last, path: query.path.into() }
}

impl Memo {
    /// What a walk would find: `Some(None)` is "the kernel finds it".
    pub fn get(&self, task: &Task, query: &Query<'_>, generation: u64) -> Option<Option<Object>> {
        let outcome = self.outcomes.get(&key(task, query))?;
        let is_fresh = outcome.generation == generation && outcome.seen.elapsed() < LIFETIME;
        is_fresh.then(|| outcome.object.clone())
    }

    /// Remembers what a walk found that began in this generation.
    pub fn put(&self, task: &Task, query: &Query<'_>, object: Option<Object>, generation: u64) {
        if self.outcomes.len() >= CAPACITY {
            self.outcomes.retain(|_, outcome| outcome.seen.elapsed() < LIFETIME);
            if self.outcomes.len() >= CAPACITY {
                self.outcomes.clear();
            }
        }
        self.outcomes.insert(key(task, query), Outcome { seen: Instant::now(), generation, object });
    }
}
