//! A policy whose files hold what the real ones hold: under it a program sees the emulation and no other values, so
//! that whatever differs is the emulation's own.

use std::fs;
use std::path::Path;

use super::{Content, Policy, Row, What, When};

/// A mirrored policy, and what could not be mirrored.
#[derive(Clone, Debug, Default)]
pub struct Mirror {
    /// Rows for files that exist here, all of them in force.
    pub policy: Policy,
    /// Rows whose type does not take the real file's own text, with that text: they are wrong.
    pub refused: Vec<(Row, String)>,
    /// Rows whose file exists and cannot be read (or is no text).
    pub unreadable: Vec<Row>,
    /// Rows without a real file.
    pub missing: usize,
}

/// Gives each file row of `policy` the content of the real file at its path; `*` stands for each entry that exists.
/// Rows whose content is computed keep their provider. All other parts of the policy are left out.
pub fn of(policy: &Policy) -> Mirror {
    let mut mirror = Mirror::default();
    mirror.policy.names = policy.names.clone();
    for row in &policy.rows {
        let What::File { content: Content::Fixed(_) | Content::Provider(_), .. } = &row.what else {
            continue;
        };
        let paths = existing(&row.path);
        mirror.missing += usize::from(paths.is_empty());
        for path in paths {
            let row = Row { path, when: When::Always, ..row.clone() };
            // A later row wins, as it does in the policy.
            mirror.policy.rows.retain(|other| other.path != row.path);
            mirror.add(row);
        }
    }
    mirror
}

impl Mirror {
    fn add(&mut self, mut row: Row) {
        let Ok(text) = fs::read_to_string(&row.path) else {
            self.unreadable.push(row);
            return;
        };
        let What::File { content, codec, .. } = &mut row.what else {
            return;
        };
        if let Some(codec) = codec
            && codec.canonical(&text).as_ref() != Ok(&text)
        {
            self.refused.push((row, text));
            return;
        }
        if let Content::Fixed(bytes) = content {
            *bytes = text.into();
        }
        self.policy.rows.push(row);
    }
}

/// The paths that exist for a pattern.
fn existing(pattern: &str) -> Vec<String> {
    let Some((before, after)) = pattern.split_once("/*") else {
        return if Path::new(pattern).exists() { vec![pattern.to_owned()] } else { Vec::new() };
    };
    let entries = fs::read_dir(before).into_iter().flatten().filter_map(Result::ok);
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names.iter().flat_map(|name| existing(&format!("{before}/{name}{after}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emulator::codec::Codec;
    use crate::policy::{Origin, Scope, WriteRule};

    fn file(path: &str, codec: Option<Codec>) -> Row {
        let content = Content::Fixed("invented\n".into());
        let (scope, write) = (Scope::Global, WriteRule::Keep);
        let what = What::File { content, codec, scope, write, rules: Default::default() };
        Row { when: When::Missing, ..Row::new(path, what, 0o644, Origin::synthetic("test")) }
    }

    #[test]
    fn files_that_exist_get_their_own_content() {
        let number = Codec::Int { min: 0, max: 1 };
        let rows = vec![
            file("/proc/sys/kernel/ostype", Some(Codec::Str { max: 64 })),
            file("/proc/sys/kernel/osrelease", Some(number)),
            file("/proc/sys/kernel/sysemu_missing", None),
            file("/proc/sys/net/ipv4/conf/*/tag", None),
            file("/proc/sys/kernel", None),
        ];
        let mirror = of(&Policy { rows, ..Policy::default() });
        let paths: Vec<&str> = mirror.policy.rows.iter().map(|row| row.path.as_str()).collect();
        assert!(
            paths.contains(&"/proc/sys/net/ipv4/conf/lo/tag") && paths.contains(&"/proc/sys/kernel/ostype")
        );
        assert!(mirror.policy.rows.iter().all(|row| row.when == When::Always));
        let What::File { content: Content::Fixed(text), .. } = &mirror.policy.rows[0].what else { panic!() };
        assert_eq!(&text[..], b"Linux\n");
        assert_eq!((mirror.missing, mirror.refused.len(), mirror.unreadable.len()), (1, 1, 1));
    }
}
