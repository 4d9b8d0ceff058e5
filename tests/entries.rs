//! What a trapped call costs in kernel entries of the supervisor: a number that does not wobble as times do.

mod common;

use std::io::Read;
use std::process::{Command, Stdio};

use common::{Run, Scratch, is_root, skip, sysemu_program, text_of};
use sysemu::emulator::stats::Verdict;
use sysemu::policy::Loader;
use sysemu::{StartOptions, Supervisor};

/// Calls and entries of one row and verdict in a run of the measured program, started by `starter`, with
/// `calls` calls.
fn run(starter: &[&str], kind: &str, calls: u32, row: &str, verdict: Verdict) -> (u64, u64) {
    let policy = Loader::new()
        .file("/proc/sys/kernel/sysemu_bench=12345")
        .uname_release("6.1.0-test")
        .load()
        .expect("a good policy");
    let supervisor = Supervisor::builder().policy(policy).build().expect("a supervisor");
    let calls = calls.to_string();
    let words = [starter, &[sysemu_program(), "bench-guest", kind, &calls]].concat();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).stdout(Stdio::piped());
    let mut running = supervisor.spawn(command, StartOptions::default()).expect("started");
    let mut report = String::new();
    let stdout = running.child().stdout.as_mut().expect("piped");
    stdout.read_to_string(&mut report).expect("read");
    assert!(running.wait().expect("waited").success(), "{report}");
    let engine = supervisor.engine();
    let index = engine.table.rows().position(|(syscall, _)| syscall.name == row).expect("an active row");
    let count = engine.stats.count(index, verdict);
    (count.calls, count.entries)
}

/// Entries for each further call: start-up costs are the same in both runs and cancel out.
fn entries_per_call(starter: &[&str], n: u32, kind: &str, row: &str, verdict: Verdict) -> f64 {
    let (calls_1, entries_1) = run(starter, kind, n, row, verdict);
    let (calls_2, entries_2) = run(starter, kind, 2 * n, row, verdict);
    assert!(calls_2 >= calls_1 + u64::from(n), "{kind}: {calls_1} and {calls_2} calls");
    (entries_2 as f64 - entries_1 as f64) / (calls_2 - calls_1) as f64
}

/// What is remembered is looked at anew a few times in a second, hence the small allowance.
#[track_caller]
fn assert_entries(kind: &str, row: &str, verdict: Verdict, expected: f64) {
    assert_near(kind, entries_per_call(&[], 3000, kind, row, verdict), expected);
}

#[track_caller]
fn assert_near(kind: &str, measured: f64, expected: f64) {
    let is_near = (measured - expected).abs() <= 0.05;
    assert!(is_near, "{kind}: {measured} entries for each call, expected {expected}");
}

#[test]
fn unrelated_absolute_path_takes_receive_read_send() {
    assert_entries("open", "openat", Verdict::Continue, 3.0);
}

#[test]
fn unrelated_absolute_path_not_seen_before_takes_one_look_more() {
    assert_entries("open-new", "openat", Verdict::Continue, 4.0);
}

#[test]
fn unrelated_relative_path_takes_one_look_more() {
    assert_entries("open-relative", "openat", Verdict::Continue, 4.0);
}

#[test]
fn paths_below_another_root_take_two_looks_more() {
    if !is_root() {
        return skip("paths_below_another_root_take_two_looks_more", "chroot(2) needs root");
    }
    let scratch = Scratch::new();
    let root = text_of(scratch.path());
    let mounts =
        format!("mount --bind / {root} && mount --bind /proc {root}/proc && exec chroot {root} \"$@\"");
    let starter = ["unshare", "-m", "sh", "-c", &mounts, "sh"];
    for (kind, row, verdict, expected) in [
        ("open", "openat", Verdict::Continue, 3.0),
        ("open-new", "openat", Verdict::Continue, 6.0),
        ("open-relative", "openat", Verdict::Continue, 6.0),
        ("stat-managed", "newfstatat", Verdict::Value, 5.0),
    ] {
        // For a moment after mount(2) and chroot(2) nothing is remembered, and that moment differs.
        assert_near(kind, entries_per_call(&starter, 40_000, kind, row, verdict), expected);
    }
}

#[test]
fn managed_stat_takes_receive_read_check_write_send() {
    assert_entries("stat-managed", "newfstatat", Verdict::Value, 5.0);
}

#[test]
fn managed_open_takes_receive_read_open_send_close() {
    assert_entries("read-managed", "openat", Verdict::Fd, 5.0);
}

