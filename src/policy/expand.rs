//! Rows that follow from others: the files behind `[uname]` and `[machine]`, and one row for each CPU.

use std::collections::HashSet;

use super::diagnostic::{Report, Source};
use super::load::Merge;
use super::parse::parse;
use super::rows::describe;
use super::{Content, Policy, Row, What, When, builtin};
use crate::emulator::host::{self, OsHost};

/// Adds implied rows below all others, expands placeholders, and drops replaced rows.
pub(super) fn implied(mut merge: Merge, report: &mut Report) -> Policy {
    let policy = &mut merge.policy;
    let mut below = Vec::new();
    let uname = policy.uname.clone();
    if uname.files && uname.is_given() {
        let given = |provider: &str| match provider {
            "uname-sysname" => uname.sysname.is_some(),
            "uname-nodename" => uname.nodename.is_some(),
            "uname-release" => uname.release.is_some(),
            "uname-version" => uname.version.is_some(),
            "uname-machine" => uname.machine.is_some(),
            "uname-domainname" => uname.domainname.is_some(),
            _ => uname.sysname.is_some() || uname.release.is_some() || uname.version.is_some(),
        };
        below.extend(fragment("uname", report).into_iter().filter(|row| match &row.what {
            What::File { content: Content::Provider(provider), .. } => given(provider),
            _ => true,
        }));
    }
    if policy.machine.cpus.is_some() {
        below.extend(fragment("machine-cpus", report));
    }
    if policy.machine.memory.is_some() {
        below.extend(fragment("machine-memory", report));
    }
    let above = std::mem::take(&mut policy.rows);
    let mut merge = Merge::on(merge.policy);
    let machine = host::machine(&merge.policy, &OsHost);
    let host_cpus = host::machine(&Policy::default(), &OsHost).cpus;
    let mut implied = HashSet::new();
    for row in &below {
        for row in expanded(row, machine.cpus, host_cpus, report) {
            implied.insert(row.path.clone());
            merge.add_row(row);
        }
    }
    for row in above.into_iter().filter(|row| !row.path.is_empty()) {
        for row in expanded(&row, machine.cpus, host_cpus, report) {
            // What is said about a real object that is missing says nothing against a number that was given.
            if row.when == When::Always || !implied.contains(&row.path) {
                merge.add_row(row);
            }
        }
    }
    merge.policy.rows.retain(|row| !row.path.is_empty());
    merge.policy
}

fn fragment(name: &str, report: &mut Report) -> Vec<Row> {
    let text = builtin::text(name).unwrap_or_default();
    parse(&Source::new(&format!("policies/{name}.toml"), text.to_owned()), report).rows
}

/// A row for each CPU or node that its path names, with placeholders of its content replaced.
fn expanded(row: &Row, cpus: u32, host_cpus: u32, report: &mut Report) -> Vec<Row> {
    let numbers: Vec<(&str, u32)> = if row.path.contains("{cpu}") {
        (0..cpus).map(|cpu| ("{cpu}", cpu)).collect()
    } else if row.path.contains("{hidden-cpu}") {
        (cpus..host_cpus).map(|cpu| ("{hidden-cpu}", cpu)).collect()
    } else if row.path.contains("{node}") {
        vec![("{node}", 0)]
    } else {
        vec![("", 0)]
    };
    let mut with = |(placeholder, number): &(&str, u32)| {
        let replace = |text: &str| {
            let text = if placeholder.is_empty() {
                text.to_owned()
            } else {
                text.replace(placeholder, &number.to_string())
            };
            text.replace("{node}", "0")
        };
        let mut row = row.clone();
        row.path = replace(&row.path);
        match &mut row.what {
            What::File { content: Content::Fixed(bytes), codec, .. } => {
                if let Ok(text) = std::str::from_utf8(bytes)
                    && text.contains('{')
                {
                    let text = replace(text)
                        .replace("{cpus}", &cpus.to_string())
                        .replace("{cpu-last}", &(cpus - 1).to_string());
                    let shown = codec.as_ref().map_or(Ok(text.clone()), |codec| codec.canonical(&text));
                    match (shown, codec) {
                        (Err(_), Some(codec)) => {
                            let what = describe(codec);
                            report.add(
                                row.origin.clone(),
                                format!("\"{text}\" for {} is not {what}", row.path),
                            );
                        }
                        (shown, _) => *bytes = shown.unwrap_or(text).into(),
                    }
                }
            }
            What::Link { target } => *target = replace(target),
            _ => {}
        }
        row
    };
    numbers.iter().map(&mut with).collect()
}
