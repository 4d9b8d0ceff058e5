//! `sysemu calls`: runs a program under ptrace(2) and logs its path calls. `sysemu diff` runs it natively and under
//! sysemu; supervisor and tracer do not get into each other's way, because the stop before a call comes before the
//! filter, and the stop behind it after the answer.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::io::{self, BufWriter, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use nix::errno::Errno;
use sysemu::emulator::backend::ptrace::registers::{Mode, call_of, result_of};
use sysemu::emulator::sys::ptrace::{self, Stop};
use sysemu::emulator::sys::spawn::{self, Side};
use sysemu::launcher::{NOT_EXECUTABLE, NOT_FOUND};

use super::super::fail;
use super::calls::{Arg, Out, Traced, open_flags, table};
use super::capture;
use super::record::Record;

/// What is known of a task.
struct Task {
    name: String,
    children: usize,
    call: Option<Pending>,
    is_inside: bool,
}

/// A call between its two stops.
struct Pending {
    record: Record,
    out: Out,
    args: [u64; 6],
    mode: Mode,
}

struct Tracer {
    log: BufWriter<std::fs::File>,
    /// Where the run's own files are: nothing about them is logged.
    own: PathBuf,
    calls: HashMap<(&'static str, u32), &'static Traced>,
    tasks: HashMap<i32, Task>,
    /// Every task that there ever was, for paths that hold its number.
    names: HashMap<String, String>,
    /// New tasks that stopped before their parents' stop told of them.
    early: HashSet<i32>,
}

/// Runs the program and gives its status, 128+n for signals.
pub fn main(output: &Path, command: &[OsString]) -> ExitCode {
    match trace(output, command) {
        Ok(status) => ExitCode::from(u8::try_from(status).unwrap_or(u8::MAX)),
        Err(error) => fail(format!("cannot trace {}: {error}", command[0].display())),
    }
}

fn trace(output: &Path, command: &[OsString]) -> io::Result<i32> {
    let log = BufWriter::new(std::fs::File::create(output)?);
    let (wait, go) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    let child = match spawn::fork()? {
        Side::Child => {
            drop((go, log));
            std::process::exit(become_program(wait, command))
        }
        Side::Parent(child) => child,
    };
    drop(wait);
    ptrace::seize(child)?;
    nix::unistd::write(&go, b"g")?;
    let main = Task { name: "0".into(), children: 0, call: None, is_inside: true };
    let mut tracer = Tracer {
        log,
        own: output.parent().unwrap_or(Path::new("/")).to_owned(),
        calls: table(),
        tasks: HashMap::from([(child, main)]),
        names: HashMap::from([(child.to_string(), "{0}".to_owned())]),
        early: HashSet::new(),
    };
    let status = tracer.run(child)?;
    tracer.log.flush()?;
    Ok(status)
}

/// Waits for the tracer; gives the status for a program that cannot be executed.
fn become_program(wait: OwnedFd, command: &[OsString]) -> i32 {
    let mut byte = [0];
    if nix::unistd::read(&wait, &mut byte) != Ok(1) {
        return sysemu::launcher::OWN_FAILURE;
    }
    spawn::restore_start_state();
    let error = Command::new(&command[0]).args(&command[1..]).exec();
    eprintln!("sysemu: cannot run {}: {error}", command[0].display());
    if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_EXECUTABLE }
}

impl Tracer {
    /// Until the program ends. What it leaves behind ends with the tracer.
    fn run(&mut self, main: i32) -> io::Result<i32> {
        loop {
            let (tid, stop) = match ptrace::wait(-1, 0) {
                Ok(Some(stopped)) => stopped,
                Ok(None) | Err(Errno::EINTR) => continue,
                Err(errno) => return Err(errno.into()),
            };
            let status = match stop {
                Stop::Exited(status) => Some(status),
                Stop::Killed(signal) => Some(128 + signal),
                stop => {
                    // A task that was killed meanwhile is reported once more.
                    match self.stopped(tid, stop)? {
                        Ok(()) | Err(Errno::ESRCH) => {}
                        Err(errno) => return Err(errno.into()),
                    }
                    None
                }
            };
            if let Some(status) = status {
                self.tasks.remove(&tid);
                if tid == main {
                    return Ok(status);
                }
            }
        }
    }

