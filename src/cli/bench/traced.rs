//! The floors of ptrace(2): one stop for each call, through SECCOMP_RET_TRACE, and a tracer that does no more than
//! it must.

use std::io::{Read, Write};
use std::process::Stdio;

use nix::errno::Errno;
use nix::sys::stat::FileStat;
use sysemu::emulator::filter::TrapAction;
use sysemu::emulator::sys::ptrace::{self, Stop};
use sysemu::emulator::sys::{OsResult, memory, process, seccomp};

use super::floor::{self, Echo};
use super::guest::{self, Kind, Timing};

/// Measures calls of one kind that a tracer answers.
///
/// # Errors
/// When the guest cannot be run or traced.
pub fn echo(kind: Kind, calls: u32, echo: Echo) -> Result<Timing, String> {
    let failed = |what: &'static str| move |errno: Errno| format!("cannot {what}: {errno}");
    let mut command = guest::command(kind, calls)?;
    // The guest installs the filter itself, once it is traced and told so.
    command.arg("--trace").stdin(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("cannot run the guest: {error}"))?;
    let pid = child.id().cast_signed();
    ptrace::seize(pid).map_err(failed("trace the guest"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(b"\n").map_err(|error| error.to_string())?;
    }
    loop {
        match ptrace::wait(pid, 0) {
            Ok(Some((_, Stop::Exited(_) | Stop::Killed(_)))) => break,
            Ok(Some((_, Stop::Event(libc::PTRACE_EVENT_SECCOMP)))) => answer(pid, echo),
            Ok(Some((_, Stop::Signal(signal)))) => ptrace::resume(pid, signal),
            Ok(Some(_)) => ptrace::resume(pid, 0),
            Ok(None) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno),
        }
        .map_err(failed("serve the guest"))?;
    }
    let mut report = String::new();
    if let Some(stdout) = &mut child.stdout {
        stdout.read_to_string(&mut report).map_err(|error| error.to_string())?;
    }
    guest::timing(&report)
}

fn answer(pid: i32, echo: Echo) -> OsResult<()> {
    if echo == Echo::Continue {
        return ptrace::resume(pid, 0);
    }
    let mut registers = ptrace::registers(pid)?;
    if echo == Echo::Stored {
        let tid = pid.cast_unsigned();
        memory::read(tid, registers.rsi, &mut [0; 64])?;
        memory::write(tid, registers.rdx, &[0; size_of::<FileStat>()])?;
    }
    // All 64 bits of the number: gVisor looks at them.
    registers.orig_rax = u64::MAX;
    registers.rax = 0;
    ptrace::set_registers(pid, &registers)?;
    ptrace::resume(pid, 0)
}

/// The guest's part: waits for the tracer, then traps the measured call.
///
/// # Errors
/// When the filter cannot be installed.
pub fn trap_self(kind: Kind) -> Result<(), String> {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).map_err(|error| error.to_string())?;
    if !process::has_cap_sys_admin() {
        process::set_no_new_privs().map_err(|errno| format!("cannot set no_new_privs: {errno}"))?;
    }
    let trapped = match kind {
        Kind::Open => "openat",
        Kind::Stat => "newfstatat",
        // Some call that is not made.
        _ => "mq_open",
    };
    let program = floor::program(&[trapped], TrapAction::Trace)?;
    seccomp::install(&program).map_err(|errno| format!("cannot install the filter: {errno}"))
}
