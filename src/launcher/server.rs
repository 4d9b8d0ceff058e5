//! The server: supervises the program and reaps everything it leaves behind.

use std::os::fd::OwnedFd;

use nix::errno::Errno as OsErrno;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};
use nix::unistd::Pid;
use tokio::net::UnixDatagram;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::UnboundedReceiver;

use super::message::Message;
use super::{Launch, OWN_FAILURE, Summary, command, report_exec_error, tree};
use crate::emulator::backend::ptrace::{Children, Event};
use crate::emulator::confine::{self, Tracing};
use crate::emulator::probe;
use crate::emulator::record::{Header, Recorder};
use crate::emulator::state::StateFile;
use crate::emulator::stats::{Stats, Verdict};
use crate::emulator::sys::tape::Session;
use crate::emulator::sys::wait::{self, Change};
use crate::policy::show;
use crate::{SpawnError, StartOptions, Supervised, Supervisor};

/// Runs until the whole tree ended; gives this process's own exit status: 0 unless the keeper has to act.
pub(super) fn run(launch: Launch, control: OwnedFd, signal_mask: SigSet, group: i32) -> i32 {
    let _ = crate::emulator::sys::process::become_subreaper();
    let pin = launch.pin;
    let status = match spawn(launch, signal_mask, group) {
        Ok(mut server) => {
            // Not before: the program would inherit it.
            if let Some(cpu) = pin
                && let Err(error) = pin_threads(cpu)
            {
                tracing::warn!("cannot pin the supervisor to CPU {cpu}: {error}");
            }
            super::keeper::release_standard_descriptors();
            super::keeper::leave_directory();
            let tracing = if server.supervisor.traces() { Tracing::Needed } else { Tracing::Never };
            if probe::has_filters()
                && let Err(error) = confine::confine_process(tracing)
            {
                tracing::warn!("cannot confine the supervisor: {error}");
            }
            server.control = Some(control);
            return server.run();
        }
        Err(Refusal::Program(program, error)) => report_exec_error(&program, &error),
        Err(Refusal::Own(message)) => {
            eprintln!("sysemu: {message}");
            OWN_FAILURE
        }
    };
    Message::Exited(status).send(&control);
    0
}

enum Refusal {
    Program(String, std::io::Error),
    Own(String),
}

fn spawn(launch: Launch, signal_mask: SigSet, group: i32) -> Result<Server, Refusal> {
    let log = (launch.start_logging)();
    let policy = launch.record.as_ref().map(|_| show::policy(&launch.policy));
    // What the supervisor is told while it is built belongs to the record too.
    let session = launch.record.as_ref().map(|_| Session::record());
    let supervisor = Supervisor::builder()
        .policy(launch.policy)
        .carrier(launch.carrier)
        .backend(launch.backend)
        .notify(launch.notify)
        .build()
        .map_err(|error| Refusal::Own(error.to_string()))?;
    if let (Some(path), Some(policy), Some(session)) = (&launch.record, policy, session) {
        let header = Header::new(supervisor.backend(), policy, session.finish());
        let recorder = Recorder::create(path, &header)
            .map_err(|error| Refusal::Own(format!("cannot record to {}: {error}", path.display())))?;
        let _ = supervisor.engine().recorder.set(recorder);
    }
    let emulator = &supervisor.engine().emulator;
    let restore = |path| StateFile::restore(path, &emulator.store);
    let state =
        launch.state.as_deref().map(restore).transpose().map_err(|error| Refusal::Own(error.to_string()))?;
    if launch.summary == Summary::Print || tracing::enabled!(tracing::Level::DEBUG) {
        emulator.record_paths();
    }
    if let Some((step, errno)) = emulator.fuse_error {
        tracing::info!("using the memfd carrier: cannot {step}: {errno}");
    }
    let options = StartOptions {
        process_group: Some(group),
        signal_mask,
        restore_start_state: true,
        children: Children::All,
    };
    let program = supervisor.spawn(command(&launch.command), options).map_err(|error| match error {
        SpawnError::Exec { program, source } => Refusal::Program(program, source),
        error => Refusal::Own(error.to_string()),
    })?;
    let (backend, carrier) = (supervisor.backend(), emulator.carrier.name());
    tracing::info!(pid = program.pid(), backend, carrier, "started {:?}", launch.command);
    Ok(Server {
        supervisor,
        program,
        control: None,
        summary: launch.summary,
        state,
        log: Some(log),
        stops: 0,
        is_stopped: false,
    })
}

