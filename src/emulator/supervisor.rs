//! The supervisor: starts a program under a policy and serves it.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;

use nix::errno::Errno as OsErrno;
use nix::sys::signal::SigSet;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use tokio::sync::mpsc::UnboundedReceiver;

use super::backend::BackendChoice;
use super::backend::notify::{NotifyOptions, NotifyServer};
use super::backend::ptrace::{self, Children, Event, Pass, PtraceServer, Stops};
use super::context::{Emulator, EmulatorError};
use super::engine::Engine;
use super::filter::{self, FilterError, TrapAction};
use super::probe;
use super::sys::process;
use super::sys::seccomp::{Instruction, Listener};
use super::sys::spawn::{self, ChildSetup, Stage, Trap};
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
    /// The program cannot be traced.
    #[error(
        "cannot trace the program: {0}; ptrace(2) needs Yama's ptrace_scope below 3 and a program that nobody \
         traces already (a debugger, strace, another sysemu): `sysemu doctor` says what this host offers"
    )]
    Trace(OsErrno),
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
    /// Whose ends the ptrace backend hears of.
    pub children: Children,
}

impl Default for StartOptions {
    fn default() -> Self {
        StartOptions {
            process_group: None,
            signal_mask: SigSet::thread_get_mask().unwrap_or_else(|_| SigSet::empty()),
            restore_start_state: false,
            children: Children::default(),
        }
    }
}

/// A policy made ready to supervise programs.
pub struct Supervisor {
    engine: Arc<Engine>,
    program: Vec<Instruction>,
    backend: Backend,
    pass: Pass,
}

/// How trapped calls reach the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Backend {
    Notify(NotifyOptions),
    Ptrace(Stops),
}

impl Backend {
    fn choose(choice: BackendChoice, notify: NotifyOptions) -> Self {
        match choice.resolved() {
            BackendChoice::Ptrace if probe::has_filters() => Backend::Ptrace(Stops::Selected),
            BackendChoice::Ptrace => Backend::Ptrace(Stops::All),
            BackendChoice::Auto | BackendChoice::Notify => Backend::Notify(notify),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Backend::Notify(_) => "notify",
            Backend::Ptrace(Stops::Selected) => "ptrace",
            Backend::Ptrace(Stops::All) => "ptrace, stopping at every system call",
        }
    }
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
        backend: BackendChoice,
        notify: NotifyOptions,
    ) -> Result<Self, FilterError> {
        let backend = Backend::choose(backend, notify);
        let mut table = SyscallTable::new(rows.clone(), policy);
        if matches!(backend, Backend::Ptrace(_)) && !table.is_empty() {
            let rows = rows.into_iter().chain(ptrace::rows()).collect();
            table = SyscallTable::new(rows, policy);
        }
        let action = match backend {
            Backend::Notify(_) => TrapAction::Notify,
            Backend::Ptrace(_) => TrapAction::Trace,
        };
        let mut program = filter::build(&table, action)?;
        let pass = Pass::random();
        if matches!(backend, Backend::Ptrace(_)) {
            filter::let_through(&mut program, pass.0);
        }
        Ok(Supervisor { engine: Arc::new(Engine::new(emulator, table)), program, backend, pass })
    }

    /// Whether the backend lives on ptrace(2).
    pub fn traces(&self) -> bool {
        matches!(self.backend, Backend::Ptrace(_))
    }

    /// Name of the backend, for logs.
    pub fn backend(&self) -> &'static str {
        self.backend.name()
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
        let trap = match self.backend {
            Backend::Notify(_) => Trap::Listener,
            Backend::Ptrace(Stops::Selected) => Trap::Tracer,
            Backend::Ptrace(Stops::All) => Trap::TracerOfAll,
        };
        spawn::prepare(
            &mut command,
            ChildSetup {
                program: self.program.clone(),
                trap,
                no_new_privs: !process::has_cap_sys_admin(),
                process_group: options.process_group,
                socket: theirs.as_raw_fd(),
                signal_mask: options.signal_mask,
                restore_start_state: options.restore_start_state,
            },
        );
        if self.program.is_empty() {
            let (child, _) = start(&mut command, theirs, &ours)?;
            return Ok(Supervised { child, server: Server::Nobody });
        }
        match self.backend {
            Backend::Notify(notify) => {
                let (child, listener) = start(&mut command, theirs, &ours)?;
                let Some(listener) = listener else {
                    return Err(give_up(child, "take over the listener", OsErrno::EPROTO.into()));
                };
                let server = NotifyServer::start(Listener::from(listener), self.engine.clone(), notify);
                match server {
                    Ok(server) => Ok(Supervised { child, server: Server::Notify(server) }),
                    Err(source) => Err(give_up(child, "start a receiver", source)),
                }
            }
            Backend::Ptrace(stops) => {
                let own = |what| move |error| SpawnError::Own(what, error);
                let socket = ours.try_clone().map_err(own("duplicate a descriptor"))?;
                let (server, events) =
                    PtraceServer::start(self.engine.clone(), socket, stops, self.pass, options.children)
                        .map_err(own("start the tracer"))?;
                let started = start(&mut command, theirs, &ours);
                if let (Err(_), Some(errno)) = (&started, server.refusal()) {
                    return Err(SpawnError::Trace(errno));
                }
                let (child, _) = started?;
                if !server.has_program() {
                    // Killed before it was seized: an ordinary child.
                    return Ok(Supervised { child, server: Server::Nobody });
                }
                if stops == Stops::All {
                    tracing::warn!(
                        "no seccomp filter can be installed here, so all system calls of the program stop twice, at tens of \
                         times their cost"
                    );
                }
                Ok(Supervised { child, server: Server::Ptrace { server, events: Some(events) } })
            }
        }
    }
}

