//! Rules of the code that the compiler does not check.

use std::fs;
use std::path::{Path, PathBuf};

fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut found);
    found.sort();
    found.into_iter().map(|path| (path.clone(), fs::read_to_string(&path).expect("text"))).collect()
}

fn all() -> Vec<(PathBuf, String)> {
    ["src", "tests", "fuzz/src", "fuzz/fuzz_targets", "fuzz/tests", "examples"]
        .into_iter()
        .flat_map(sources)
        .collect()
}

#[track_caller]
fn none(wrong: Vec<String>) {
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn mechanism_does_not_know_behaviour() {
    let uses = |text: &str| {
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        code.into_iter().any(|line| line.contains("crate::handlers") || line.contains("crate::launcher"))
    };
    let wrong = sources("src/emulator").into_iter().filter(|(_, text)| uses(text));
    none(wrong.map(|(path, _)| format!("{} uses a module above it", path.display())).collect());
}

#[test]
fn handlers_leave_writing_and_answering_to_the_engine() {
    let forbidden = ["sys::memory", "sys::seccomp", "emulator::backend", "emulator::engine"];
    let mut wrong = Vec::new();
    for (path, text) in sources("src/handlers") {
        for name in forbidden.into_iter().filter(|name| text.contains(name)) {
            wrong.push(format!("{} uses {name}", path.display()));
        }
    }
    none(wrong);
}

#[test]
fn unsafe_code_is_in_one_folder() {
    let is_unsafe = |line: &str| {
        let code = line.split("//").next().unwrap_or("");
        ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"].into_iter().any(|word| code.contains(word))
    };
    let mut wrong = Vec::new();
    for (path, text) in all() {
        if !path.to_string_lossy().contains("src/emulator/sys/") && !path.ends_with("tests/architecture.rs") {
            let lines = text.lines().enumerate().filter(|(_, line)| is_unsafe(line));
            wrong.extend(lines.map(|(number, _)| format!("{}:{}", path.display(), number + 1)));
        }
    }
    none(wrong);
}

#[test]
fn files_are_of_a_size_to_be_read_and_say_what_they_are() {
    let mut wrong = Vec::new();
    for (path, text) in all() {
        if text.lines().count() > 1000 {
            wrong.push(format!("{} has more than 1000 lines", path.display()));
        }
        if !text.starts_with("//!") {
            wrong.push(format!("{} does not begin with //!", path.display()));
        }
    }
    none(wrong);
}

#[test]
fn nothing_is_left_for_later() {
    let words = [
        concat!("to", "do!("),
        concat!("unimpl", "emented!("),
        concat!("FIX", "ME"),
        concat!("#[ig", "nore"),
    ];
    let mut wrong = Vec::new();
    for (path, text) in all() {
        wrong.extend(
            words
                .into_iter()
                .filter(|word| text.contains(word))
                .map(|word| format!("{}: {word}", path.display())),
        );
    }
    none(wrong);
}
