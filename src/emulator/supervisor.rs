//! The supervisor: starts a program under a policy and serves it.

use std::os::fd::{AsFd, AsRawFd};
use std::process::{Child, Command};
use std::sync::Arc;

use nix::errno::Errno as OsErrno;
use nix::sys::signal::SigSet;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use super::backend::notify::{NotifyOptions, NotifyServer};
use super::context::{Emulator, EmulatorError};
use super::engine::Engine;
use super::filter::{self, FilterError, TrapAction};
use super::sys::process;
use super::sys::seccomp::{Instruction, Listener};
use super::sys::spawn::{self, ChildSetup, Stage};
use super::syscall::{Syscall, SyscallTable};
use crate::policy::Policy;

/// Why a program cannot be started under a policy.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The emulator cannot be made.
    #[error(transparent)]
    Emulator(#[from] EmulatorError),
    /// The filter cannot be made.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// A listener exists already: another supervisor.
    #[error(
        "another seccomp supervisor (perhaps sysemu itself) already listens for this process; the kernel \
         allows one for each process tree: run the program without a second sysemu, or start both from outside"
    )]
    Nested,
    /// User notification is not to be had.
    #[error("cannot install the seccomp filter: {0}; `sysemu doctor` says what this host offers")]
    Install(OsErrno),
    /// A step of the child failed.
    #[error("cannot start the program ({stage:?}): {errno}")]
    Stage {
        /// Which.
        stage: Stage,
        /// Why.
        errno: OsErrno,
    },
    /// The program cannot be executed.
    #[error("cannot run {program}: {source}")]
    Exec {
        /// Its name.
        program: String,
        /// Why.
        source: std::io::Error,
    },
    /// The supervisor's own failure.
    #[error("cannot {0}: {1}")]
    Own(&'static str, std::io::Error),
}

/// How the child is started, beyond what [`Command`] says.
#[derive(Clone, Debug)]
pub struct StartOptions {
    /// Process group to join, if not this process's.
    pub process_group: Option<i32>,
    /// Signal mask for the program.
    pub signal_mask: SigSet,
    /// Give the program the standard descriptors and the SIGPIPE disposition that this process was started
    /// with, before the Rust runtime changed them.
    pub restore_start_state: bool,
}

impl Default for StartOptions {
    fn default() -> Self {
        StartOptions {
            process_group: None,
            signal_mask: SigSet::thread_get_mask().unwrap_or_else(|_| SigSet::empty()),
            restore_start_state: false,
        }
    }
}

/// A policy made ready to supervise programs.
pub struct Supervisor {
    engine: Arc<Engine>,
    program: Vec<Instruction>,
    notify: NotifyOptions,
}

impl Supervisor {
    /// Prepares the filter and the engine for an emulator and its rows.
    ///
    /// # Errors
    /// See [`FilterError`].
    pub fn new(
        policy: &Policy,
        emulator: Emulator,
        rows: Vec<Syscall>,
        notify: NotifyOptions,
    ) -> Result<Self, FilterError> {
        let table = SyscallTable::new(rows, policy);
        let program = filter::build(&table, TrapAction::Notify)?;
        Ok(Supervisor { engine: Arc::new(Engine::new(emulator, table)), program, notify })
    }

    /// The engine, for its counters and its emulator.
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// The filter program; empty when the policy needs nothing to be trapped.
    pub fn filter(&self) -> &[Instruction] {
        &self.program
    }

    /// Starts `command` under the policy.
    ///
    /// # Errors
    /// See [`SpawnError`]. Nothing is left running.
    pub fn spawn(&self, mut command: Command, options: StartOptions) -> Result<Supervised, SpawnError> {
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
                .map_err(|errno| SpawnError::Own("make a socket pair", errno.into()))?;
        spawn::prepare(
            &mut command,
            ChildSetup {
                program: self.program.clone(),
                no_new_privs: !process::has_cap_sys_admin(),
                process_group: options.process_group,
                socket: theirs.as_raw_fd(),
                signal_mask: options.signal_mask,
                restore_start_state: options.restore_start_state,
            },
        );
        let spawned = command.spawn();
        drop(theirs);
        let handover = spawn::receive_handover(ours.as_fd());
        let child = spawned.map_err(|source| {
            let errno = OsErrno::from_raw(source.raw_os_error().unwrap_or(0));
            match handover {
                Ok((Stage::Filter, _)) if errno == OsErrno::EBUSY => SpawnError::Nested,
                Ok((Stage::Filter, _)) => SpawnError::Install(errno),
                Ok((stage, None)) => SpawnError::Stage { stage, errno },
                _ => {
                    let program = command.get_program().to_string_lossy().into_owned();
                    SpawnError::Exec { program, source }
                }
            }
        })?;
        let server = match spawn::receive_result(handover, self.program.is_empty()) {
            Ok(Some(listener)) => {
                let server = NotifyServer::start(Listener::from(listener), self.engine.clone(), self.notify);
                match server {
                    Ok(server) => Some(server),
                    Err(source) => return Err(give_up(child, "start a receiver", source)),
                }
            }
            Ok(None) => None,
            Err(errno) => return Err(give_up(child, "take over the listener", errno.into())),
        };
        Ok(Supervised { child, server })
    }
}

fn give_up(mut child: Child, what: &'static str, source: std::io::Error) -> SpawnError {
    // Without a receiver the program would hang at its first trapped call.
    let _ = child.kill();
    let _ = child.wait();
    SpawnError::Own(what, source)
}

/// A program that runs under a policy.
pub struct Supervised {
    child: Child,
    server: Option<Arc<NotifyServer>>,
}

impl Supervised {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The child, for its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Waits for the program (not for what it left running).
    ///
    /// # Errors
    /// As waitpid(2).
    pub fn wait(&mut self) -> std::io::Result<std::process::ExitStatus> {
        let status = self.child.wait();
        self.settle();
        status
    }

    /// Waits a little until the counters include what the program was answered last.
    pub fn settle(&self) {
        if let Some(server) = &self.server {
            server.settle();
        }
    }

    /// Whether the whole process tree has ended.
    pub fn has_tree_ended(&self) -> bool {
        self.server.as_ref().is_none_or(|server| server.has_ended())
    }
}