/// Starts the child, and takes over the listener that it made.
fn start(
    command: &mut Command,
    theirs: OwnedFd,
    ours: &OwnedFd,
) -> Result<(Child, Option<OwnedFd>), SpawnError> {
    let spawned = command.spawn();
    drop(theirs);
    let handover = spawn::receive_handover(ours.as_fd());
    match (spawned, handover) {
        (Ok(child), Ok((_, listener))) => Ok((child, listener)),
        (Ok(child), Err(_)) => Ok((child, None)),
        (Err(source), handover) => {
            let errno = OsErrno::from_raw(source.raw_os_error().unwrap_or(0));
            Err(match handover {
                Ok((Stage::Filter, _)) if errno == OsErrno::EBUSY => SpawnError::Nested,
                Ok((Stage::Filter, _)) => SpawnError::Install(errno),
                Ok((stage, None)) => SpawnError::Stage { stage, errno },
                _ => {
                    let program = command.get_program().to_string_lossy().into_owned();
                    SpawnError::Exec { program, source }
                }
            })
        }
    }
}

fn give_up(mut child: Child, what: &'static str, source: std::io::Error) -> SpawnError {
    // Without a receiver the program would hang at its first trapped call.
    let _ = child.kill();
    let _ = child.wait();
    SpawnError::Own(what, source)
}

enum Server {
    /// The policy needs nothing to be trapped.
    Nobody,
    Notify(Arc<NotifyServer>),
    Ptrace {
        server: Arc<PtraceServer>,
        events: Option<UnboundedReceiver<Event>>,
    },
}

/// A program that runs under a policy.
pub struct Supervised {
    child: Child,
    server: Server,
}

impl Supervised {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The child, for its pipes. Wait with [`Supervised::wait`]: a tracer hears of its end instead of the parent.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Waits for the program (not for what it left running).
    ///
    /// # Errors
    /// As waitpid(2).
    pub fn wait(&mut self) -> std::io::Result<ExitStatus> {
        drop(self.child.stdin.take());
        if let Server::Ptrace { events: Some(events), .. } = &mut self.server {
            loop {
                match events.blocking_recv() {
                    Some(Event::Exited(status)) => return Ok(ExitStatus::from_raw(status << 8)),
                    Some(Event::Killed(signal)) => return Ok(ExitStatus::from_raw(signal)),
                    Some(_) => {}
                    None => return Err(OsErrno::ECHILD.into()),
                }
            }
        }
        let status = self.child.wait();
        self.settle();
        status
    }

    /// What becomes of the program, for one taker; `None` when that is to be asked by waitpid(2).
    pub fn take_events(&mut self) -> Option<UnboundedReceiver<Event>> {
        match &mut self.server {
            Server::Ptrace { events, .. } => events.take(),
            Server::Nobody | Server::Notify(_) => None,
        }
    }

    /// Waits a little until the counters include what the program was answered last.
    pub fn settle(&self) {
        if let Server::Notify(server) = &self.server {
            server.settle();
        }
    }

    /// Whether the whole process tree has ended.
    pub fn has_tree_ended(&self) -> bool {
        match &self.server {
            Server::Nobody => true,
            Server::Notify(server) => server.has_ended(),
            Server::Ptrace { server, .. } => server.has_ended(),
        }
    }
}
