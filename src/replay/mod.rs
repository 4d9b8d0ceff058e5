//! Serving recorded calls again, without the program that made them: see [`crate::emulator::record`].
//!
//! The handlers of this version run on what the record says that they were told, and what they do is compared with
//! what was done then. A question that the record has no answer for is a difference too.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::emulator::abi::ABIS;
use crate::emulator::backend::BackendChoice;
use crate::emulator::carrier::CarrierChoice;
use crate::emulator::record::{CallLine, Header, OfflineAnswer, VERSION, line};
use crate::emulator::sys::Spent;
use crate::emulator::sys::seccomp::Notification;
use crate::emulator::sys::tape::Session;
use crate::handlers::providers;
use crate::policy::{Loader, Policy, PolicyError};
use crate::{BuildError, Supervisor};

pub mod reduce;

/// Why a record cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// It cannot be read or written.
    #[error("cannot use the record {0}: {1}")]
    File(PathBuf, std::io::Error),
    /// It does not hold what sysemu wrote.
    #[error("the record {path} is damaged in line {line}: {why}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// 1-based line.
        line: usize,
        /// What is wrong there.
        why: String,
    },
    /// Its policy cannot be loaded.
    #[error("the policy in the record has mistakes:\n{0}")]
    Policy(#[from] PolicyError),
    /// The emulator cannot be made.
    #[error(transparent)]
    Build(#[from] BuildError),
}

/// A whole record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What the calls have in common.
    pub header: Header,
    /// The calls, in the order of the file: the one with index 0 is in line 2.
    pub calls: Vec<CallLine>,
}

impl Record {
    /// Reads a file.
    ///
    /// # Errors
    /// See [`RecordError`].
    pub fn read(path: &Path) -> Result<Self, RecordError> {
        let bytes = std::fs::read(path).map_err(|error| RecordError::File(path.into(), error))?;
        Record::parse(&bytes).map_err(|(line, why)| RecordError::Damaged { path: path.into(), line, why })
    }

    /// Parses the content of a file.
    ///
    /// # Errors
    /// The line that is damaged, and what is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Self, (usize, String)> {
        let mut lines = bytes.split(|byte| *byte == b'\n');
        let why = |number| move |error: serde_json::Error| (number, error.to_string());
        let first = lines.next().unwrap_or_default();
        let version = serde_json::from_slice::<serde_json::Value>(first).map_err(why(1))?;
        match version.get("sysemu-record").and_then(serde_json::Value::as_u64) {
            Some(version) if version == u64::from(VERSION) => {}
            Some(other) => return Err((1, format!("format {other}, this version reads {VERSION}"))),
            None => return Err((1, "it does not begin with the header of a record".into())),
        }
        let header = serde_json::from_slice(first).map_err(why(1))?;
        let mut calls = Vec::new();
        let mut rest: Vec<&[u8]> = lines.collect();
        // The last line ends with a newline too.
        match rest.pop() {
            Some(b"") => {}
            _ => return Err((rest.len() + 2, "it ends in the middle of a line".into())),
        }
        for (index, text) in rest.into_iter().enumerate() {
            let call: CallLine = serde_json::from_slice(text).map_err(why(index + 2))?;
            if ABIS.iter().all(|abi| abi.name != call.abi) {
                return Err((index + 2, format!("unknown ABI \"{}\"", call.abi)));
            }
            calls.push(call);
        }
        Ok(Record { header, calls })
    }

    /// Writes a file.
    ///
    /// # Errors
    /// See [`RecordError::File`].
    pub fn write(&self, path: &Path) -> Result<(), RecordError> {
        let text = || -> std::io::Result<String> {
            let calls = self.calls.iter().map(line).collect::<std::io::Result<String>>()?;
            Ok(line(&self.header)? + &calls)
        };
        text()
            .and_then(|text| std::fs::write(path, text))
            .map_err(|error| RecordError::File(path.into(), error))
    }
}

/// What came of a call that was served again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Played {
    /// What the handler did, the answer last.
    pub outcome: Vec<String>,
    /// Questions that the record has no answer for.
    pub unknown: Vec<String>,
    /// Questions that it has an answer for.
    pub asked: BTreeSet<String>,
}

impl Played {
    /// Whether it is what the record says.
    pub fn is_as_recorded(&self, call: &CallLine) -> bool {
        self.unknown.is_empty() && self.outcome == call.outcome
    }
}

/// An emulator that serves recorded calls.
pub struct Replayer {
    supervisor: Supervisor,
    process: u32,
}

impl Replayer {
    /// Makes the emulator that a record was written with.
    ///
    /// # Errors
    /// See [`RecordError`].
    pub fn new(header: &Header) -> Result<Self, RecordError> {
        Replayer::with_policy(header, policy_of(header)?)
    }

    /// As [`Replayer::new`], under another policy.
    ///
    /// # Errors
    /// See [`RecordError`].
    pub fn with_policy(header: &Header, policy: Policy) -> Result<Self, RecordError> {
        let backend = if header.backend == "ptrace" { BackendChoice::Ptrace } else { BackendChoice::Notify };
        let _session = Session::play(header.process, header.facts.clone(), Vec::new());
        let supervisor =
            Supervisor::builder().policy(policy).backend(backend).carrier(CarrierChoice::Memfd).build()?;
        Ok(Replayer { supervisor, process: header.process })
    }

    /// Serves a call. Nothing outside of this process is touched or asked.
    pub fn serve(&mut self, call: &CallLine) -> Played {
        let engine = self.supervisor.engine();
        let session = Session::play(self.process, call.facts.clone(), call.memory.clone());
        call.state.set(&engine.emulator);
        let arch = ABIS.iter().find(|abi| abi.name == call.abi).map_or(0, |abi| abi.audit_arch);
        let notification = Notification { id: 0, tid: call.tid, arch, nr: call.nr, args: call.args };
        engine.serve(&notification, &OfflineAnswer, Spent::default());
        let tape = session.finish();
        let asked = call.facts.keys().filter(|question| tape.has_asked(question)).cloned().collect();
        Played { outcome: tape.acts, unknown: tape.unknown, asked }
    }
}

/// The policy of a record.
///
/// # Errors
/// See [`RecordError::Policy`].
pub fn policy_of(header: &Header) -> Result<Policy, RecordError> {
    let providers = providers::all();
    Ok(Loader::new().providers(&providers).text("the record", header.policy.as_str()).load()?)
}
