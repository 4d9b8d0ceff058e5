//! A caller that is killed at every step of the supervisor: before and after each system call that the threads
//! serving it make. The supervisor is traced with ptrace(2), so this is the program as it ships.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use common::{Run, Scratch, guest, is_root, skip};
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

const LIMIT: Duration = Duration::from_secs(20);

/// How calls are answered: the options that choose it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Means {
    Fuse,
    Memfd,
    Ptrace,
}

impl Means {
    fn options(self) -> [&'static str; 2] {
        match self {
            Means::Fuse => ["--carrier", "fuse"],
            Means::Memfd => ["--carrier", "memfd"],
            Means::Ptrace => ["--backend", "ptrace"],
        }
    }
}

/// The threads of the supervisor, traced by this thread.
struct Tracer {
    process: Pid,
    /// What was started, a child of this thread, and its status when it ended.
    front: Pid,
    status: Option<i32>,
    /// Steps made by threads that serve calls.
    steps: usize,
}

impl Tracer {
    fn seize(process: Pid, front: Pid) -> Self {
        let threads = fs::read_dir(format!("/proc/{process}/task")).expect("it runs");
        for thread in threads {
            let name = thread.expect("listed").file_name();
            let tid = Pid::from_raw(name.to_str().and_then(|name| name.parse().ok()).expect("a number"));
            let options = Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACECLONE;
            ptrace::seize(tid, options).expect("seized");
            ptrace::interrupt(tid).expect("interrupted");
        }
        Tracer { process, front, status: None, steps: 0 }
    }

    /// The next thread that stopped at a step of serving; others are resumed. `None` when nothing happened.
    fn next(&mut self) -> Option<Pid> {
        let flags = WaitPidFlag::WNOHANG | WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
        loop {
            match waitpid(None, Some(flags)).unwrap_or(WaitStatus::StillAlive) {
                WaitStatus::StillAlive => return None,
                WaitStatus::PtraceSyscall(tid) if self.serves(tid) => {
                    self.steps += 1;
                    return Some(tid);
                }
                WaitStatus::PtraceSyscall(tid) | WaitStatus::PtraceEvent(tid, ..) => resume(tid, None),
                WaitStatus::Stopped(tid, signal) => resume(tid, Some(signal)),
                WaitStatus::Exited(pid, status) if pid == self.front => self.status = Some(status),
                // A thread.
                _ => {}
            }
        }
    }

    /// Lets all threads run until those that serve wait for a call.
    fn settle(&mut self) {
        let end = Instant::now() + LIMIT;
        loop {
            self.run();
            let threads = fs::read_dir(format!("/proc/{}/task", self.process)).expect("it runs");
            let mut tids = threads.filter_map(|thread| thread.ok()?.file_name().to_str()?.parse().ok());
            if tids.all(|tid| !self.serves(Pid::from_raw(tid)) || self.sleeps(tid)) {
                return;
            }
            assert!(Instant::now() < end, "the supervisor does not come to rest");
        }
    }

    /// Whether a thread waits for something other than this tracer.
    fn sleeps(&self, tid: i32) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/task/{tid}/stat", self.process)).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('S'))
    }

    /// Lets all threads run until nothing happens for a moment.
    fn run(&mut self) {
        while let Some(tid) = self.next() {
            resume(tid, None);
        }
        std::thread::sleep(Duration::from_micros(100));
    }

    fn name(&self, tid: Pid) -> String {
        fs::read_to_string(format!("/proc/{}/task/{tid}/comm", self.process)).unwrap_or_default()
    }

    fn serves(&self, tid: Pid) -> bool {
        let name = self.name(tid);
        ["receiver", "fuse", "tracer"].iter().any(|thread| name.starts_with(thread))
    }
}

fn resume(tid: Pid, signal: Option<Signal>) {
    // A thread that ended meanwhile has nothing to resume.
    let _ = ptrace::syscall(tid, signal);
}

