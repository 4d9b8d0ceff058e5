//! Records of calls: a file of JSON lines, a header and one line for each call, written while a program runs.
//!
//! A line holds everything that the handler was told: registers, the memory that it read, the state of the tree, and
//! each answer of the outside (see [`tape`]). So a call can be served again without the program, by itself, in any
//! order. What the handler did about it, in order and as text, is the last field.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use super::abi::Abi;
use super::context::Emulator;
use super::engine::Answer;
use super::errno::Errno;
use super::sys::OsResult;
use super::sys::seccomp::Notification;
use super::sys::tape::{self, Facts, Piece, Tape};
use super::tracee::Tracee;
use super::values::Value;
use std::os::fd::{AsRawFd, BorrowedFd};

/// The version of the format. Another one is refused.
pub const VERSION: u32 = 1;

/// The first line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// [`VERSION`].
    #[serde(rename = "sysemu-record")]
    pub record: u32,
    /// Version of sysemu that wrote it.
    pub version: String,
    /// Name of the backend.
    pub backend: String,
    /// Number of the supervisor's process.
    pub process: u32,
    /// The policy, as TOML.
    pub policy: String,
    /// What the supervisor was told when it was built.
    pub facts: Facts,
}

impl Header {
    /// The header for a supervisor of this process that was told these things while it was built.
    pub fn new(backend: &str, policy: String, tape: Tape) -> Self {
        Header {
            record: VERSION,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            backend: backend.to_owned(),
            process: std::process::id(),
            policy,
            facts: tape.compact().facts,
        }
    }
}

/// One call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallLine {
    /// Its name, for people.
    pub call: String,
    /// Name of its ABI.
    pub abi: String,
    /// Its number there.
    pub nr: u32,
    /// Thread id of the caller.
    pub tid: u32,
    /// Raw arguments.
    pub args: [u64; 6],
    /// The caller's memory, as far as it was read.
    pub memory: Vec<Piece>,
    /// The state of the tree.
    #[serde(default, skip_serializing_if = "State::is_empty")]
    pub state: State,
    /// What the handler was told.
    pub facts: Facts,
    /// What it did about it, the answer last.
    pub outcome: Vec<String>,
}

/// What earlier calls left in the emulator.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Values that were written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<Value>,
    /// Virtual working directories by process; none for a process that went to a real one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub directories: Vec<(u32, Option<String>)>,
}

impl State {
    fn is_empty(&self) -> bool {
        self.values.is_empty() && self.directories.is_empty()
    }

    /// The state of an emulator now.
    pub fn of(emulator: &Emulator) -> Self {
        State { values: emulator.store.values.all(), directories: emulator.resolver.cwds.all() }
    }

    /// Puts an emulator into this state. To be called with a tape on, which gives what stands for processes.
    pub fn set(&self, emulator: &Emulator) {
        emulator.store.values.replace(self.values.clone());
        emulator.resolver.cwds.replace(&self.directories);
    }
}

/// Writes a record.
pub struct Recorder {
    out: Mutex<File>,
    calls: AtomicU64,
    lost: AtomicU64,
}

/// How much was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Calls in the file.
    pub calls: u64,
    /// Calls that could not be written to it.
    pub lost: u64,
}

impl Recorder {
    /// Creates the file, or empties it, and writes the header.
    ///
    /// # Errors
    /// As open(2) and write(2).
    pub fn create(path: &Path, header: &Header) -> io::Result<Self> {
        let mut out = File::create(path)?;
        out.write_all(line(header)?.as_bytes())?;
        Ok(Recorder { out: Mutex::new(out), calls: AtomicU64::new(0), lost: AtomicU64::new(0) })
    }

    /// How much was recorded so far.
    pub fn recorded(&self) -> Recorded {
        Recorded { calls: self.calls.load(Ordering::SeqCst), lost: self.lost.load(Ordering::SeqCst) }
    }

    fn add(&self, call: &CallLine) {
        let written = line(call).and_then(|line| {
            let mut out = self.out.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            // Each line at once, so that the file is whole whenever the supervisor ends.
            out.write_all(line.as_bytes())
        });
        match written {
            Ok(()) => self.calls.fetch_add(1, Ordering::SeqCst),
            Err(error) => {
                tracing::debug!("a call is not recorded: {error}");
                self.lost.fetch_add(1, Ordering::SeqCst)
            }
        };
    }

    /// Serves a call and records it.
    pub fn around(
        &self,
        emulator: &Emulator,
        (name, abi, call): (&str, &Abi, &Notification),
        answer: &dyn Answer,
        serve: impl FnOnce(&dyn Answer),
    ) {
        let session = tape::Session::record();
        let state = State::of(emulator);
        serve(&TapedAnswer(answer));
        let tape = session.finish().compact();
        self.add(&CallLine {
            call: name.to_owned(),
            abi: abi.name.to_owned(),
            nr: call.nr,
            tid: call.tid,
            args: call.args,
            memory: tape.memory,
            state,
            facts: tape.facts,
            outcome: tape.acts,
        });
    }
}

/// One line of a record.
///
/// # Errors
/// None for the types of this file.
pub fn line(value: &impl Serialize) -> io::Result<String> {
    Ok(serde_json::to_string(value)? + "\n")
}

