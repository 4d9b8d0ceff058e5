//! sysctl.conf(5) to a policy.

use std::fmt::Write;

use super::builtin;
use super::diagnostic::{Report, Source};
use super::rows::{describe, sysctl_path};
use super::show;
use super::{Content, Row, What};
use crate::emulator::codec::Codec;

/// Converts the text of a sysctl.conf(5) file. Types and ranges come from the catalogue of Linux sysctls
/// where it knows the key. Lines that begin with `-` (errors ignored) are taken like others.
///
/// # Errors
/// Lines without `=`, bad keys, and values that the key cannot hold, all at once.
pub fn import(name: &str, text: String) -> Result<String, super::PolicyError> {
    let source = Source::new(name, text);
    let mut report = Report::default();
    let mut out = String::from("schema = 1\n");
    let _ = writeln!(out, "doc = {}", show::quoted(&format!("imported from {name}")));
    let mut rows = Vec::new();
    let mut at = 0;
    for line in source.text().split_inclusive('\n') {
        let span = at..at + line.len();
        at += line.len();
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        let origin = source.origin(&span);
        let assignment = line.strip_prefix('-').unwrap_or(line).split_once('=');
        // sysctl.d(5): a key alone behind `-` is left out of what globs set; it sets nothing itself.
        if line.starts_with('-') && assignment.is_none() {
            continue;
        }
        let Some((key, value)) = assignment else {
            report.add(origin, format!("\"{line}\" is no assignment; write KEY = VALUE"));
            continue;
        };
        let (key, value) = (key.trim(), value.trim());
        let path = match sysctl_path(key) {
            Ok(path) => path,
            Err(why) => {
                report.add(origin, format!("bad key \"{key}\": {why}"));
                continue;
            }
        };
        let empty = || What::file(Content::Fixed(Default::default()));
        let mut row = builtin::catalogue_row(&path)
            .unwrap_or_else(|| Row::new(path.as_str(), empty(), 0o644, origin.clone()));
        row.source = origin.to_string();
        if let What::File { content, codec, .. } = &mut row.what {
            let codec = codec.get_or_insert(Codec::Str { max: 4095 });
            match codec.canonical(value) {
                Ok(shown) => *content = Content::Fixed(shown.into()),
                Err(_) => {
                    report.add(origin, format!("\"{value}\" for {key} is not {}", describe(codec)));
                    continue;
                }
            }
        }
        // sysctl(8): the last value of a key counts.
        rows.retain(|other: &Row| other.path != row.path);
        rows.push(row);
    }
    for row in &rows {
        out.push('\n');
        out.push_str(&show::row(row));
    }
    report.finish(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imports_with_types_and_reports_all_mistakes() {
        let text = "# comment\n\nvm.swappiness = 10\n-net/ipv4/conf/eth0.1/rp_filter=2\nfoo.bar = baz\n";
        let toml = import("x.conf", text.into()).expect("imports");
        for part in ["key = \"vm.swappiness\"", "value = \"10\"", "type = \"int\"", "foo.bar", "baz"] {
            assert!(toml.contains(part), "{part} in\n{toml}");
        }
        let error = import("x.conf", "nonsense\nvm.swappiness = ten\n".into()).expect_err("two mistakes");
        assert_eq!(error.diagnostics.len(), 2);
        assert!(error.to_string().starts_with("x.conf:1:1:"), "{error}");
    }
}
