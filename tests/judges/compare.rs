//! What differs between bare and wrapped runs, and what of it is declared.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use serde::Deserialize;

use crate::case::Case;
use crate::formats::Results;
use crate::outside::matches;
use crate::run::{self, Mode, Setting};

/// Differences that are known and cannot be mended, with their reasons.
const DECLARED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/judges/declared.toml");

/// How often a case is run again, each way, when it differs.
const AGAIN: usize = 2;

/// A word for a result that a run has not.
const NONE: &str = "none";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    #[serde(default)]
    declared: Vec<Declared>,
}

/// A difference with its reason.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Declared {
    /// The name of a case; `*` stands for any text.
    case: String,
    /// Names of tests in it, in the same way.
    tests: Vec<String>,
    /// The backend; both when it is missing.
    backend: Option<String>,
    /// Why it is so.
    reason: String,
}

impl Declared {
    fn covers(&self, case: &str, mode: Mode, test: &str) -> bool {
        let is_mode = match (mode, &self.backend) {
            (Mode::Under(backend, _), Some(only)) => backend == only,
            _ => true,
        };
        is_mode && matches(&self.case, case) && self.tests.iter().any(|pattern| matches(pattern, test))
    }
}

/// What a difference turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Bare runs differ among themselves too.
    Wobbles,
    /// It is declared.
    Declared,
    /// It is sysemu's.
    Differs,
}

/// A test that did not give the same each time.
struct Difference {
    case: String,
    test: String,
    mode: Mode,
    bare: String,
    wrapped: String,
    kind: Kind,
    /// In how many wrapped runs it was so, and of how many.
    times: (usize, usize),
}

/// Of one judge: what was compared.
#[derive(Default)]
struct Count {
    cases: usize,
    results: usize,
    kinds: BTreeMap<Kind, BTreeSet<String>>,
}

/// All that was found.
pub struct Report {
    declared: Vec<Declared>,
    found: Mutex<(BTreeMap<String, Count>, Vec<Difference>)>,
}

impl Report {
    /// An empty one.
    ///
    /// # Errors
    ///
    /// The table of declared differences cannot be read.
    pub fn new() -> Result<Report, String> {
        let text = std::fs::read_to_string(DECLARED).map_err(|error| format!("{DECLARED}: {error}"))?;
        let table: Table = toml::from_str(&text).map_err(|error| format!("{DECLARED}: {error}"))?;
        Ok(Report { declared: table.declared, found: Mutex::default() })
    }

    /// Runs a case in all its ways and compares; fails when something undeclared differs.
    ///
    /// # Errors
    ///
    /// What differs, a line for each test.
    pub fn judge(&self, setting: &Setting, case: &Case) -> Result<(), String> {
        run::prepare(case)?;
        let mut bare = vec![run::once(setting, case, Mode::Bare)?];
        case.format.has_told(&bare[0]).map_err(|reason| format!("{}, bare: {reason}", case.name))?;
        let mut differences = Vec::new();
        for mode in Mode::wrapped(&case.policies) {
            differences.extend(self.compared(setting, case, mode, &mut bare)?);
        }
        let undeclared = differences.iter().filter(|one| one.kind == Kind::Differs);
        let failure: String = undeclared.map(|one| format!("{one}\n")).collect();
        let mut found = self.found.lock().map_err(|_| "another case panicked".to_owned())?;
        let judge = case.name.split("::").next().unwrap_or_default().to_owned();
        let count = found.0.entry(judge).or_default();
        count.cases += 1;
        count.results += bare[0].len();
        for one in &differences {
            count.kinds.entry(one.kind).or_default().insert(format!("{} {}", one.case, one.test));
        }
        found.1.extend(differences);
        if failure.is_empty() { Ok(()) } else { Err(failure) }
    }

    fn compared(
        &self,
        setting: &Setting,
        case: &Case,
        mode: Mode,
        bare: &mut Vec<Results>,
    ) -> Result<Vec<Difference>, String> {
        let mut wrapped = vec![run::once(setting, case, mode)?];
        let result =
            |results: &Results, test: &str| results.get(test).map_or(NONE, String::as_str).to_owned();
        let names: BTreeSet<String> = bare[0].keys().chain(wrapped[0].keys()).cloned().collect();
        let tests: Vec<String> =
            names.into_iter().filter(|test| result(&bare[0], test) != result(&wrapped[0], test)).collect();
        let declared = |test: &str| self.declared.iter().any(|one| one.covers(&case.name, mode, test));
        if !tests.iter().all(|test| declared(test)) {
            while bare.len() <= AGAIN {
                bare.push(run::once(setting, case, Mode::Bare)?);
            }
            while wrapped.len() <= AGAIN {
                wrapped.push(run::once(setting, case, mode)?);
            }
        }
        let kind = |test: &str| match () {
            () if bare.iter().any(|other| result(other, test) != result(&bare[0], test)) => Kind::Wobbles,
            () if declared(test) => Kind::Declared,
            () => Kind::Differs,
        };
        let difference = |test: &String| Difference {
            case: case.name.clone(),
            test: test.clone(),
            mode,
            bare: result(&bare[0], test),
            wrapped: result(&wrapped[0], test),
            kind: kind(test),
            times: (
                wrapped.iter().filter(|one| result(one, test) != result(&bare[0], test)).count(),
                wrapped.len(),
            ),
        };
        Ok(tests.iter().map(difference).collect())
    }

    /// Prints all differences and the counts.
    pub fn print(&self) {
        let Ok(found) = self.found.lock() else {
            return;
        };
        let (judges, differences) = &*found;
        for one in differences {
            println!("{one}");
        }
        let used = |one: &&Declared| {
            let is_shown = |other: &&Difference| other.kind == Kind::Declared;
            differences.iter().filter(is_shown).any(|other| one.covers(&other.case, other.mode, &other.test))
        };
        for one in self.declared.iter().filter(used) {
            println!("declared: {}: {}", one.case, one.reason);
        }
        for (judge, Count { cases, results, kinds }) in judges {
            let of = |kind| kinds.get(&kind).map_or(0, BTreeSet::len);
            println!(
                "judges: {judge}: {cases} cases with {results} results compared, {} differ, {} are declared, {} \
                 differ between bare runs",
                of(Kind::Differs),
                of(Kind::Declared),
                of(Kind::Wobbles),
            );
        }
    }
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Difference { case, test, mode, bare, wrapped, kind, times: (times, runs) } = self;
        let kind = match kind {
            Kind::Differs => "DIFFERS",
            Kind::Declared => "declared",
            Kind::Wobbles => "wobbles",
        };
        write!(f, "{kind:<8} {case} {test} ({mode}): {bare} -> {wrapped}, {times} of {runs} runs")
    }
}