/// Holds all threads of this process, and those that they start, to one CPU.
fn pin_threads(cpu: usize) -> std::io::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    for thread in std::fs::read_dir("/proc/self/task")? {
        if let Some(tid) = thread?.file_name().to_str().and_then(|name| name.parse().ok()) {
            sched_setaffinity(Pid::from_raw(tid), &set)?;
        }
    }
    Ok(())
}

struct Server {
    supervisor: Supervisor,
    program: Supervised,
    /// The front; gone once the program ended.
    control: Option<OwnedFd>,
    summary: Summary,
    state: Option<StateFile>,
    log: Option<Box<dyn std::any::Any>>,
    /// Stops of the program that the front was told of.
    stops: i32,
    /// Whether the program is still in the last of them.
    is_stopped: bool,
}

impl Server {
    fn run(mut self) -> i32 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let result = runtime.and_then(|runtime| runtime.block_on(self.serve()));
        // What is left behind when the program ends can write too.
        self.save_state();
        match result {
            Ok(()) => 0,
            Err(error) => {
                eprintln!("sysemu: cannot wait for the program: {error}");
                OWN_FAILURE
            }
        }
    }

    async fn serve(&mut self) -> std::io::Result<()> {
        let mut events = self.program.take_events();
        // A tracer hears of everybody's end, so that there is nothing to reap; and each stop raises SIGCHLD, which
        // costs a wake-up of this thread unless it stays blocked.
        let mut children = events.is_none().then(|| signal(SignalKind::child())).transpose()?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut wanted = SigSet::empty();
        if children.is_some() {
            wanted.add(Signal::SIGCHLD);
        }
        wanted.add(Signal::SIGTERM);
        pthread_sigmask(SigmaskHow::SIG_UNBLOCK, Some(&wanted), None)?;
        let control = match self.control.take() {
            Some(control) => control,
            None => return Ok(()),
        };
        Message::Started(self.pid()).send(&control);
        // A SOCK_SEQPACKET socket keeps message boundaries as a datagram socket does, and has an end.
        let control = std::os::unix::net::UnixDatagram::from(control);
        control.set_nonblocking(true)?;
        let mut control = Some(UnixDatagram::from_std(control)?);
        loop {
            if children.is_some() && self.reap(&mut control) == Tree::Ended {
                return Ok(());
            }
            tokio::select! {
                () = changed(&mut children) => {}
                event = next(&mut events) => {
                    if self.note(event, &mut control) == Tree::Ended {
                        return Ok(());
                    }
                }
                _ = terminate.recv() => {
                    tree::kill_all();
                    return Ok(());
                }
                () = hear(&mut control, self.pid(), self.is_stopped.then_some(self.stops)) => {
                    // Killed with the front: what it stood for ends too.
                    tree::kill_all();
                    return Ok(());
                }
            }
        }
    }

    fn pid(&self) -> i32 {
        self.program.pid().cast_signed()
    }

    /// Takes note of every child that changed.
    fn reap(&mut self, control: &mut Option<UnixDatagram>) -> Tree {
        let options = libc::WNOHANG | libc::WUNTRACED | libc::WCONTINUED | libc::__WALL;
        let mut last_word = None;
        loop {
            let (pid, change) = match wait::wait(wait::ANY, options) {
                Ok(Some(change)) => change,
                Ok(None) => {
                    self.say_last(control, last_word);
                    return Tree::Runs;
                }
                Err(OsErrno::EINTR) => continue,
                Err(_) => {
                    if last_word.is_some()
                        && let Some(front) = control
                    {
                        Message::TreeEnded.send(front);
                    }
                    self.say_last(control, last_word);
                    return Tree::Ended;
                }
            };
            if pid != self.pid() {
                continue;
            }
            let message = match change {
                // Said when it is known whether the program left anything behind.
                Change::Exited(status) => {
                    last_word = Some(Message::Exited(status));
                    continue;
                }
                Change::Killed(signal) => {
                    last_word = Some(Message::Killed(signal));
                    continue;
                }
                Change::Stopped(signal) => self.stopped(signal),
                Change::Continued => self.continued(),
            };
            let _ = control.as_ref().map(|front| message.send(front));
        }
    }

    fn stopped(&mut self, signal: i32) -> Message {
        self.stops += 1;
        self.is_stopped = true;
        Message::Stopped(signal)
    }

    /// Somebody continued the program, perhaps while the front still stands.
    fn continued(&mut self) -> Message {
        self.is_stopped = false;
        Message::Continued
    }

    /// Takes note of what the tracer says; nothing more comes when nothing is left.
    fn note(&mut self, event: Option<Event>, control: &mut Option<UnixDatagram>) -> Tree {
        let message = match event {
            None => return Tree::Ended,
            Some(Event::Exited(status)) => {
                self.say_last(control, Some(Message::Exited(status)));
                return Tree::Runs;
            }
            Some(Event::Killed(signal)) => {
                self.say_last(control, Some(Message::Killed(signal)));
                return Tree::Runs;
            }
            Some(Event::Stopped(signal)) => self.stopped(signal),
            Some(Event::Continued) => self.continued(),
            Some(Event::TreeEnded) => Message::TreeEnded,
        };
        let _ = control.as_ref().map(|front| message.send(front));
        Tree::Runs
    }

    fn say_recorded(&self) {
        let Some(recorder) = self.supervisor.engine().recorder.get() else { return };
        let recorded = recorder.recorded();
        eprintln!("sysemu: {} calls recorded", recorded.calls);
        if recorded.lost > 0 {
            eprintln!("sysemu: {} calls could not be recorded", recorded.lost);
        }
    }

    /// Writes the state file. Before the front ends, so that whoever starts the next run finds it.
    fn save_state(&self) {
        let emulator = &self.supervisor.engine().emulator;
        emulator.carrier.look(std::process::id());
        if let Some(state) = &self.state
            && let Err(error) = state.save(&emulator.store)
        {
            eprintln!("sysemu: cannot save the state: {error}");
        }
    }

    /// Tells the front how the program ended, after everything else that is to be said.
    fn say_last(&mut self, control: &mut Option<UnixDatagram>, last_word: Option<Message>) {
        let Some(message) = last_word else { return };
        self.program.settle();
        self.save_state();
        self.log = None;
        if self.summary == Summary::Print {
            let engine = self.supervisor.engine();
            print_summary(&engine.stats, engine.table.rows().count());
        }
        self.say_recorded();
        if let Some(front) = control.take() {
            message.send(&front);
        }
        super::keeper::release_standard_error();
    }
}