    fn stopped(&mut self, tid: i32, stop: Stop) -> io::Result<Result<(), Errno>> {
        Ok(match stop {
            Stop::Group(_) => ptrace::listen(tid),
            Stop::Signal(signal) => ptrace::resume_to_syscall(tid, signal),
            Stop::Trap if !self.tasks.contains_key(&tid) => {
                self.early.insert(tid);
                Ok(())
            }
            Stop::Event(libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK | libc::PTRACE_EVENT_CLONE) => {
                self.made_a_task(tid)
            }
            Stop::Event(libc::PTRACE_EVENT_EXEC) => self.executed(tid),
            Stop::Syscall => {
                self.call(tid)?;
                ptrace::resume_to_syscall(tid, 0)
            }
            _ => ptrace::resume_to_syscall(tid, 0),
        })
    }

    fn made_a_task(&mut self, tid: i32) -> Result<(), Errno> {
        let child = ptrace::event_message(tid)? as i32;
        if let Some(parent) = self.tasks.get_mut(&tid) {
            parent.children += 1;
            let name = format!("{}.{}", parent.name, parent.children);
            self.names.insert(child.to_string(), format!("{{{name}}}"));
            self.tasks.insert(child, Task { name, children: 0, call: None, is_inside: false });
        }
        if self.early.remove(&child) {
            let _ = ptrace::resume_to_syscall(child, 0);
        }
        ptrace::resume_to_syscall(tid, 0)
    }

    /// The task that called execve(2) goes on with the number of its process.
    fn executed(&mut self, tid: i32) -> Result<(), Errno> {
        let former = ptrace::event_message(tid)? as i32;
        if former != tid
            && let Some(task) = self.tasks.remove(&former)
        {
            self.tasks.insert(tid, task);
        }
        ptrace::resume_to_syscall(tid, 0)
    }

    fn call(&mut self, tid: i32) -> io::Result<()> {
        let Some(mut task) = self.tasks.remove(&tid) else {
            return Ok(());
        };
        if let Ok(registers) = ptrace::registers(tid) {
            if !task.is_inside {
                task.call = self.begun(tid, &task.name, &registers);
            } else if let Some(pending) = task.call.take() {
                self.ended(tid, pending, &registers)?;
            }
            task.is_inside = !task.is_inside;
        }
        self.tasks.insert(tid, task);
        Ok(())
    }

    fn begun(&self, tid: i32, task: &str, registers: &ptrace::Registers) -> Option<Pending> {
        let mode = Mode::of(registers);
        let (nr, args) = call_of(registers, mode.abi());
        let traced = self.calls.get(&(mode.abi().name, nr))?;
        let mut record = Record::about(task, traced.name, String::new());
        let mut base = self.link(tid, libc::AT_FDCWD);
        for arg in traced.args {
            let shown = self.argument(tid, *arg, &args, &mut base, &mut record)?;
            record.args.push(shown);
        }
        Some(Pending { record, out: traced.out, args, mode })
    }

