//! Running a program from the command line: three processes, so that signals, job control, exit status and
//! standard descriptors are as if sysemu were not there.
//!
//! ```text
//! shell ── front ── keeper ── server ── program and all it starts
//! ```
//!
//! The *front* is what the shell started. It stays in the shell's process group, stops and continues as the
//! program does, passes on signals and ends as the program ends. The *server* supervises; it is in a process
//! group of its own, out of reach of the terminal, and serves on when the program ended but left daemons
//! behind. The *keeper* does nothing but wait: should the server die, every process of the tree becomes the
//! keeper's child and is killed, because each trapped call would fail for ever.
//!
//! With a policy that traps nothing there is no supervisor: the program takes the place of sysemu.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use nix::sys::signal::{SigSet, SigmaskHow, pthread_sigmask};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use crate::emulator::backend::BackendChoice;
use crate::emulator::backend::notify::NotifyOptions;
use crate::emulator::carrier::CarrierChoice;
use crate::emulator::sys::spawn::{self, Side};
use crate::emulator::sys::startup;
use crate::policy::Policy;

mod front;
mod keeper;
mod message;
mod server;
mod tree;

/// Exit status for failures of sysemu itself, as env(1) and others use it.
pub const OWN_FAILURE: i32 = 125;
/// Exit status for a program that exists and cannot be executed.
pub const NOT_EXECUTABLE: i32 = 126;
/// Exit status for a program that does not exist.
pub const NOT_FOUND: i32 = 127;

/// Open files that are enough for as many tracees as a machine has: descriptors of many pass through the server.
const WANTED_DESCRIPTORS: u64 = 4096;
/// Open files without which calls would go unanswered.
const NEEDED_DESCRIPTORS: u64 = 64;

/// Whether counts are printed when the program ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Summary {
    /// Nothing is printed.
    #[default]
    Off,
    /// Counts by verdict and paths that no row owned, on standard error.
    Print,
}

/// What to run, and how.
pub struct Launch {
    /// The policy.
    pub policy: Policy,
    /// The program and its arguments; not empty.
    pub command: Vec<OsString>,
    /// How descriptors are made.
    pub carrier: CarrierChoice,
    /// How calls are intercepted.
    pub backend: BackendChoice,
    /// How notifications are received.
    pub notify: NotifyOptions,
    /// The CPU that the server's threads stay on. The program is not held to it.
    pub pin: Option<usize>,
    /// The file that keeps written values.
    pub state: Option<PathBuf>,
    /// The file that calls are recorded in.
    pub record: Option<PathBuf>,
    /// Whether to print counts.
    pub summary: Summary,
    /// Starts logging in the server, once it will make no more processes. What it gives is dropped when the
    /// program ended, to write out what is left.
    pub start_logging: Box<dyn FnOnce() -> Box<dyn std::any::Any>>,
}

/// Runs the program and gives the status to exit with. Does not return when the program was killed by a
/// signal (this process then dies of it too), nor from a successful execution under an empty policy.
///
/// Call it while the process has a single thread.
pub fn run(launch: Launch) -> i32 {
    if launch.policy.is_empty() && launch.record.is_some() {
        eprintln!("sysemu: nothing to record: the policy is empty, so that no call is managed");
        return OWN_FAILURE;
    }
    if launch.policy.is_empty() {
        return execute(&launch.command);
    }
    if launch.backend == BackendChoice::Notify && !crate::emulator::probe::has_notify() {
        eprintln!(
            "sysemu: seccomp user notification is not to be had here: nothing was started; without --backend ptrace(2) \
             takes its place; `sysemu doctor` says more"
        );
        return OWN_FAILURE;
    }
    match start(launch) {
        Ok(status) => status,
        Err(message) => {
            eprintln!("sysemu: {message}");
            OWN_FAILURE
        }
    }
}

fn command(words: &[OsString]) -> Command {
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    command
}

fn execute(words: &[OsString]) -> i32 {
    spawn::restore_start_state();
    let error = command(words).exec();
    report_exec_error(&words[0].to_string_lossy(), &error)
}

/// Prints why a program could not be executed and gives the status for it.
fn report_exec_error(program: &str, error: &std::io::Error) -> i32 {
    eprintln!("sysemu: cannot run {program}: {error}");
    if error.kind() == std::io::ErrorKind::NotFound { NOT_FOUND } else { NOT_EXECUTABLE }
}

fn start(launch: Launch) -> Result<i32, String> {
    match startup::raise_descriptor_limit(WANTED_DESCRIPTORS) {
        Ok(allowed) if allowed < NEEDED_DESCRIPTORS => {
            return Err(format!(
                "only {allowed} open files are allowed, and supervising takes {NEEDED_DESCRIPTORS}: raise the limit \
                 (ulimit -Hn); nothing was started"
            ));
        }
        Ok(_) => {}
        Err(errno) => tracing::warn!("cannot raise the limit of open files: {errno}"),
    }
    let (front_end, server_end) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
            .map_err(|errno| format!("cannot make a socket pair: {errno}"))?;
    let mut original_mask = SigSet::empty();
    pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&SigSet::all()), Some(&mut original_mask))
        .map_err(|errno| format!("cannot block signals: {errno}"))?;
    let group = nix::unistd::getpgrp().as_raw();
    match spawn::fork().map_err(|errno| format!("cannot start the keeper: {errno}"))? {
        Side::Parent(keeper) => {
            drop(server_end);
            Ok(front::run(&front_end, keeper, &original_mask))
        }
        Side::Child => {
            drop(front_end);
            std::process::exit(keep(launch, server_end, original_mask, group))
        }
    }
}

/// The child of the front: becomes the keeper, and starts the server.
fn keep(launch: Launch, control: OwnedFd, original_mask: SigSet, group: i32) -> i32 {
    // Out of reach of the terminal, but in the same session: the program's process groups then are not
    // orphaned, which job control depends on.
    let own = nix::unistd::Pid::from_raw(0);
    let _ = nix::unistd::setpgid(own, own);
    let _ = crate::emulator::sys::process::become_subreaper();
    match spawn::fork() {
        Ok(Side::Child) => server::run(launch, control, original_mask, group),
        Ok(Side::Parent(server)) => {
            drop(control);
            keeper::run(server)
        }
        Err(errno) => {
            eprintln!("sysemu: cannot start the server: {errno}");
            OWN_FAILURE
        }
    }
}