#[derive(PartialEq, Eq)]
enum Tree {
    Runs,
    Ended,
}

/// Returns when a child may have changed; never with a tracer.
async fn changed(children: &mut Option<tokio::signal::unix::Signal>) {
    match children {
        Some(children) => drop(children.recv().await),
        None => std::future::pending().await,
    }
}

/// What the tracer says next; never anything without one.
async fn next(events: &mut Option<UnboundedReceiver<Event>>) -> Option<Event> {
    match events {
        Some(events) => events.recv().await,
        None => std::future::pending().await,
    }
}

/// Does what the front says; returns when the front is gone before the program ended.
///
/// `stop` is the stop that the program is in, by number. An older one is over, and a newer one is none of the front's.
async fn hear(control: &mut Option<UnixDatagram>, program: i32, stop: Option<i32>) {
    let Some(front) = control else {
        return std::future::pending().await;
    };
    loop {
        let mut bytes = [0u8; Message::SIZE];
        let Ok(len) = front.recv(&mut bytes).await else { return };
        match Message::from_bytes(&bytes[..len]) {
            Some(Message::Signal(number)) => {
                let _ = wait::kill(program, number);
            }
            // Continuing what runs already would make handlers for SIGCONT run twice.
            Some(Message::Resume(stops)) if stop == Some(stops) && is_stopped(program) => {
                let _ = wait::kill(program, libc::SIGCONT);
            }
            Some(_) => {}
            None => return,
        }
    }
}

fn is_stopped(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // A tracee is `t` in any stop; the tracer does not leave it in others for long.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['T', 't']))
}

fn print_summary(stats: &Stats, rows: usize) {
    let counts: Vec<String> = stats
        .by_verdict()
        .into_iter()
        .map(|(verdict, calls)| format!("{calls} {}", verdict.name()))
        .collect();
    let counts_of_all = || (0..rows).flat_map(|row| Verdict::ALL.map(|verdict| stats.count(row, verdict)));
    let entries: u64 = counts_of_all().map(|count| count.entries).sum();
    let stops: u64 = counts_of_all().map(|count| count.stops).sum();
    let calls: u64 = stats.by_verdict().values().sum();
    eprintln!(
        "sysemu: {calls} calls: {}; {} interrupted; {entries} kernel entries, {stops} stops",
        counts.join(", "),
        stats.interrupted()
    );
    let missed = stats.missed();
    if !missed.is_empty() {
        eprintln!("sysemu: paths below /proc and /sys that no row owns:");
        for (path, count) in missed {
            eprintln!("{count:>8} {path}");
        }
    }
}