    /// An argument as text. Descriptors and paths also say what the call is about; `None` when that is not compared.
    fn argument(
        &self,
        tid: i32,
        arg: Arg,
        args: &[u64; 6],
        base: &mut Option<String>,
        record: &mut Record,
    ) -> Option<String> {
        let quoted = |text: Option<Vec<u8>>| match text {
            Some(text) => format!("\"{}\"", self.named(&capture::shown(&text))),
            None => "(fault)".to_owned(),
        };
        Some(match arg {
            Arg::Dir(index) => {
                let fd = args[index] as i32;
                *base = self.link(tid, fd);
                record.fd = Some(fd);
                match base {
                    _ if fd == libc::AT_FDCWD => "AT_FDCWD".to_owned(),
                    Some(link) => format!("{fd}<{}>", self.named(link)),
                    None => fd.to_string(),
                }
            }
            Arg::Path(index) => {
                let path = capture::text(tid, args[index]);
                // An empty path is about the descriptor before it.
                record.fd = record.fd.filter(|_| path.as_deref() == Some(b""));
                record.object = self.object(base.take(), path.as_deref())?;
                quoted(path)
            }
            Arg::Fd(index) => {
                let fd = args[index] as i32;
                let link = self.link(tid, fd)?;
                record.object = self.object(Some(link.clone()), None)?;
                record.fd = Some(fd);
                format!("{fd}<{}>", self.named(&link))
            }
            Arg::Text(index) => quoted(capture::text(tid, args[index])),
            Arg::OpenFlags(index) => open_flags(args[index] & u64::from(u32::MAX)),
            Arg::How(index) => how(tid, args[index]),
            Arg::Bits(index) => format!("{:#o}", args[index] as u32),
            Arg::Number(index) => args[index].cast_signed().to_string(),
            Arg::Bytes(index) => {
                let len = usize::try_from(args[index + 1]).unwrap_or(usize::MAX);
                let bytes = capture::bytes(tid, args[index], len.min(64));
                format!("\"{}\"{}, {len}", bytes.escape_ascii(), if len > 64 { "..." } else { "" })
            }
        })
    }

    fn ended(&mut self, tid: i32, pending: Pending, registers: &ptrace::Registers) -> io::Result<()> {
        let Pending { mut record, out, args, mode } = pending;
        let result = result_of(registers, mode);
        // The kernel makes the call again: ERESTARTSYS and its like.
        if (-516..=-512).contains(&result) {
            return Ok(());
        }
        record.result = match i32::try_from(-result) {
            Ok(errno @ 1..4096) => format!("{:?}", Errno::from_raw(errno)),
            _ => result.to_string(),
        };
        record.out = capture::stored(tid, out, args, result, mode == Mode::Long);
        if let Some(text) = record.out.get_mut("text") {
            *text = self.named(text);
        }
        serde_json::to_writer(&mut self.log, &record)?;
        self.log.write_all(b"\n")
    }

    /// Where a descriptor leads, when it has a path.
    fn link(&self, tid: i32, fd: i32) -> Option<String> {
        let link = match fd {
            libc::AT_FDCWD => format!("/proc/{tid}/cwd"),
            fd => format!("/proc/{tid}/fd/{fd}"),
        };
        let link = std::fs::read_link(link).ok()?;
        Some(capture::shown(link.as_os_str().as_bytes()))
    }

    /// The absolute path that a call is about; `None` for what is not compared.
    fn object(&self, base: Option<String>, path: Option<&[u8]>) -> Option<String> {
        let path = capture::shown(path.unwrap_or_default());
        let whole = if path.starts_with('/') {
            path
        } else {
            let base = base.unwrap_or_default();
            if path.is_empty() && (!base.starts_with('/') || base.starts_with("/dev/")) {
                return None;
            }
            format!("{base}/{path}")
        };
        let mut names = Vec::new();
        for name in whole.split('/') {
            match name {
                "" | "." => {}
                ".." => {
                    names.pop();
                }
                name => names.push(name),
            }
        }
        let lexical = format!("/{}", names.join("/"));
        (!Path::new(&lexical).starts_with(&self.own)).then(|| self.named(&lexical))
    }

    /// A path in which the numbers of tasks are replaced by their names.
    fn named(&self, path: &str) -> String {
        let mut is_procfs = !path.starts_with('/');
        let named = path.split('/').map(|name| {
            let named = self.names.get(name).filter(|_| is_procfs).map_or(name, String::as_str);
            is_procfs |= name == "proc";
            named
        });
        named.collect::<Vec<_>>().join("/")
    }
}

fn how(tid: i32, addr: u64) -> String {
    let bytes = capture::bytes(tid, addr, 24);
    match (capture::number(&bytes, 0, 8), capture::number(&bytes, 16, 8)) {
        (Some(flags), Some(resolve)) => format!("{} resolve {resolve:#x}", open_flags(flags)),
        _ => "(fault)".into(),
    }
}
