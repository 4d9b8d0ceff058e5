//! The floors of seccomp user notification: the least that it can cost on this host.

use std::io::Read;
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::sys::signal::SigSet;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::sys::stat::FileStat;
use sysemu::Policy;
use sysemu::emulator::filter::{self, TrapAction};
use sysemu::emulator::reply::Reply;
use sysemu::emulator::sys::seccomp::{Instruction, Listener};
use sysemu::emulator::sys::spawn::{self, ChildSetup};
use sysemu::emulator::sys::{memory, process};
use sysemu::emulator::syscall::{Activation, Syscall, SyscallTable};

use super::super::args::BenchArgs;
use super::guest::{self, Kind, Timing};
use super::{super::args::Switch, Measure};

/// What an echo answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Echo {
    /// The kernel runs the call.
    Continue,
    /// The call returns 0.
    Value,
    /// The call returns 0 after as many bytes as stat(2) gives were written to the caller.
    Stored,
}

/// A filter that traps these calls and no others.
///
/// # Errors
/// When it cannot be built.
pub fn program(names: &[&'static str], trap: TrapAction) -> Result<Vec<Instruction>, String> {
    let row = |name: &&'static str| Syscall::new(name, |_| Activation::Trap, |_| Ok(Reply::Continue));
    let table = SyscallTable::new(names.iter().map(row).collect(), &Policy::default());
    filter::build(&table, trap).map_err(|error| error.to_string())
}

/// A filter is there and lets everything of interest through.
pub fn allowed(kind: Kind, calls: u32) -> Result<Timing, String> {
    with_listener(kind, calls, &["mq_open"], |_| {})
}

/// Receives, reads 64 bytes of the path, answers: the least that a supervisor can do.
pub fn echo(args: &BenchArgs, kind: Kind, echo: Echo) -> Measure {
    let (calls, sync) = (args.calls, args.tuning.sync_wake_up);
    Box::new(move || {
        with_listener(kind, calls, &["openat", "newfstatat"], move |listener| {
            if sync == Switch::On {
                let _ = listener.set_sync_wake_up();
            }
            let mut path = [0u8; 64];
            loop {
                let call = match listener.receive() {
                    Ok(call) => call,
                    Err(Errno::EINTR) => continue,
                    Err(_) => return,
                };
                let _ = memory::read(call.tid, call.args[1], &mut path);
                // The guest's own start must work, so only its measured path is answered with a value.
                let is_measured = path.starts_with(b"/etc/passwd\0");
                if echo == Echo::Stored && is_measured && listener.is_valid(call.id) {
                    let _ = memory::write(call.tid, call.args[2], &[0; size_of::<FileStat>()]);
                }
                let _ = match echo {
                    Echo::Value | Echo::Stored if is_measured => listener.send_value(call.id, 0),
                    _ => listener.send_continue(call.id),
                };
            }
        })
    })
}

fn with_listener(
    kind: Kind,
    calls: u32,
    names: &[&'static str],
    serve: impl FnOnce(Listener) + Send + 'static,
) -> Result<Timing, String> {
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
        .map_err(|errno| format!("cannot make a socket pair: {errno}"))?;
    let mut command = guest::command(kind, calls)?;
    spawn::prepare(
        &mut command,
        ChildSetup {
            program: program(names, TrapAction::Notify)?,
            trap: spawn::Trap::Listener,
            no_new_privs: !process::has_cap_sys_admin(),
            process_group: None,
            socket: theirs.as_raw_fd(),
            signal_mask: SigSet::empty(),
            restore_start_state: false,
        },
    );
    let mut child = command.spawn().map_err(|error| format!("cannot run the guest: {error}"))?;
    let handover = spawn::receive_handover(ours.as_fd());
    let (_, listener) = handover.map_err(|errno| format!("no listener: {errno}"))?;
    let listener = listener.ok_or("no listener")?;
    std::thread::spawn(move || serve(Listener::from(listener)));
    let mut report = String::new();
    if let Some(stdout) = &mut child.stdout {
        stdout.read_to_string(&mut report).map_err(|error| error.to_string())?;
    }
    child.wait().map_err(|error| error.to_string())?;
    guest::timing(&report)
}
