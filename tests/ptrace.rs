//! What only the ptrace backend has to get right: stops, other tracers, calls made for the tracer.

mod common;

use std::io::{BufRead, BufReader};
use std::process::Child;
use std::time::Duration;
use std::{fs, thread};

use common::{Build, Run, Scratch, assert_same, eventually, guest, guest_as, sysemu_program, text_of, wait};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

const PATH: &str = "/proc/sys/kernel/pid_max";
const OPTIONS: &[&str] = &["--backend", "ptrace", "--set", "kernel.pid_max=77777"];

fn counts(path: &str) -> Vec<u8> {
    fs::read(path).expect("the guest made it")
}

/// Ends the program with the test.
struct Group(Child, Pid);

impl Drop for Group {
    fn drop(&mut self) {
        let _ = killpg(self.1, Signal::SIGKILL);
        wait(&mut self.0, Duration::from_secs(10));
    }
}

/// Stops and continues a program whose threads open virtual files all the time.
fn stops_as_a_whole(run: &Run, shared: &str) {
    let mut child = run.start();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().expect("piped")).read_line(&mut line).expect("readable");
    let program = Pid::from_raw(line.trim().parse().expect("its process id"));
    let group = Pid::from_raw(child.id().cast_signed());
    let _guard = Group(child, group);
    let limit = Duration::from_secs(10);
    let changes = |pause| {
        let before = counts(shared);
        thread::sleep(Duration::from_millis(pause));
        counts(shared) != before
    };
    for signal in [Signal::SIGSTOP, Signal::SIGTSTP].into_iter().cycle().take(40) {
        assert!(eventually(limit, || changes(1)), "it does not go on after {signal}");
        kill(program, signal).expect("it lives");
        assert!(eventually(limit, || !changes(30)), "a thread runs in spite of {signal}");
        killpg(group, Signal::SIGCONT).expect("it lives");
    }
}

#[test]
fn a_stop_in_the_middle_of_calls_stops_all_threads() {
    let scratch = Scratch::new();
    for (name, options) in [("bare", None), ("traced", Some(OPTIONS))] {
        let shared = text_of(&scratch.join(name));
        let run = Run::new(&[guest("stopped").as_str(), PATH, &shared, "4"]);
        stops_as_a_whole(&options.map_or_else(|| run.clone(), |options| run.under(options)), &shared);
    }
}

#[test]
fn a_second_tracer_is_refused_and_one_line_says_why() {
    let words = ["strace", "-f", "-o", "/dev/null", "cat", PATH];
    let quiet = Run::new(&words).under(OPTIONS).go();
    assert_ne!(quiet.status, 0);
    assert!(quiet.stderr.contains("Operation not permitted"), "{}", quiet.stderr);
    assert!(!quiet.stderr.contains("asks for ptrace"), "{}", quiet.stderr);

    let twice = format!("{}; {}", words.join(" "), words.join(" "));
    let told = Run::shell(&twice).under(OPTIONS).variable("SYSEMU_LOG", "debug").go();
    assert_eq!(told.stderr.matches("strace asks for ptrace(2)").count(), 1, "{}", told.stderr);

    let notify = ["--backend", "notify", "--set", "kernel.pid_max=77777"];
    assert_eq!(Run::new(&words).under(&notify).go().good(), "77777\n");
}

#[test]
fn a_program_that_is_traced_already_is_not_run() {
    let inner = [&[sysemu_program()], OPTIONS, &["--", "echo", "ran"]].concat();
    let outcome = Run::new(&[&["strace", "-f", "-qq", "-o", "/dev/null"], &inner[..]].concat()).go();
    assert_eq!((outcome.status, outcome.stdout.as_str()), (125, ""), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("cannot trace the program"), "{}", outcome.stderr);
}

#[test]
fn a_program_that_cannot_be_executed_is_told_as_by_env() {
    // Whoever started it reaps it, though the tracer hears of all ends.
    for _ in 0..20 {
        for (program, status) in [("/no/such/program", 127), ("/etc/passwd", 126)] {
            let outcome = Run::new(&[program]).under(OPTIONS).go();
            assert_eq!(outcome.status, status, "{}", outcome.stderr);
            assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
        }
    }
}

