//! The cases of test suites that whoever runs them has built: LTP, the kernel's selftests, pjdfstest.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::case::{Case, Policy};
use crate::formats::Format;

/// What is not run, and why.
const LEFT_OUT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/judges/left-out.toml");

/// Cases of LTP's list `fs` that look at procfs and sysfs.
const LTP_FS: [&str; 3] = ["proc01", "read_all_proc", "read_all_sys"];

/// The kernel's selftests that are run.
const SELFTESTS: [&str; 3] = ["seccomp", "openat2", "proc"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LeftOut {
    left_out: Vec<Group>,
}

/// Cases that are left out for one reason.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    /// Names of cases; `*` stands for any text.
    cases: Vec<String>,
    /// Why; for the reader.
    #[serde(rename = "reason")]
    _reason: String,
}

/// The cases of the suites whose variables are set.
///
/// # Errors
///
/// A folder has not what such a suite has.
pub fn cases() -> Result<Vec<Case>, String> {
    let mut cases = Vec::new();
    for (variable, list) in [
        ("LTPROOT", ltp as fn(&Path) -> Result<Vec<Case>, String>),
        ("KSELFTESTS", selftests),
        ("PJDFSTEST", pjdfstest),
    ] {
        let Some(folder) = std::env::var_os(variable) else {
            continue;
        };
        let folder = PathBuf::from(folder);
        let folder =
            folder.canonicalize().map_err(|error| format!("{variable}={}: {error}", folder.display()))?;
        cases.extend(list(&folder).map_err(|error| format!("{variable}: {error}"))?);
    }
    let text = fs::read_to_string(LEFT_OUT).map_err(|error| format!("{LEFT_OUT}: {error}"))?;
    let table: LeftOut = toml::from_str(&text).map_err(|error| format!("{LEFT_OUT}: {error}"))?;
    let patterns: Vec<&String> = table.left_out.iter().flat_map(|group| &group.cases).collect();
    cases.retain(|case| !patterns.iter().any(|pattern| matches(pattern, &case.name)));
    Ok(cases)
}

/// Whether a name is one that a pattern with `*` stands for.
pub fn matches(pattern: &str, name: &str) -> bool {
    let Some((head, tail)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let Some(rest) = name.strip_prefix(head) else {
        return false;
    };
    (0..=rest.len()).filter(|&at| rest.is_char_boundary(at)).any(|at| matches(tail, &rest[at..]))
}

fn ltp(root: &Path) -> Result<Vec<Case>, String> {
    let read = |list: &str| {
        let path = root.join("runtest").join(list);
        fs::read_to_string(&path)
            .map_err(|error| format!("{}: {error} (LTP is to be installed)", path.display()))
    };
    let mut cases = Vec::new();
    for list in ["syscalls", "fs_perms_simple"] {
        let text = read(list)?;
        cases.extend(lines(&text).map(|(name, script)| ltp_case(root, list, name, script)));
    }
    let text = read("fs")?;
    for (name, script) in lines(&text).filter(|(name, _)| LTP_FS.contains(name)) {
        let mut case = ltp_case(root, "fs", name, script);
        case.policies = vec![Policy::TrapAll, Policy::Mirror];
        case.limit = 300;
        cases.push(case);
    }
    Ok(cases)
}

/// Name and command of each line of a list of LTP's.
fn lines(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once([' ', '\t']))
}

fn ltp_case(root: &Path, list: &str, name: &str, script: &str) -> Case {
    let bin = root.join("testcases/bin");
    let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let script = format!("PATH=$PATH:{}\n{}", bin.display(), script.trim());
    let mut case = case(format!("ltp::{list}::{name}"), script, Format::Ltp, 120);
    case.environment = vec![
        variable("LTPROOT", &root.to_string_lossy()),
        variable("LTP_COLORIZE_OUTPUT", "n"),
        // How the kernel was built is written down on few machines; a test that needs more finds out by itself.
        variable("KCONFIG_SKIP_CHECK", "1"),
        // One file system instead of each that the machine has.
        variable("LTP_SINGLE_FS_TYPE", "tmpfs"),
        // Two runs at a time make tests slow.
        variable("LTP_TIMEOUT_MUL", "2"),
    ];
    case
}

fn case(name: String, script: String, format: Format, limit: u64) -> Case {
    Case {
        name,
        script,
        prepare: String::new(),
        format,
        report: None,
        needs: Vec::new(),
        policies: vec![Policy::TrapAll],
        long: true,
        limit,
        environment: Vec::new(),
    }
}

fn selftests(root: &Path) -> Result<Vec<Case>, String> {
    let mut cases = Vec::new();
    for folder in SELFTESTS {
        let inside = root.join(folder);
        for program in programs(&inside)? {
            let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let script = format!("cd {}\n./{name}", inside.display());
            // rename_attack_test makes 800000 calls that sysemu has to look at.
            let limit = if folder == "openat2" { 1200 } else { 300 };
            let mut case = case(format!("selftests::{folder}::{name}"), script, Format::Tap, limit);
            case.policies = vec![Policy::TrapAll, Policy::Mirror];
            // The leak check that some are compiled with cannot work under a tracer, and then ends them before they have
            // written what they found.
            case.environment = vec![("ASAN_OPTIONS".into(), "detect_leaks=0".into())];
            cases.push(case);
        }
    }
    if cases.is_empty() {
        return Err(format!("{}: none of {SELFTESTS:?} has been built", root.display()));
    }
    Ok(cases)
}

/// The programs of a folder: files that can be executed and are no scripts.
fn programs(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let is_executable =
            path.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0);
        if is_executable && fs::read(&path).is_ok_and(|bytes| bytes.starts_with(b"\x7fELF")) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn pjdfstest(root: &Path) -> Result<Vec<Case>, String> {
    let failed = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
    if !root.join("pjdfstest").is_file() {
        return Err(format!("{}: there is no pjdfstest in it: build it there", root.display()));
    }
    let tests = root.join("tests");
    let mut cases = Vec::new();
    for folder in fs::read_dir(&tests).map_err(|error| failed(&tests, error))? {
        let folder = folder.map_err(|error| failed(&tests, error))?.path();
        for script in fs::read_dir(&folder).into_iter().flatten() {
            let script = script.map_err(|error| failed(&folder, error))?.path();
            if script.extension().is_none_or(|extension| extension != "t") {
                continue;
            }
            let stem = |path: &Path| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let name = format!("pjdfstest::{}::{}", stem(&folder), stem(&script));
            cases.push(case(name, format!("sh {}", script.display()), Format::Tap, 300));
        }
    }
    cases.sort_by(|left, right| left.name.cmp(&right.name));
    Ok(cases)
}
