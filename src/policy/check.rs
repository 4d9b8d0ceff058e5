//! Contradictions between rows: within one file, and in the merged result.

use std::collections::HashMap;

use super::diagnostic::{Report, hint};
use super::parse::Document;
use super::{Content, Policy, Row, StatfsMatch, What, When};
use crate::emulator::provider::Providers;
use crate::emulator::store::BLOCKING;

/// Rows of one file that say two things about one path.
pub(super) fn document(document: &Document, report: &mut Report) {
    let mut seen: HashMap<(&str, When), &Row> = HashMap::new();
    for row in &document.rows {
        let other = seen.insert((&row.path, row.when), row).or_else(|| {
            // Hiding a path and giving it an object in one file cannot both be meant.
            let other = if row.when == When::Always { When::Missing } else { When::Always };
            let absent = |row: &Row| matches!(row.what, What::Absent);
            seen.get(&(row.path.as_str(), other)).copied().filter(|seen| absent(seen) || absent(row))
        });
        if let Some(other) = other {
            let message = format!("{} of \"{}\" contradicts {}", kind(row), row.path, place(other));
            report.add(row.origin.clone(), message);
        }
    }
    let mut roots: HashMap<&str, u32> = HashMap::new();
    for row in &document.stat {
        if let Some(line) = roots.insert(&row.path, row.origin.line) {
            let message = format!("second [[stat]] row for \"{}\"; the first is in line {line}", row.path);
            report.add(row.origin.clone(), message);
        }
    }
    let mut selectors: HashMap<&StatfsMatch, u32> = HashMap::new();
    for row in &document.statfs {
        if let Some(line) = selectors.insert(&row.from, row.origin.line) {
            let what = match &row.from {
                StatfsMatch::Path(path) => format!("path \"{path}\""),
                StatfsMatch::Type(magic) => format!("type {magic:#x}"),
            };
            report.add(
                row.origin.clone(),
                format!("second [[statfs]] row for {what}; the first is in line {line}"),
            );
        }
    }
}

fn kind(row: &Row) -> &'static str {
    match row.what {
        What::File { .. } => "this file row",
        What::Dir => "this directory row",
        What::Link { .. } => "this link row",
        What::Absent => "this absent row",
    }
}

fn place(row: &Row) -> String {
    format!("{} in {}", kind(row).replacen("this", "the", 1), row.origin)
}

/// The merged tree: a file or link with something below it, link loops, unknown providers.
pub(super) fn merged(policy: &Policy, providers: Option<&Providers>, report: &mut Report) {
    // The last row of a path counts, whatever its condition.
    let by_path: HashMap<&str, &Row> = policy.rows.iter().map(|row| (row.path.as_str(), row)).collect();
    let globs: Vec<&Row> = by_path.values().copied().filter(|row| row.path.contains('*')).collect();
    for row in policy.rows.iter().filter(|row| !matches!(row.what, What::Absent)) {
        let parents = row.path.match_indices('/').skip(1).map(|(at, _)| &row.path[..at]);
        let row_of = |path| {
            let exact = by_path.get(path).copied();
            exact.or_else(|| globs.iter().copied().find(|glob| matches_glob(&glob.path, path)))
        };
        let above = parents.filter_map(row_of).find(|above| !matches!(above.what, What::Dir));
        if let Some(above) = above.filter(|above| !matches!(above.what, What::Absent)) {
            let message = format!("\"{}\" is below {}, which is no directory", row.path, place(above));
            report.add(row.origin.clone(), message);
        }
        if let What::Link { .. } = &row.what
            && loops(row, &by_path)
        {
            report.add(row.origin.clone(), format!("link \"{}\" leads back to itself", row.path));
        }
        if let (Some(providers), What::File { content: Content::Provider(name), .. }) = (providers, &row.what)
            && name != BLOCKING
            && providers.get(name).is_none()
        {
            let near = hint(name, providers.iter().map(|(name, _)| name));
            let message = format!("unknown provider \"{name}\"{near}; `sysemu policy providers` lists them");
            report.add(row.origin.clone(), message);
        }
    }
}

/// Whether a row's path with `*` components is that of `path` too.
fn matches_glob(glob: &str, path: &str) -> bool {
    let (mut globs, mut names) = (glob.split('/'), path.split('/'));
    loop {
        match (globs.next(), names.next()) {
            (None, None) => return true,
            (Some(glob), Some(name)) if glob == "*" || glob == name => {}
            _ => return false,
        }
    }
}

/// Whether following links from a row, among links of the policy, comes back to it or never ends.
fn loops(row: &Row, by_path: &HashMap<&str, &Row>) -> bool {
    let mut at = row;
    for _ in 0..40 {
        let What::Link { target } = &at.what else { return false };
        let path = join(&at.path, target);
        match by_path.get(path.as_str()) {
            Some(next) => at = next,
            None => return false,
        }
    }
    true
}

/// The plain path that a link leads to, by its text alone.
fn join(link: &str, target: &str) -> String {
    let base = link.rsplit_once('/').map_or("", |(parent, _)| parent);
    let full = if target.starts_with('/') { target.to_owned() } else { format!("{base}/{target}") };
    let mut names: Vec<&str> = Vec::new();
    for name in full.split('/').filter(|name| !name.is_empty() && *name != ".") {
        if name == ".." {
            names.pop();
        } else {
            names.push(name);
        }
    }
    names.iter().fold(String::new(), |path, name| format!("{path}/{name}"))
}
