//! What trapped calls cost inside gVisor: that `sysemu bench` measures it, and the counts behind it.

use libtest_mimic::Trial;
use serde_json::Value;

use crate::common::Outcome;
use crate::common::gvisor::{Sandbox, Setup, Version};
use crate::versions;

pub fn cases() -> Vec<Trial> {
    let mut trials = versions("bench", bench);
    trials.extend(versions("bench_as_text", bench_as_text));
    trials.extend(versions("counts", counts));
    trials.extend(versions("looks_at_descriptors", looks_at_descriptors));
    trials
}

/// The measured rows, each with whether it is compared with a floor.
const ROWS: [(&str, bool); 15] = [
    ("native open", false),
    ("native stat", false),
    ("native procfs open+read+close", false),
    ("native uname", false),
    ("native getpid", false),
    ("traced, not selected: open+read+close", true),
    ("traced, not selected: getpid", true),
    ("RET_TRACE echo (Continue)", true),
    ("RET_TRACE echo (value)", true),
    ("RET_TRACE echo (value, stored)", true),
    ("sysemu, ptrace: unrelated open", true),
    ("sysemu, ptrace: managed stat", true),
    ("sysemu, ptrace: managed open+read+close", true),
    ("sysemu, ptrace: uname", true),
    ("sysemu, ptrace: untrapped getpid", true),
];

/// What is said about the rows that are missing.
const NOTE: &str = "sysemu: no seccomp user notification here: ptrace alone is measured, on any CPU (gVisor keeps to none)\n";

fn bench(setup: Setup) {
    let words = ["sysemu", "bench", "--calls", "20", "--format", "json"];
    let outcome = Sandbox::new(setup).command(&words).go();
    assert_eq!((outcome.stderr.as_str(), outcome.status), (NOTE, 0), "{}", outcome.stdout);
    let report: Value = serde_json::from_str(&outcome.stdout).expect("JSON");
    let [placement] = &report.as_array().expect("an array")[..] else { panic!("{report}") };
    assert_eq!(placement["placement"], "unpinned");
    let lines = placement["lines"].as_array().expect("an array");
    let rows: Vec<(&str, bool)> = lines
        .iter()
        .map(|line| (line["name"].as_str().expect("text"), line["ratio"].as_f64().is_some()))
        .collect();
    assert_eq!(rows, ROWS);
    for line in lines {
        let times = (line["p50_ns"].as_u64(), line["p99_ns"].as_u64());
        assert!(times.0 > Some(0) && times.1 >= times.0, "{line}");
    }
}

fn bench_as_text(setup: Setup) {
    let outcome = Sandbox::new(setup).command(&["sysemu", "bench", "--calls", "20"]).go();
    assert_eq!((outcome.stderr.as_str(), outcome.status), (NOTE, 0), "{}", outcome.stdout);
    let lines: Vec<&str> = outcome.stdout.lines().skip(2).collect();
    assert_eq!(lines.len(), ROWS.len(), "{}", outcome.stdout);
    for (line, (name, is_compared)) in lines.iter().zip(ROWS) {
        assert!(line.starts_with(name), "{line}");
        assert_eq!(line.contains(" x "), is_compared, "{line}");
    }
}

/// Calls, kernel entries and stops of a run of the measured program.
fn spent(setup: Setup, kind: &str, calls: u32) -> [u64; 3] {
    let calls = calls.to_string();
    let words = [
        "sysemu",
        "--no-auto",
        "--file",
        "/proc/sys/kernel/sysemu_bench=12345",
        "--uname-release",
        "6.1.0-test",
        "--summary",
        "--",
        "sysemu",
        "bench-guest",
        kind,
        &calls,
    ];
    summary(&Sandbox::new(setup).command(&words).go())
}

/// Calls, kernel entries and stops that `--summary` tells.
fn summary(outcome: &Outcome) -> [u64; 3] {
    let summary = outcome.stderr.lines().find(|line| line.contains(" kernel entries, ")).unwrap_or_default();
    let words: Vec<&str> = summary.split_whitespace().collect();
    let before = |what: &str| {
        let at = words.iter().position(|word| *word == what).unwrap_or_else(|| panic!("{outcome:?}"));
        words[at - 1].parse().unwrap_or_else(|_| panic!("{outcome:?}"))
    };
    [before("calls:"), before("kernel"), before("stops")]
}

/// Stops are what costs most here, and they are as many as on bare Linux. Kernel entries are three more, which make gVisor
/// look for signals; the personality has no file here; in 2022 memory is read through procfs and written word by word.
fn counts(setup: Setup) {
    let (stat, open, uname) = match setup.version {
        Version::V2024 | Version::V2026 => (9.0, 19.0, 10.0),
        Version::V2022 => (27.0, 23.0, 59.0),
    };
    for (kind, stops, entries) in
        [("stat-managed", 1, stat), ("read-managed", 2, open), ("uname", 1, uname), ("getpid", 0, 0.0)]
    {
        // The guest warms up with a tenth of the calls.
        const N: u32 = 200;
        const MORE: u64 = 220;
        let (once, twice) = (spent(setup, kind, N), spent(setup, kind, 2 * N));
        let [calls, more_entries, more_stops] = [0, 1, 2].map(|at| twice[at] - once[at]);
        assert_eq!(calls, if stops == 0 { 0 } else { MORE }, "{kind}");
        assert_eq!(more_stops, stops * MORE, "{kind}");
        // What is remembered is looked at anew a few times in a second, others that may have stopped now and then.
        let each = more_entries as f64 / MORE as f64;
        assert!((each - entries).abs() < 0.6, "{kind}: {each} entries, expected {entries}");
    }
}

/// The policy `gvisor` tells the inode of procfs's root directory. Looks at descriptors stop only for that, and only in a
/// program that opened one.
fn looks_at_descriptors(setup: Setup) {
    let stops = |opened: &str, looks: u32| {
        let script = format!(
            "import os; fd = os.open('{opened}', os.O_PATH)\nfor _ in range({looks}): os.fstat(0), os.stat(fd)"
        );
        let words = ["sysemu", "--no-auto", "-p", "gvisor", "--summary", "--", "python3", "-c", &script];
        let [_, _, stops] = summary(&Sandbox::new(setup).command(&words).go());
        stops
    };
    let more = |opened| stops(opened, 120).abs_diff(stops(opened, 20));
    assert_eq!(more("/proc/sys"), 0);
    let each = if setup.version == Version::V2026 { 0 } else { 2 };
    assert_eq!(more("/proc"), 100 * each);
}