#[test]
fn uname_takes_receive_personality_uname_check_write_send() {
    // The personality is a file: open, read, read to its end, close.
    assert_entries("uname", "uname", Verdict::Value, 9.0);
}

/// System calls that strace(1) counts in a run of the measured program under sysemu, all threads together; and
/// its report.
fn traced(kind: &str, calls: u32) -> (f64, String) {
    let scratch = Scratch::new();
    let log = text_of(&scratch.join("counts"));
    let run = Run::new(&[sysemu_program(), "bench-guest", kind, &calls.to_string()]).under(&[
        "--file",
        "/proc/sys/kernel/sysemu_bench=12345",
        "--uname-release",
        "6.1.0-test",
    ]);
    let mut words = vec!["strace", "-f", "-q", "-c", "-U", "calls,name", "-o", &log];
    words.extend(run.words());
    Run::new(&words).go().good();
    let counts = std::fs::read_to_string(&log).expect("written by strace");
    // Threads that sleep and wake each other (the log's by yielding) do so by the clock, not by the call; fcntl is
    // the standard library's own check, in debug builds, that what it closes was open.
    let not_counted = ["clock_nanosleep", "futex", "sched_yield", "restart_syscall", "fcntl", "total"];
    let row = |line: &str| {
        let (calls, name) = line.trim().split_once(char::is_whitespace)?;
        Some(calls.parse::<f64>().ok()?).filter(|_| !not_counted.contains(&name.trim()))
    };
    // Strace may say before its table that it left a process alone.
    let table = counts.lines().skip_while(|line| !line.starts_with("-----"));
    (table.filter_map(row).sum(), counts)
}

/// The counters above belong to sysemu; here the kernel's own view has to come to the same.
#[test]
fn strace_counts_the_same() {
    if !is_root() {
        return skip("strace_counts_the_same", "the FUSE carrier, whose threads are counted too, needs root");
    }
    const N: u32 = 400;
    // The guest warms up with a tenth of the calls.
    let rounds = f64::from(N) * 1.1;
    // What the program does in each round, and what sysemu does for it.
    for (kind, program, sysemu) in [
        ("open", 2.0, 3.0),
        ("open-new", 2.0, 4.0),
        ("open-relative", 2.0, 4.0),
        ("stat-managed", 1.0, 5.0),
        // FUSE: a request received and answered for each of open, read and release.
        ("read-managed", 3.0, 5.0 + 3.0 * 2.0),
        ("uname", 1.0, 9.0),
    ] {
        let (once, twice) = (traced(kind, N), traced(kind, 2 * N));
        let each = (twice.0 - once.0) / rounds - program;
        // Looking anew at what is remembered depends on how slow strace makes the run.
        assert!(
            (sysemu - 0.25..sysemu + 0.45).contains(&each),
            "{kind}: {each} entries for each round, expected {sysemu}\n{}\n{}",
            once.1,
            twice.1
        );
    }
}

#[test]
fn entries_do_not_depend_on_the_number_of_rows() {
    let mut text = String::from("schema = 1\n");
    for row in 0..100_000 {
        text.push_str(&format!(
            "[[sysctl]]\nkey = \"test.n{}.k{row}\"\nvalue = \"{row}\"\ntype = \"int\"\n",
            row % 300
        ));
    }
    let file = std::env::temp_dir().join(format!("sysemu-rows-{}.toml", std::process::id()));
    std::fs::write(&file, text).expect("written");
    let start = std::time::Instant::now();
    let policy = Loader::new().policy(file.to_string_lossy()).load();
    let loaded = start.elapsed();
    std::fs::remove_file(&file).expect("removed");
    let supervisor = Supervisor::builder().policy(policy.expect("good")).build().expect("a supervisor");
    let mut command = Command::new("cat");
    command.arg("/proc/sys/test/n7/k7").stdout(Stdio::piped());
    let mut running = supervisor.spawn(command, StartOptions::default()).expect("started");
    let mut text = String::new();
    running.child().stdout.as_mut().expect("piped").read_to_string(&mut text).expect("read");
    running.wait().expect("waited");
    assert_eq!(text, "7\n");
    let engine = supervisor.engine();
    let index = engine.table.rows().position(|(syscall, _)| syscall.name == "openat").expect("active");
    let count = engine.stats.count(index, Verdict::Fd);
    // A directory that exists only virtually is known from the tree alone.
    assert_eq!((count.calls, count.entries), (1, 5), "loaded in {loaded:?}");
}
