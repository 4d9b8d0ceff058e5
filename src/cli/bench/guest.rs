//! The measured program: makes one kind of call over and over and reports how long each took.

use std::cell::Cell;
use std::fs::File;
use std::io::Read;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use clap::ValueEnum;
use hdrhistogram::Histogram;
use nix::fcntl::{AtFlags, OFlag, open, openat};
use nix::sys::stat::{Mode, fstatat, stat};

/// A kind of call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// open and close of an unrelated file by its absolute path.
    Open,
    /// open and close of an unrelated file by an absolute path that was not used before.
    OpenNew,
    /// open and close of an unrelated file relative to a directory descriptor.
    OpenRelative,
    /// stat of an unrelated file.
    Stat,
    /// stat of a virtual file.
    StatManaged,
    /// open, read and close of a virtual file.
    ReadManaged,
    /// open, read and close of a file of procfs.
    ReadProc,
    /// uname.
    Uname,
    /// A call that is never trapped.
    Getpid,
}

/// The virtual file of the measurements.
pub const MANAGED: &str = "/proc/sys/kernel/sysemu_bench";
/// A real file of procfs that is like it, and that gVisor has too.
const PROC: &str = "/proc/sys/vm/overcommit_memory";
/// An unrelated file that exists everywhere.
const UNRELATED: &str = "/etc/passwd";

/// Nanoseconds for each call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Median.
    pub p50: u64,
    /// 99th percentile.
    pub p99: u64,
}

/// The command that runs the guest.
///
/// # Errors
/// When the own executable cannot be found.
pub fn command(kind: Kind, calls: u32) -> Result<Command, String> {
    let own = std::env::current_exe().map_err(|error| format!("cannot find the own executable: {error}"))?;
    let name = kind.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
    let mut command = Command::new(own);
    command.args(["bench-guest", &name, &calls.to_string()]).stdout(Stdio::piped());
    Ok(command)
}

/// Takes the guest's report.
///
/// # Errors
/// When the guest failed.
pub fn timing(report: &str) -> Result<Timing, String> {
    let mut numbers = report.split_whitespace().map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(p50)), Some(Ok(p99))) => Ok(Timing { p50, p99 }),
        _ => Err(format!("the measured program failed: {report:?}")),
    }
}

/// Measures without any supervisor.
///
/// # Errors
/// When the guest cannot be run.
pub fn run_natively(kind: Kind, calls: u32) -> Result<Timing, String> {
    let output = command(kind, calls)?.output().map_err(|error| format!("cannot run the guest: {error}"))?;
    timing(&String::from_utf8_lossy(&output.stdout))
}

/// Is the guest.
pub fn main(kind: Kind, calls: u32, trace: bool) -> ExitCode {
    let ready = if trace { super::traced::trap_self(kind) } else { Ok(()) };
    match ready.and_then(|()| measure(kind, calls)) {
        Ok(Timing { p50, p99 }) => {
            println!("{p50} {p99}");
            ExitCode::SUCCESS
        }
        Err(message) => super::fail(message),
    }
}

fn measure(kind: Kind, calls: u32) -> Result<Timing, String> {
    let failed = |what: &str, errno: nix::errno::Errno| format!("{what}: {errno}");
    let root = open("/etc", OFlag::O_RDONLY | OFlag::O_DIRECTORY, Mode::empty())
        .map_err(|e| failed("open /etc", e))?;
    let read = |path: &str| -> Result<(), String> {
        let mut buf = [0u8; 64];
        let mut file = File::open(path).map_err(|error| format!("{path}: {error}"))?;
        let len = file.read(&mut buf).map_err(|error| format!("{path}: {error}"))?;
        if len > 0 { Ok(()) } else { Err(format!("{path} is empty")) }
    };
    let number = Cell::new(0);
    let once = || match kind {
        Kind::Open => {
            open(UNRELATED, OFlag::O_RDONLY, Mode::empty()).map(drop).map_err(|e| failed("open", e))
        }
        Kind::OpenNew => {
            let path = spelling(number.replace(number.get() + 1));
            open(path.as_str(), OFlag::O_RDONLY, Mode::empty()).map(drop).map_err(|e| failed("open", e))
        }
        Kind::OpenRelative => {
            openat(&root, "passwd", OFlag::O_RDONLY, Mode::empty()).map(drop).map_err(|e| failed("openat", e))
        }
        Kind::Stat => stat(UNRELATED).map(drop).map_err(|e| failed("stat", e)),
        Kind::StatManaged => {
            fstatat(&root, MANAGED, AtFlags::empty()).map(drop).map_err(|e| failed("stat", e))
        }
        Kind::ReadManaged => read(MANAGED),
        Kind::ReadProc => read(PROC),
        Kind::Uname => nix::sys::utsname::uname().map(drop).map_err(|e| failed("uname", e)),
        Kind::Getpid => {
            std::hint::black_box(nix::unistd::getppid());
            Ok(())
        }
    };
    times(calls, once)
}

/// One of many spellings of the unrelated file.
fn spelling(number: u32) -> String {
    let bits: String = (0..16).map(|bit| if number >> bit & 1 == 0 { "/" } else { "/." }).collect();
    format!("{bits}{UNRELATED}")
}

/// How long each of `calls` rounds takes, after a tenth as many that are not counted.
///
/// # Errors
/// The first one of a round.
pub fn times(calls: u32, once: impl Fn() -> Result<(), String>) -> Result<Timing, String> {
    let mut histogram =
        Histogram::<u64>::new_with_bounds(1, 10_000_000_000, 3).map_err(|error| error.to_string())?;
    for _ in 0..calls / 10 + 1 {
        once()?;
    }
    for _ in 0..calls {
        let start = Instant::now();
        once()?;
        histogram.saturating_record(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX));
    }
    Ok(Timing { p50: histogram.value_at_quantile(0.5), p99: histogram.value_at_quantile(0.99) })
}
