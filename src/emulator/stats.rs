//! Counters: what the calls of a run came to, and what they cost in kernel entries and stops.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;

use super::sys::Spent;

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verdict {
    /// Let through.
    Continue,
    /// Answered with a value.
    Value,
    /// Answered with an errno.
    Errno,
    /// Answered with a descriptor.
    Fd,
    /// The supervisor failed; answered as the policy says.
    Fault,
    /// The caller was gone before the answer.
    Gone,
}

impl Verdict {
    /// All, in the order of reports.
    pub const ALL: [Verdict; 6] =
        [Verdict::Continue, Verdict::Value, Verdict::Errno, Verdict::Fd, Verdict::Fault, Verdict::Gone];

    /// Name for logs.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Continue => "continue",
            Verdict::Value => "value",
            Verdict::Errno => "errno",
            Verdict::Fd => "fd",
            Verdict::Fault => "fault",
            Verdict::Gone => "gone",
        }
    }
}

/// Calls of one kind and what was spent on them.
#[derive(Debug, Default)]
struct Cell {
    calls: AtomicU64,
    entries: AtomicU64,
    stops: AtomicU64,
}

/// Most paths kept for the summary.
const MISSED: usize = 1000;

/// Counters of a run.
#[derive(Debug, Default)]
pub struct Stats {
    cells: Vec<[Cell; Verdict::ALL.len()]>,
    missed: DashMap<Vec<u8>, u64>,
    interrupted: AtomicU64,
}

/// One line of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// Calls.
    pub calls: u64,
    /// Kernel entries of the supervisor, receive and answer included.
    pub entries: u64,
    /// Stops of the program under the ptrace backend.
    pub stops: u64,
}

impl Stats {
    /// Counters for this many rows.
    pub fn new(rows: usize) -> Self {
        let mut cells = Vec::new();
        cells.resize_with(rows, Default::default);
        Stats { cells, missed: DashMap::new(), interrupted: AtomicU64::new(0) }
    }

    /// Counts a call of a row.
    pub fn add(&self, row: usize, verdict: Verdict, spent: Spent) {
        let cell = &self.cells[row][verdict as usize];
        cell.calls.fetch_add(1, Ordering::Relaxed);
        cell.entries.fetch_add(spent.entries, Ordering::Relaxed);
        cell.stops.fetch_add(spent.stops, Ordering::Relaxed);
    }

    /// Counts a call that a signal took back before it was received, or a receiver that was interrupted.
    pub fn add_interrupted(&self) {
        self.interrupted.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes a path below the managed prefixes that no row owned.
    pub fn add_missed(&self, path: &[u8]) {
        if let Some(mut count) = self.missed.get_mut(path) {
            *count += 1;
        } else if self.missed.len() < MISSED {
            self.missed.insert(path.to_vec(), 1);
        }
    }

    /// Counts of one row and verdict.
    pub fn count(&self, row: usize, verdict: Verdict) -> Count {
        let cell = &self.cells[row][verdict as usize];
        let [calls, entries, stops] =
            [&cell.calls, &cell.entries, &cell.stops].map(|counter| counter.load(Ordering::Relaxed));
        Count { calls, entries, stops }
    }

    /// Calls by verdict.
    pub fn by_verdict(&self) -> BTreeMap<Verdict, u64> {
        let sum = |verdict| (0..self.cells.len()).map(|row| self.count(row, verdict).calls).sum();
        Verdict::ALL.into_iter().map(|verdict| (verdict, sum(verdict))).collect()
    }

    /// Notifications that a signal took back.
    pub fn interrupted(&self) -> u64 {
        self.interrupted.load(Ordering::Relaxed)
    }

    /// Paths that no row owned with how often they were asked for, most often first.
    pub fn missed(&self) -> Vec<(String, u64)> {
        let text = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
        let mut missed: Vec<_> =
            self.missed.iter().map(|entry| (text(entry.key()), *entry.value())).collect();
        missed.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        missed
    }
}
