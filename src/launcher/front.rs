//! The front: what the shell sees of the program.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno as OsErrno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask, raise};
use nix::sys::signalfd::{SfdFlags, SignalFd, siginfo};

use super::OWN_FAILURE;
use super::message::Message;
use crate::emulator::sys::wait;

/// `si_code` of a signal that the terminal (or the kernel otherwise) sent.
const SI_KERNEL: i32 = 0x80;

/// Runs until the program ended; gives the status to exit with. All signals are blocked.
pub(super) fn run(control: &OwnedFd, keeper: i32, original_mask: &SigSet) -> i32 {
    let signals = match SignalFd::with_flags(&SigSet::all(), SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC) {
        Ok(signals) => signals,
        Err(errno) => {
            eprintln!("sysemu: cannot watch for signals: {errno}");
            return OWN_FAILURE;
        }
    };
    let mut program = 0;
    let mut stops = 0;
    // Once nothing is left, waiting for the keeper takes no time and leaves no process of ours behind.
    let mut tree_ended = false;
    let leave = |tree_ended: bool| {
        if tree_ended {
            let _ = wait::wait_for(keeper);
        }
    };
    loop {
        let mut fds = [
            PollFd::new(control.as_fd(), PollFlags::POLLIN),
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        ];
        if let Err(errno) = poll(&mut fds, PollTimeout::NONE)
            && errno != OsErrno::EINTR
        {
            eprintln!("sysemu: cannot wait for the program: {errno}");
            return OWN_FAILURE;
        }
        while let Ok(Some(signal)) = signals.read_signal() {
            if is_to_pass_on(&signal, program) {
                Message::Signal(signal.ssi_signo.cast_signed()).send(control);
            }
        }
        match Message::receive(control) {
            Err(OsErrno::EAGAIN | OsErrno::EINTR) => {}
            Ok(Some(Message::Started(pid))) => program = pid,
            Ok(Some(Message::Stopped(signal))) => {
                stop(signal);
                stops += 1;
                Message::Resume(stops).send(control);
            }
            Ok(Some(Message::TreeEnded)) => tree_ended = true,
            Ok(Some(Message::Exited(status))) => {
                leave(tree_ended);
                return status;
            }
            Ok(Some(Message::Killed(signal))) => {
                leave(tree_ended);
                return die(signal, original_mask);
            }
            Ok(Some(Message::Continued | Message::Signal(_) | Message::Resume(_))) => {}
            Ok(None) | Err(_) => {
                // The server is gone without a last word; the keeper cleans up.
                eprintln!("sysemu: the supervisor died; everything it supervised ends with it");
                let _ = wait::wait_for(keeper);
                return OWN_FAILURE;
            }
        }
    }
}

/// Signals from the terminal reach the program by themselves, because it is in the same process group; those
/// that the program sends its own group are not to come back to it.
fn is_to_pass_on(signal: &siginfo, program: i32) -> bool {
    let number = signal.ssi_signo.cast_signed();
    let from_program = program != 0 && signal.ssi_pid.cast_signed() == program;
    number != libc::SIGCHLD && number != libc::SIGCONT && signal.ssi_code != SI_KERNEL && !from_program
}

/// Stops this process as the program was stopped, and returns when it was continued.
fn stop(signal: i32) {
    let signal = Signal::try_from(signal).unwrap_or(Signal::SIGSTOP);
    let mut set = SigSet::empty();
    set.add(signal);
    if signal == Signal::SIGSTOP {
        let _ = raise(signal);
        return;
    }
    // The dispositions were never changed. The terminal may have sent the same signal here already: then one
    // of the two is merged with the other.
    let _ = raise(signal);
    let _ = pthread_sigmask(SigmaskHow::SIG_UNBLOCK, Some(&set), None);
    let _ = pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&set), None);
}

/// Dies as the program died, so that the shell sees the same; gives the customary status if that fails.
fn die(signal: i32, original_mask: &SigSet) -> i32 {
    // The program has left its own core file, if any.
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    wait::die_of(signal, original_mask);
    128 + signal
}