const OPTIONS: [&str; 10] = [
    "--set",
    "kernel.made_up=1",
    "--set",
    "vm.swappiness=7",
    "--uname-release",
    "5.15.0-test",
    "--statfs",
    "proc=tmpfs",
    "--policy",
    concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/policies/machine.toml"),
];

/// The program under the supervisor, which makes victims.
struct Guest {
    front: Pid,
    stdin: ChildStdin,
    lines: Receiver<String>,
    stderr: Scratch,
}

impl Guest {
    fn start(call: &str, path: &str, means: Means) -> Self {
        let stderr = Scratch::new();
        // The winding path counts on two directories.
        let mut command = Run::new(&[&guest("victim"), call, path])
            .directory(Path::new("/usr/lib"))
            .under(&[&OPTIONS[..], &means.options()[..]].concat())
            .command();
        let log = fs::File::create(stderr.join("stderr")).expect("own directory");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        #[allow(clippy::zombie_processes, reason = "the tracer hears of its end with everything else")]
        let mut child = command.spawn().expect("started");
        let (sender, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        std::thread::spawn(move || {
            stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        let stdin = child.stdin.take().expect("piped");
        Guest { front: Pid::from_raw(child.id().cast_signed()), stdin, lines, stderr }
    }

    fn go(&mut self) {
        self.stdin.write_all(b"\n").expect("it reads");
    }

    /// The number in the next line, which begins with one of these words. The traced threads run meanwhile,
    /// except one.
    #[track_caller]
    fn hear(&self, words: &[&str], tracer: Option<&mut Tracer>, held: Option<Pid>) -> (String, i32) {
        let end = Instant::now() + LIMIT;
        let mut tracer = tracer;
        let line = loop {
            while let Some(tid) = tracer.as_mut().and_then(|tracer| tracer.next()) {
                assert_ne!(Some(tid), held);
                resume(tid, None);
            }
            match self.lines.recv_timeout(Duration::from_micros(100)) {
                Ok(line) => break line,
                Err(RecvTimeoutError::Timeout) if Instant::now() < end => {}
                Err(error) => panic!("no {words:?} from the guest: {error}"),
            }
        };
        let (word, number) = line.split_once(' ').expect("a word and a number");
        assert!(words.contains(&word), "{line}, expected {words:?}");
        (word.to_owned(), number.parse().expect("a number"))
    }
}

/// Makes one victim and kills it at the given step of serving its call. Whether it was killed.
fn one_victim(guest: &mut Guest, tracer: &mut Tracer, step: usize) -> bool {
    guest.go();
    let (_, victim) = guest.hear(&["pid"], Some(tracer), None);
    // What is still to be done for the calls by which it got ready is no step of the one to come.
    tracer.settle();
    let begun = tracer.steps;
    guest.go();
    let end = Instant::now() + LIMIT;
    loop {
        let Some(tid) = tracer.next() else {
            assert!(Instant::now() < end, "step {step} does not come and the call does not end");
            match guest.lines.recv_timeout(Duration::from_micros(100)) {
                Ok(line) => {
                    assert_eq!(line, "status 7");
                    return false;
                }
                Err(_) => continue,
            }
        };
        if tracer.steps - begun == step {
            // At the last steps it has its answer and may be gone.
            let _ = kill(Pid::from_raw(victim), Signal::SIGKILL);
            // Gone and reaped, its number free, before the supervisor takes the step. Not so if its tracer has to
            // hear of its end first, or if it waits for a file system that has its request already.
            let held = tracer.name(tid).starts_with("receiver").then_some(tid);
            if held.is_none() {
                resume(tid, None);
            }
            let (word, _) = guest.hear(&["signal", "status"], Some(tracer), held);
            if let Some(tid) = held {
                resume(tid, None);
            }
            return word == "signal";
        }
        resume(tid, None);
    }
}

fn descriptors(process: Pid) -> Vec<String> {
    let folder = fs::read_dir(format!("/proc/{process}/fd")).expect("it runs");
    let link = |entry: std::io::Result<fs::DirEntry>| {
        let target = fs::read_link(entry.expect("listed").path()).unwrap_or_default();
        target.to_string_lossy().into_owned()
    };
    let mut links: Vec<String> = folder.map(link).collect();
    links.sort();
    links
}

/// Kills victims at step after step until a call ends before its killer comes. Gives the steps.
fn kill_at_every_step(call: &str, path: &str, means: Means) -> BTreeSet<usize> {
    let mut guest = Guest::start(call, path, means);
    let (_, server) = guest.hear(&["server"], None, None);
    let server = Pid::from_raw(server);
    let mut tracer = Tracer::seize(server, guest.front);
    // The first one is left alone: what is opened once and kept is open then.
    assert!(!one_victim(&mut guest, &mut tracer, usize::MAX));
    let quiet = Instant::now() + Duration::from_millis(50);
    while Instant::now() < quiet {
        tracer.run();
    }
    let before = descriptors(server);
    let mut killed = BTreeSet::new();
    let mut spared = 0;
    // A call takes a step less when something is remembered since the last one.
    for step in 1.. {
        if one_victim(&mut guest, &mut tracer, step) {
            killed.insert(step);
            spared = 0;
        } else {
            spared += 1;
        }
        if spared == 4 {
            break;
        }
    }
    let end = Instant::now() + LIMIT;
    let mut after = descriptors(server);
    // FUSE files are released when their last user is gone.
    while after != before && Instant::now() < end {
        tracer.run();
        after = descriptors(server);
    }
    assert_eq!(before, after, "{call} with {means:?}: the supervisor's descriptors");
    drop(guest.stdin);
    let end = Instant::now() + LIMIT;
    while tracer.status.is_none() && Instant::now() < end {
        tracer.run();
    }
    let stderr = fs::read_to_string(guest.stderr.join("stderr")).expect("written");
    assert_eq!((tracer.status, stderr.as_str()), (Some(0), ""), "{call} with {means:?}");
    killed
}

const PATH: &str = "/proc/sys/kernel/made_up";

fn kill_in_calls(calls: &[&str], path: &str) {
    kill_with(&[Means::Fuse, Means::Memfd, Means::Ptrace], calls, path);
}

fn kill_with(means: &[Means], calls: &[&str], path: &str) {
    for means in means.iter().copied() {
        if means == Means::Fuse && !is_root() {
            skip("a tracee killed at every step", "the FUSE carrier needs root");
            continue;
        }
        for call in calls {
            let steps = kill_at_every_step(call, path, means);
            println!("{call} of {path} with {means:?}: killed at steps {steps:?}");
            // Received, path read, answered, and that from both sides.
            assert!(steps.len() >= 4, "{call} with {means:?}: {steps:?}");
        }
    }
}

#[test]
fn a_caller_killed_at_every_step_of_an_open() {
    kill_in_calls(
        &["openat", "openat-dirfd", "openat2", "openat-path", "openat-directory", "openat-unrelated"],
        PATH,
    );
}

#[test]
fn a_caller_killed_at_every_step_of_a_look() {
    kill_in_calls(&["newfstatat", "statx", "faccessat2", "readlinkat", "statfs", "fstatfs"], PATH);
}

#[test]
fn a_caller_killed_at_every_step_in_a_directory() {
    kill_in_calls(&["getdents64", "chdir", "getcwd", "inotify_add_watch"], PATH);
}

#[test]
fn a_caller_killed_at_every_step_of_a_write() {
    let path = "/proc/sys/vm/swappiness";
    kill_in_calls(&["openat-write"], path);
    // With memfds nobody is asked.
    kill_with(&[Means::Fuse, Means::Ptrace], &["write"], path);
}

#[test]
fn a_caller_killed_at_every_step_of_a_question() {
    kill_in_calls(&["uname", "sysinfo", "sched_getaffinity"], PATH);
}

#[test]
fn a_caller_killed_at_every_step_of_a_winding_path() {
    kill_in_calls(&["openat"], "/proc/self/root/proc/self/cwd/../../proc/sys/kernel/made_up");
}