#[test]
fn calls_that_cannot_be_injected_fail_with_their_reason() {
    // The filter of the program itself refuses what a descriptor needs first; values need nothing.
    let script = format!("cat {PATH}; stat -c %s {PATH}; cat /proc/sys/kernel/ostype");
    let busybox = script.replace("cat ", "busybox cat ").replace("stat ", "busybox stat ");
    let refuse = guest_as("refuse", Build::Static);
    let outcome = Run::new(&[&refuse, "mmap", "--", "busybox", "sh", "-c", &busybox]).under(OPTIONS).go();
    assert_eq!((outcome.stdout.as_str(), outcome.status), ("0\nLinux\n", 0), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("Operation not permitted"), "{}", outcome.stderr);
}

/// Programs in a sandbox that refuses seccomp(2).
fn without_filters(words: &[&str]) -> common::Outcome {
    let outer = [guest("refuse"), "seccomp".into(), "--".into()];
    let inner = Run::new(words).under(&OPTIONS[2..]);
    Run::new(&outer.iter().map(String::as_str).chain(inner.words()).collect::<Vec<_>>()).limit(60).go()
}

#[test]
fn where_no_filter_can_be_installed_every_call_stops() {
    let i386 = guest_as("paths", Build::I386);
    let line = format!("- {PATH}");
    let exec = guest("execthread");
    for (words, wanted) in [
        (vec!["cat", PATH], Some("77777\n")),
        (vec!["sh", "-c", "uname -s; exit 7"], None),
        (vec!["sh", "-c", "for i in 1 2 3 4 5 6 7 8; do echo $i | cat & done | sort; wait; kill $$"], None),
        (
            vec![
                "python3",
                "-c",
                "import threading as t; [t.Thread(target=print).start() for _ in range(9)]",
            ],
            None,
        ),
        (vec!["bash", "-c", "trap 'echo heard' USR1; kill -USR1 $$; sleep 0.1; (exit 3); echo $?"], None),
        (vec![&exec], None),
        (vec!["sh", "-c", "echo \"$1\" | $0", &i386, &line], None),
    ] {
        let outcome = without_filters(&words);
        let bare = Run::new(&words).go();
        let real = fs::read_to_string(PATH).expect("readable");
        let stdout = wanted.map_or_else(|| bare.stdout.replace(real.trim_end(), "77777"), str::to_owned);
        assert_eq!((outcome.stdout, outcome.status), (stdout, bare.status), "{words:?}: {}", outcome.stderr);
        let warnings: Vec<&str> = outcome.stderr.lines().filter(|line| line.contains("WARN")).collect();
        assert_eq!(warnings.len(), 1, "{}", outcome.stderr);
        assert!(warnings[0].contains("all system calls of the program stop twice"), "{}", outcome.stderr);
    }
}

#[test]
fn where_nothing_works_nothing_is_run() {
    let refuse = guest("refuse");
    let inner = Run::new(&["echo", "ran"]).under(&OPTIONS[2..]);
    let words: Vec<&str> = [&refuse, "seccomp", "ptrace", "--"].into_iter().chain(inner.words()).collect();
    let outcome = Run::new(&words).go();
    assert_eq!((outcome.status, outcome.stdout.as_str()), (125, ""), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("sysemu doctor"), "{}", outcome.stderr);
    let doctor = Run::new(&[&refuse, "seccomp", "ptrace", "--", sysemu_program(), "doctor"]).go();
    let backend = doctor.stdout.lines().find(|line| line.contains("backend")).expect("reported");
    assert!(backend.starts_with("NO") && doctor.status != 0, "{}", doctor.stdout);
}

#[test]
fn an_ignored_signal_ends_no_wait_without_end() {
    for build in [Build::Dynamic, Build::I386] {
        let run = Run::new(&[guest_as("waits", build)]);
        let bare = run.go().good();
        assert_eq!(bare.matches(" ignored waited\n").count(), 5, "{bare}");
        assert_eq!(bare.matches(" handled Interrupted system call\n").count(), 5, "{bare}");
        assert_same("waits", &bare, &run.under(OPTIONS).go().good());
    }
}
