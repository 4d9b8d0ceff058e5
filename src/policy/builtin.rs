//! The policies of the `policies` folder, embedded.

use std::sync::OnceLock;

use super::diagnostic::{Report, Source};
use super::parse::parse;
use super::{Row, When};

macro_rules! embedded {
    ($($name:literal)*) => {
        &[$(($name, include_str!(concat!("../../policies/", $name, ".toml")))),*]
    };
}

/// Every built-in by name, with its text. Add a line for a new file; a test compares with the folder.
pub const NAMED: &[(&str, &str)] = embedded! {
    "containerd"
    "elasticsearch"
    "gvisor"
    "java"
    "k3s"
    "kubelet"
    "linux"
    "machine-cpus"
    "machine-memory"
    "postgres"
    "redis-server"
    "uname"
};

/// Policies that are not meant to be named by users: they follow from `[uname]` and `[machine]`.
pub fn is_fragment(name: &str) -> bool {
    matches!(name, "machine-cpus" | "machine-memory" | "uname")
}

/// The text of a built-in.
pub fn text(name: &str) -> Option<&'static str> {
    NAMED.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

/// The rows of a built-in that is known to be right; tests check them all.
pub(super) fn rows(name: &str) -> Vec<Row> {
    let source = Source::new(&format!("policies/{name}.toml"), text(name).unwrap_or_default().to_owned());
    parse(&source, &mut Report::default()).rows
}

/// What the catalogue of Linux sysctls says about a path: its type and range, for values given by hand.
pub(super) fn catalogue_row(path: &str) -> Option<Row> {
    static CATALOGUE: OnceLock<Vec<Row>> = OnceLock::new();
    let rows = CATALOGUE.get_or_init(|| rows("linux"));
    let row = rows.iter().rev().find(|row| matches(&row.path, path))?;
    Some(Row { path: path.to_owned(), when: When::Always, ..row.clone() })
}

fn matches(pattern: &str, path: &str) -> bool {
    let (mut pattern, mut path) = (pattern.split('/'), path.split('/'));
    loop {
        match (pattern.next(), path.next()) {
            (None, None) => return true,
            (Some("*"), Some(_)) => {}
            (Some(a), Some(b)) if a == b => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Loader;

    #[test]
    fn the_table_is_the_folder() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/policies");
        let mut names: Vec<String> = std::fs::read_dir(folder)
            .expect("policies")
            .filter_map(|entry| {
                entry.expect("entry").file_name().to_str()?.strip_suffix(".toml").map(str::to_owned)
            })
            .collect();
        names.sort_unstable();
        let table: Vec<&str> = NAMED.iter().map(|(name, _)| *name).collect();
        assert_eq!(table, names);
    }

    #[test]
    fn every_built_in_loads() {
        let providers = crate::handlers::providers::all();
        for (name, _) in NAMED {
            let loaded = Loader::new().providers(&providers).policy(*name).load();
            assert!(loaded.is_ok(), "{name}:\n{}", loaded.expect_err("checked"));
        }
    }

    #[test]
    fn catalogue_knows_per_interface_keys() {
        let row = catalogue_row("/proc/sys/net/ipv4/conf/eth7/rp_filter").expect("known");
        assert_eq!((row.path.as_str(), row.when), ("/proc/sys/net/ipv4/conf/eth7/rp_filter", When::Always));
    }
}
