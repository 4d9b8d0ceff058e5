//! What is run: the table of cases that need nothing but packages, and those of test suites that somebody built.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::Deserialize;

use crate::formats::Format;

/// Where the table is.
const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/judges/cases.toml");

/// A policy under which a program is to see what it sees without.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// Every family of calls is trapped, nothing is virtual that a program asks for.
    TrapAll,
    /// Every file of the policy `linux` is virtual, with the real file's content.
    Mirror,
}

impl Policy {
    /// Its name in the table and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Policy::TrapAll => "trap-all",
            Policy::Mirror => "mirror",
        }
    }
}

/// A program with tests in it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// `judge::case`, unique.
    pub name: String,
    /// Run by `sh -eu` in an empty folder. `$JUDGES` is the folder of fixtures, `$PREPARED` one that lasts.
    pub script: String,
    /// Run once, before the first run and without sysemu: compiles what `script` runs.
    #[serde(default)]
    pub prepare: String,
    /// How it reports.
    pub format: Format,
    /// A file in the empty folder with the report, where that is not what it prints.
    #[serde(default)]
    pub report: Option<PathBuf>,
    /// Commands and files that must be on the machine.
    #[serde(default)]
    pub needs: Vec<String>,
    /// Under which policies it runs.
    #[serde(default = "trap_all")]
    pub policies: Vec<Policy>,
    /// Only with `SYSEMU_LONG=1`.
    #[serde(default)]
    pub long: bool,
    /// Seconds after which a run counts as hung.
    #[serde(default = "sixty")]
    pub limit: u64,
    /// Variables of its environment, besides those that all have.
    #[serde(default)]
    pub environment: Vec<(String, String)>,
}

fn trap_all() -> Vec<Policy> {
    vec![Policy::TrapAll]
}

fn sixty() -> u64 {
    60
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    case: Vec<Case>,
}

/// The table's cases, without the long ones unless they are asked for.
///
/// # Errors
///
/// The table cannot be read, or two cases have one name.
pub fn table(is_long: bool) -> Result<Vec<Case>, String> {
    let text = std::fs::read_to_string(TABLE).map_err(|error| format!("{TABLE}: {error}"))?;
    let table: Table = toml::from_str(&text).map_err(|error| format!("{TABLE}: {error}"))?;
    let mut seen = BTreeSet::new();
    if let Some(twice) = table.case.iter().find(|case| !seen.insert(&case.name)) {
        return Err(format!("{TABLE}: two cases are called {}", twice.name));
    }
    Ok(table.case.into_iter().filter(|case| is_long || !case.long).collect())
}
