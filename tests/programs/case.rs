//! The table of cases, as `fixtures/programs.toml` spells it.

use std::collections::BTreeSet;

use serde::Deserialize;

/// All cases.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// Programs that must not notice sysemu.
    pub same: Vec<Same>,
    /// Programs that must notice the policy.
    pub shows: Vec<Shows>,
}

/// A script whose output does not depend on sysemu.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Same {
    /// Unique name.
    pub name: String,
    /// Commands that must be on the machine.
    #[serde(default)]
    pub needs: Vec<String>,
    /// Run by bash, `-eu -o pipefail`, in an empty folder.
    pub script: String,
    /// A `sed -E` script that takes out what differs between any two runs.
    #[serde(default)]
    pub normalise: String,
    /// Whether the order of lines depends on scheduling.
    #[serde(default)]
    pub order: Order,
    /// Only with `SYSEMU_LONG=1`.
    #[serde(default)]
    pub long: bool,
    /// It traces, which a program that is traced itself cannot: left out with the ptrace backend.
    #[serde(default)]
    pub traces: bool,
    /// Seconds after which the run counts as hung.
    #[serde(default = "sixty")]
    pub timeout: u64,
}

/// Whether lines are compared in order.
#[derive(Clone, Copy, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// As printed.
    #[default]
    Kept,
    /// Sorted first.
    Sorted,
}

/// A script whose output a policy decides.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shows {
    /// Unique name.
    pub name: String,
    /// Commands that must be on the machine.
    #[serde(default)]
    pub needs: Vec<String>,
    /// Arguments of sysemu before `--`.
    pub args: Vec<String>,
    /// Run by bash, `-eu -o pipefail`, in an empty folder.
    pub script: String,
    /// What it prints under the policy.
    pub stdout: String,
    /// A `sed -E` script that takes out what differs between any two runs.
    #[serde(default)]
    pub normalise: String,
    /// Only with `SYSEMU_LONG=1`.
    #[serde(default)]
    pub long: bool,
    /// Seconds after which the run counts as hung.
    #[serde(default = "sixty")]
    pub timeout: u64,
}

fn sixty() -> u64 {
    60
}

impl Table {
    /// Reads the table; a mistake in it ends the whole run.
    pub fn read(path: &str) -> Table {
        let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let table: Table = toml::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}"));
        let mut seen = BTreeSet::new();
        let names = table.same.iter().map(|case| &case.name).chain(table.shows.iter().map(|case| &case.name));
        for name in names {
            assert!(seen.insert(name), "{path}: two cases are called {name}");
        }
        table
    }
}
