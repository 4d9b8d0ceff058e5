//! `tree_ops`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use sysemu::emulator::tree::{Entry, Tree};
use sysemu::emulator::values::Values;
use sysemu::policy::{Content, Origin, Policy, Row, What};

use crate::input::Input;

const NAMES: [&str; 12] = ["proc", "sys", "net", "conf", "*", "self", "thread-self", "7", "42", "a", "b", ""];

fn path(input: &mut Input<'_>) -> Vec<&'static str> {
    let len = 1 + input.below(5);
    let name = |_| *input.one(&NAMES);
    (0..len).map(name).filter(|name| !name.is_empty()).collect()
}

fn text(path: &[&str]) -> String {
    path.iter().map(|name| format!("/{name}")).collect()
}

fn what(input: &mut Input<'_>, number: usize) -> What {
    match input.byte() % 4 {
        0 => What::Dir,
        1 => What::Absent,
        2 => What::Link { target: number.to_string() },
        _ => What::file(Content::Fixed(number.to_string().into_bytes().into())),
    }
}

/// Whether a component of a row matches one of a path, and whether only by `*`.
fn matches(pattern: &[&str], depth: usize, name: &str) -> Option<bool> {
    let is_process = depth == 1 && pattern[0] == "proc" && ["self", "thread-self", "*"].contains(&pattern[1]);
    if is_process {
        return name.bytes().all(|byte| byte.is_ascii_digit()).then_some(false);
    }
    match pattern[depth] {
        "*" => Some(true),
        exact => (exact == name).then_some(false),
    }
}

fn is_prefix(pattern: &[&str], path: &[&str]) -> bool {
    path.len() <= pattern.len()
        && path.iter().enumerate().all(|(depth, name)| matches(pattern, depth, name).is_some())
}

/// The tree against a list of rows that is searched from the start each time, and written values against a map.
pub fn tree_ops(data: &[u8]) {
    let mut input = Input(data);
    let mut rows: Vec<(Vec<&str>, Row)> = Vec::new();
    for number in 0..input.below(12) {
        let path = path(&mut input);
        if path.is_empty() {
            continue;
        }
        let row = Row::new(text(&path), what(&mut input, number), 0o644, Origin::synthetic("fuzz"));
        rows.push((path, row));
    }
    let policy = Policy { rows: rows.iter().map(|(_, row)| row.clone()).collect(), ..Policy::default() };
    let tree = Tree::build(&policy, Path::new("/nonexistent"));
    assert_eq!(tree.is_empty(), rows.is_empty());
    for _ in 0..32 {
        look_up(&tree, &rows, &path(&mut input));
    }
    values(&mut input);
}

fn look_up(tree: &Tree, rows: &[(Vec<&str>, Row)], path: &[&str]) {
    let key = text(path);
    let cursor = tree.at(&key);
    let on_the_way: Vec<&(Vec<&str>, Row)> =
        rows.iter().filter(|(pattern, _)| is_prefix(pattern, path)).collect();
    assert_eq!(cursor.is_empty(), !path.is_empty() && on_the_way.is_empty(), "{key}");
    // Of rows with one pattern the last counts, and so it does of rows that match by different patterns.
    let found = on_the_way.iter().rev().find(|(pattern, _)| pattern.len() == path.len()).map(|(_, row)| row);
    match (tree.entry(&cursor), found) {
        (Entry::Nothing, None) => assert!(on_the_way.is_empty(), "{key}"),
        (Entry::Dir(None), None) => assert!(!on_the_way.is_empty(), "{key}"),
        (
            Entry::Dir(Some(row)) | Entry::File(row) | Entry::Link(row) | Entry::Absent(row),
            Some(expected),
        ) => assert_eq!((&row.path, &row.what), (&expected.path, &expected.what), "{key}"),
        (entry, expected) => panic!("{key}: {entry:?}, expected {expected:?}"),
    }
    if let Some(file) = tree.certain_file(&key) {
        assert!(matches!(&found, Some(row) if row.what == file.what), "{key}");
    }
    let exact = |depth: usize| {
        on_the_way.iter().any(|(pattern, _)| matches(pattern, depth, path[depth]) == Some(false))
    };
    let is_wild = !path.is_empty() && !on_the_way.is_empty() && !exact(path.len() - 1);
    assert_eq!(cursor.is_wild_only(), is_wild, "{key}");
    let below = on_the_way.iter().filter(|(pattern, _)| pattern.len() > path.len());
    let names: BTreeSet<&str> = below
        .clone()
        .filter(|(pattern, _)| !is_process_pattern(pattern, path.len()) && pattern[path.len()] != "*")
        .map(|(pattern, _)| pattern[path.len()])
        .collect();
    assert_eq!(tree.names(&cursor).into_iter().collect::<BTreeSet<_>>(), names, "{key}");
    let is_any = |pattern: &[&str]| pattern[path.len()] == "*" && !is_process_pattern(pattern, path.len());
    assert_eq!(tree.has_wild_children(&cursor), below.clone().any(|(pattern, _)| is_any(pattern)), "{key}");
}

fn is_process_pattern(pattern: &[&str], depth: usize) -> bool {
    depth == 1 && pattern[0] == "proc" && ["self", "thread-self", "*"].contains(&pattern[1])
}

fn values(input: &mut Input<'_>) {
    let values = Values::default();
    let mut model = BTreeMap::new();
    while !input.is_empty() {
        let (key, scope) = (format!("/{}", input.one(&NAMES)), u64::from(input.byte() % 3));
        match input.byte() % 4 {
            0 => {
                values.forget(&key, scope);
                model.remove(&(key, scope));
            }
            1 => {
                let kept = values.all();
                let keys: BTreeSet<_> = kept.iter().map(|value| (value.key.clone(), value.scope)).collect();
                assert_eq!(keys, model.keys().cloned().collect());
                values.replace(kept);
            }
            _ => {
                let content = bytes::Bytes::copy_from_slice(&[input.byte()]);
                values.set(&key, scope, content.clone());
                model.insert((key, scope), content);
            }
        }
        for ((key, scope), content) in &model {
            assert_eq!(values.get(key, *scope).map(|(_, content)| content).as_ref(), Some(content));
        }
        assert_eq!(values.all().len(), model.len());
    }
}
