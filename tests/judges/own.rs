//! Whether this suite would notice: a program that sees sysemu, and the reports of each kind of program.

use crate::case::{Case, Policy};
use crate::compare::Report;
use crate::formats::{EXIT, Format};
use crate::run::Setting;

/// A program whose first test fails under any filter, and whose second one has the same result always.
const SEES_FILTERS: &str =
    "if grep -q 'Seccomp:.0' /proc/self/status; then echo ok 1; else echo not ok 1; fi; echo ok 2";

/// Lines of programs, and the results in them.
const LINES: [(Format, &str, &str, &str); 10] = [
    (Format::Ltp, "open01.c:59: TPASS: sticky bit is set as expected", "open01.c:59", "TPASS"),
    (Format::Ltp, "fs_perms    1  TFAIL  :  fs_perms.c:1: text", "fs_perms 1", "TFAIL"),
    (Format::Tap, "ok 3", "3", "ok"),
    (Format::Tap, "not ok 4 - tried 'open a', expected 0, got ENOENT", "4", "not ok"),
    (Format::Tap, "not ok 5 global.filter_size", "5 global.filter_size", "not ok"),
    (Format::Tap, "ok 6 # SKIP not here", "6", "skipped"),
    (Format::Unittest, "test.test_os.A.test_b\tskipped", "test.test_os.A.test_b", "skipped"),
    (Format::Go, "    --- FAIL: TestOpen/sub (0.01s)", "TestOpen/sub", "FAIL"),
    (Format::StressNg, "stress-ng: fail:  [12] open: got 7", "open", "got 7"),
    (Format::Status, "ok 1", EXIT, "0"),
];

/// Lines are read as what they say.
///
/// # Errors
///
/// A line that is not.
pub fn reads_reports() -> Result<(), String> {
    for (format, line, test, word) in LINES {
        let results = format.read(line, "0");
        if results.get(test).map(String::as_str) != Some(word) {
            return Err(format!("{format:?} reads {line:?} as {results:?}"));
        }
    }
    let twice = Format::Ltp.read("a.c:1: TPASS: x\na.c:1: TPASS: y\na.c:1: TFAIL: z", "1");
    if twice.get("a.c:1").map(String::as_str) != Some("TFAIL, 2 TPASS") {
        return Err(format!("results of one line are not counted: {twice:?}"));
    }
    Ok(())
}

/// A difference is found with both backends, and nothing else with it.
///
/// # Errors
///
/// What was found in its place.
pub fn finds_differences(setting: &Setting) -> Result<(), String> {
    let case = Case {
        name: "own::sees_filters".to_owned(),
        script: SEES_FILTERS.to_owned(),
        prepare: String::new(),
        format: Format::Tap,
        report: None,
        needs: Vec::new(),
        policies: vec![Policy::TrapAll],
        long: false,
        limit: 60,
        environment: Vec::new(),
    };
    let found = Report::new()?.judge(setting, &case).err().unwrap_or_default();
    let wanted = "DIFFERS  own::sees_filters 1 (notify trap-all): ok -> not ok, 3 of 3 runs\n\
                  DIFFERS  own::sees_filters 1 (ptrace trap-all): ok -> not ok, 3 of 3 runs\n";
    if found == wanted { Ok(()) } else { Err(format!("found: {found}")) }
}
