//! What a trapped call costs in kernel entries of the supervisor and in stops of the program: numbers that do not
//! wobble as times do.

mod common;

use std::io::Read;
use std::process::{Command, Stdio};

use common::{Run, Scratch, is_root, skip, sysemu_program, text_of};
use sysemu::emulator::backend::BackendChoice;
use sysemu::emulator::stats::{Count, Verdict};
use sysemu::policy::Loader;
use sysemu::{StartOptions, Supervisor};

/// What one row and verdict came to in a run of the measured program with `calls` calls, started by `starter`; and
/// the stops of all rows.
fn run(backend: BackendChoice, starter: &[&str], kind: &str, calls: u32, of: Of) -> (Count, u64) {
    let policy = Loader::new()
        .file("/proc/sys/kernel/sysemu_bench=12345")
        .uname_release("6.1.0-test")
        .load()
        .expect("a good policy");
    let supervisor = Supervisor::builder().policy(policy).backend(backend).build().expect("a supervisor");
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
    let index = engine.table.rows().position(|(syscall, _)| syscall.name == of.row).expect("an active row");
    let rows = 0..engine.table.rows().count();
    let stops = rows.flat_map(|row| Verdict::ALL.map(|verdict| engine.stats.count(row, verdict).stops)).sum();
    (engine.stats.count(index, of.verdict), stops)
}

/// Which calls are looked at.
#[derive(Clone, Copy)]
struct Of {
    row: &'static str,
    verdict: Verdict,
}

/// Entries and stops for each further call: start-up costs are the same in both runs and cancel out.
fn per_call(backend: BackendChoice, starter: &[&str], n: u32, kind: &str, of: Of) -> (f64, f64) {
    let (once, _) = run(backend, starter, kind, n, of);
    let (twice, _) = run(backend, starter, kind, 2 * n, of);
    assert!(twice.calls >= once.calls + u64::from(n), "{kind}: {} and {} calls", once.calls, twice.calls);
    let calls = (twice.calls - once.calls) as f64;
    let each = |once: u64, twice: u64| (twice as f64 - once as f64) / calls;
    (each(once.entries, twice.entries), each(once.stops, twice.stops))
}

/// What is remembered is looked at anew a few times in a second, hence the small allowance.
#[track_caller]
fn assert_entries(kind: &str, row: &'static str, verdict: Verdict, expected: f64) {
    let (entries, stops) = per_call(BackendChoice::Notify, &[], 3000, kind, Of { row, verdict });
    assert_near(kind, entries, expected);
    assert_eq!(stops, 0.0, "{kind}");
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
        let (entries, _) = per_call(BackendChoice::Notify, &starter, 40_000, kind, Of { row, verdict });
        assert_near(kind, entries, expected);
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

/// The first of sixteen calls of a program that stops alone also pays for the look whether others have stopped.
const LOOK_FOR_OTHERS: f64 = 1.0 / 16.0;

/// With the ptrace backend.
#[track_caller]
fn assert_traced(kind: &str, row: &'static str, verdict: Verdict, entries: f64, stops: f64) {
    let measured = per_call(BackendChoice::Ptrace, &[], 3000, kind, Of { row, verdict });
    assert_near(kind, measured.0, entries + LOOK_FOR_OTHERS);
    assert_eq!(measured.1, stops, "{kind}");
}

#[test]
fn traced_unrelated_path_takes_wait_registers_read_resume() {
    assert_traced("open", "openat", Verdict::Continue, 4.0, 1.0);
    assert_traced("open-new", "openat", Verdict::Continue, 5.0, 1.0);
    assert_traced("open-relative", "openat", Verdict::Continue, 5.0, 1.0);
}

#[test]
fn traced_managed_stat_takes_wait_registers_read_write_registers_resume() {
    assert_traced("stat-managed", "newfstatat", Verdict::Value, 6.0, 1.0);
}

#[test]
fn traced_managed_open_stops_twice_and_its_read_and_close_never() {
    // Wait, registers, read, open; signal mask got and set, the gadget found, path written, registers, resume; wait,
    // registers, two looks whether the right file was opened; registers, signal mask, resume; close. One
    // more look tells whether the file is open for writing.
    assert_traced("read-managed", "openat", Verdict::Fd, 19.0, 2.0);
}

#[test]
fn traced_uname_stops_once() {
    // As with notification: four for the personality, one for the names.
    assert_traced("uname", "uname", Verdict::Value, 10.0, 1.0);
}

/// The kernel sends SIGCHLD for each stop, which must not concern the thread that waits for the program's end.
#[test]
fn stops_wake_nobody_but_the_tracer() {
    let script = r#"sleeper=$(sed -n 's/^TracerPid:\t//p' /proc/self/status)
sleeper=$(sed -n 's/^Tgid:\t//p' /proc/$sleeper/status)
switches() { awk '/ctxt_switches/ {sum += $2} END {print sum}' /proc/$sleeper/task/$sleeper/status; }
before=$(switches)
"$0" bench-guest stat-managed 20000 >/dev/null
echo $(($(switches) - before))"#;
    let run = Run::new(&["sh", "-eu", "-c", script, sysemu_program()]);
    let row = ["--no-auto", "--file", "/proc/sys/kernel/sysemu_bench=12345"];
    let words = [&row[..], &["--backend", "ptrace"]].concat();
    let switches: u32 = run.under(&words).go().good().trim().parse().expect("a number");
    assert!(switches < 200, "{switches} context switches of the main thread in 20000 stops");
}

#[test]
fn a_traced_program_does_not_stop_at_calls_that_nobody_selected() {
    let of = Of { row: "openat", verdict: Verdict::Continue };
    let (_, once) = run(BackendChoice::Ptrace, &[], "getpid", 1000, of);
    let (_, many) = run(BackendChoice::Ptrace, &[], "getpid", 50_000, of);
    assert!(once > 0, "its start is seen");
    assert_eq!(once, many);
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
