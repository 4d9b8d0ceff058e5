//! What the run came to: a line for each case, a column for each world, and below it what differs, with the reason.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};

use crate::world::World;

/// What a case came to in a world.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Results that were compared.
    pub compared: usize,
    /// Results that are not what bare Linux gives, and why that is so.
    pub different: Vec<(String, &'static str)>,
}

impl Tally {
    /// A case of one result, which is as on Linux.
    pub fn one() -> Self {
        Tally { compared: 1, different: Vec::new() }
    }

    /// A case of one result, which differs.
    pub fn differs(what: &str, reason: &'static str) -> Self {
        Tally { compared: 1, different: vec![(what.to_owned(), reason)] }
    }
}

enum Cell {
    Passed(Tally),
    Failed,
}

/// All cells, by case and world.
#[derive(Default)]
pub struct Table(Mutex<BTreeMap<(usize, &'static str), Cell>>);

/// How much of a difference is shown for its reason.
const EXAMPLE: usize = 120;

impl Table {
    /// Notes that a case has begun: it failed unless [`Table::passed`] says otherwise.
    pub fn begun(&self, case: usize, world: World) {
        self.put(case, world, Cell::Failed);
    }

    /// Notes what a case came to.
    pub fn passed(&self, case: usize, world: World, tally: Tally) {
        self.put(case, world, Cell::Passed(tally));
    }

    fn put(&self, case: usize, world: World, cell: Cell) {
        let mut cells = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        cells.insert((case, world.name()), cell);
    }

    /// The table for people. `missing` says which worlds could not be had.
    pub fn text(&self, cases: &[String], missing: &[(World, String)]) -> String {
        let cells = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::from(
            "conformance: results compared with bare Linux, by case and world\n\
             (-N: N of them differ, for the reasons below; . does not run there)\n\n",
        );
        let width = cases.iter().map(String::len).max().unwrap_or(0);
        let _ = write!(text, "{:width$}", "case");
        for world in World::ALL {
            let _ = write!(text, "  {:>11}", world.name());
        }
        text.push('\n');
        for (index, case) in cases.iter().enumerate() {
            let row: Vec<Option<&Cell>> =
                World::ALL.iter().map(|world| cells.get(&(index, world.name()))).collect();
            if row.iter().all(Option::is_none) {
                continue;
            }
            let _ = write!(text, "{case:width$}");
            for cell in row {
                let _ = write!(text, "  {:>11}", word(cell));
            }
            text.push('\n');
        }
        for (world, reason) in missing {
            let _ = writeln!(text, "{} is missing: {reason}", world.name());
        }
        text.push_str("\nwhat differs, why, and one of each:\n");
        text.push_str(&differences(cases, cells.iter()));
        text
    }
}

fn word(cell: Option<&Cell>) -> String {
    match cell {
        None => ".".into(),
        Some(Cell::Failed) => "FAILED".into(),
        Some(Cell::Passed(tally)) if tally.different.is_empty() => format!("ok {}", tally.compared),
        Some(Cell::Passed(tally)) => format!("ok {} -{}", tally.compared, tally.different.len()),
    }
}

/// For each reason: where it holds and how often, and one result.
fn differences<'c>(
    cases: &[String],
    cells: impl Iterator<Item = (&'c (usize, &'static str), &'c Cell)>,
) -> String {
    let mut by_reason: BTreeMap<&str, (BTreeMap<&str, usize>, String)> = BTreeMap::new();
    for ((case, world), cell) in cells {
        let Cell::Passed(tally) = cell else { continue };
        for (what, reason) in &tally.different {
            let case = &cases[*case];
            let example = if case.contains(what.as_str()) { case.clone() } else { format!("{case}: {what}") };
            let entry = by_reason.entry(reason).or_insert_with(|| (BTreeMap::new(), example));
            *entry.0.entry(world).or_default() += 1;
        }
    }
    let mut text = String::new();
    for (reason, (worlds, example)) in by_reason {
        let example: String = example.chars().take(EXAMPLE).collect();
        let worlds: Vec<String> = worlds.iter().map(|(world, count)| format!("{world} -{count}")).collect();
        let _ = writeln!(text, "  {reason}\n    {}\n    {example}", worlds.join(", "));
    }
    text
}