/// An answer whose results are facts of the call.
struct TapedAnswer<'a>(&'a dyn Answer);

impl Tracee for TapedAnswer<'_> {
    fn seek(&self, fd: i32, offset: i64, whence: i32) -> OsResult<i64> {
        tape::os(|| seek_question(fd, offset, whence), || self.0.seek(fd, offset, whence))
    }

    fn watch(&self, inotify: i32, target: BorrowedFd<'_>, mask: u32) -> OsResult<i32> {
        tape::os(|| watch_question(inotify, target, mask), || self.0.watch(inotify, target, mask))
    }

    fn watch_looks(&self) {
        tape::act(|| WATCH_LOOKS.to_owned());
        tape::aside(|| self.0.watch_looks());
    }
}

fn seek_question(fd: i32, offset: i64, whence: i32) -> String {
    format!("seek {fd} {offset} {whence}")
}

fn watch_question(inotify: i32, target: BorrowedFd<'_>, mask: u32) -> String {
    format!("watch {inotify} {mask:#x} {}", tape::label_of(target.as_raw_fd()))
}

impl Answer for TapedAnswer<'_> {
    fn backend(&self) -> &'static str {
        self.0.backend()
    }

    fn is_valid(&self) -> bool {
        tape::fact(|| VALID.to_owned(), || self.0.is_valid())
    }

    fn store(&self, addr: u64, bytes: &[u8]) -> OsResult<()> {
        tape::act(|| store_act(addr, bytes));
        tape::os(|| STORE.to_owned(), || self.0.store(addr, bytes))
    }

    fn resume(&self) -> OsResult<()> {
        tape::act(|| RESUME.to_owned());
        tape::aside(|| self.0.resume())
    }

    fn value(&self, value: i64) -> OsResult<()> {
        tape::act(|| format!("return {value}"));
        tape::aside(|| self.0.value(value))
    }

    fn errno(&self, errno: Errno) -> OsResult<()> {
        tape::act(|| format!("fail {errno}"));
        tape::aside(|| self.0.errno(errno))
    }

    fn fd(&self, fd: BorrowedFd<'_>, close_on_exec: bool) -> OsResult<()> {
        let what = tape::label_of(fd.as_raw_fd());
        tape::act(|| fd_act(&what, close_on_exec));
        tape::os(|| GIVE.to_owned(), || self.0.fd(fd, close_on_exec))
    }
}

/// Trapping looks at descriptors.
const WATCH_LOOKS: &str = "trap looks at descriptors";
/// Whether the caller still waits.
const VALID: &str = "caller waits";
/// The kernel runs the call.
const RESUME: &str = "continue";
/// Giving a descriptor to the caller.
const GIVE: &str = "descriptor given";
/// Writing to the caller's memory.
const STORE: &str = "memory written";

/// What is true of any caller that waits for its answer and has room for it.
pub const WILLING: [(&str, &str); 3] = [(VALID, "true"), (GIVE, r#"{"ok":null}"#), (STORE, r#"{"ok":null}"#)];

fn store_act(addr: u64, bytes: &[u8]) -> String {
    format!("store {addr:#x} {}", tape::text(bytes))
}

fn fd_act(what: &str, close_on_exec: bool) -> String {
    format!("return descriptor of {what}{}", if close_on_exec { ", close-on-exec" } else { "" })
}

/// Answers a call that nobody made: everything is noted, nobody is told. Needs a playing tape.
#[derive(Debug, Default)]
pub struct OfflineAnswer;

impl Tracee for OfflineAnswer {
    fn seek(&self, fd: i32, offset: i64, whence: i32) -> OsResult<i64> {
        tape::os(|| seek_question(fd, offset, whence), || Err(nix::errno::Errno::EBADF))
    }

    fn watch(&self, inotify: i32, target: BorrowedFd<'_>, mask: u32) -> OsResult<i32> {
        tape::os(|| watch_question(inotify, target, mask), || Err(nix::errno::Errno::EBADF))
    }

    fn watch_looks(&self) {
        tape::act(|| WATCH_LOOKS.to_owned());
    }
}

impl Answer for OfflineAnswer {
    fn backend(&self) -> &'static str {
        "offline"
    }

    fn is_valid(&self) -> bool {
        tape::fact(|| VALID.to_owned(), || true)
    }

    fn store(&self, addr: u64, bytes: &[u8]) -> OsResult<()> {
        tape::act(|| store_act(addr, bytes));
        tape::os(|| STORE.to_owned(), || Ok(()))
    }

    fn resume(&self) -> OsResult<()> {
        tape::act(|| RESUME.to_owned());
        Ok(())
    }

    fn value(&self, value: i64) -> OsResult<()> {
        tape::act(|| format!("return {value}"));
        Ok(())
    }

    fn errno(&self, errno: Errno) -> OsResult<()> {
        tape::act(|| format!("fail {errno}"));
        Ok(())
    }

    fn fd(&self, fd: BorrowedFd<'_>, close_on_exec: bool) -> OsResult<()> {
        let what = tape::label_of(fd.as_raw_fd());
        tape::act(|| fd_act(&what, close_on_exec));
        tape::os(|| GIVE.to_owned(), || Ok(()))
    }
}
