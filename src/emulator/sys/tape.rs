//! What the supervisor was told while it served a call: recorded on the one run, told again on the other.
//!
//! A *fact* is a question that the supervisor asks the outside (a path to open, a file to look at, the memory of a
//! task) and the answer. Each place that asks goes through this file. Without a tape on the calling thread, which is
//! the normal case, the question is not even put into words. On a recording tape the answer is noted. On a playing
//! tape the outside is not asked: the answer is that of the record, and a question that the record does not have is
//! noted as *unknown* and answered with a failure. A question that was asked several times is answered in turn.
//!
//! Descriptors have no numbers in questions, which differ from run to run, but the words by which they were come by.
//! On a playing tape they are stand-ins that lead nowhere.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno as OsErrno;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::OsResult;

/// Answers by question, in the order in which they were given.
pub type Facts = BTreeMap<String, Vec<Value>>;

/// A piece of a task's memory as it was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// Address of the first byte.
    pub at: u64,
    /// The bytes, see [`text`].
    pub bytes: String,
    /// Why there are none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub errno: i32,
}

fn is_zero(number: &i32) -> bool {
    *number == 0
}

/// What came of a tape.
#[derive(Debug, Default)]
pub struct Tape {
    /// Questions and answers.
    pub facts: Facts,
    /// The memory that was read.
    pub memory: Vec<Piece>,
    /// What the supervisor did to the outside, in order.
    pub acts: Vec<String>,
    /// Questions that the record has no answer for.
    pub unknown: Vec<String>,
    asked: HashMap<String, usize>,
    labels: HashMap<i32, String>,
    own: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Off,
    Record,
    Play,
}

thread_local! {
    static MODE: Cell<Mode> = const { Cell::new(Mode::Off) };
    static TAPE: RefCell<Option<Tape>> = const { RefCell::new(None) };
}

/// A tape on the calling thread; taken off when it is dropped.
pub struct Session(());

impl Session {
    /// Begins to record.
    pub fn record() -> Self {
        Session::start(Mode::Record, Tape { own: std::process::id(), ..Tape::default() })
    }

    /// Begins to play what a process with this number recorded.
    pub fn play(own: u32, facts: Facts, memory: Vec<Piece>) -> Self {
        Session::start(Mode::Play, Tape { own, facts, memory, ..Tape::default() })
    }

    fn start(mode: Mode, tape: Tape) -> Self {
        TAPE.set(Some(tape));
        MODE.set(mode);
        Session(())
    }

    /// Ends the tape.
    pub fn finish(self) -> Tape {
        TAPE.take().unwrap_or_default()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        MODE.set(Mode::Off);
        TAPE.set(None);
    }
}

/// Whether the calling thread has a tape: then nothing may be answered from memory, so that each call stands by itself.
pub fn is_on() -> bool {
    MODE.get() != Mode::Off
}

/// Whether the outside is not to be touched.
pub fn is_playing() -> bool {
    MODE.get() == Mode::Play
}

/// Restores the mode also when a handler panics.
struct Aside(Mode);

impl Drop for Aside {
    fn drop(&mut self) {
        MODE.set(self.0);
    }
}

/// Does something that is no part of the record and harmless when it is played.
pub fn aside<T>(act: impl FnOnce() -> T) -> T {
    let _restore = Aside(MODE.replace(Mode::Off));
    act()
}

fn with<T>(act: impl FnOnce(&mut Tape) -> T) -> Option<T> {
    TAPE.with_borrow_mut(|tape| tape.as_mut().map(act))
}

fn note(question: String, answer: serde_json::Result<Value>) {
    with(|tape| tape.facts.entry(question).or_default().push(answer.unwrap_or_default()));
}

impl Tape {
    fn recall(&mut self, question: &str) -> Option<Value> {
        let answers = self.facts.get(question).filter(|answers| !answers.is_empty());
        let Some(answers) = answers else {
            self.unknown.push(question.to_owned());
            return None;
        };
        let asked = self.asked.entry(question.to_owned()).or_default();
        let answer = answers[(*asked).min(answers.len() - 1)].clone();
        *asked += 1;
        Some(answer)
    }

    /// The facts of a recording, each sequence of equal answers given once.
    pub fn compact(mut self) -> Self {
        for answers in self.facts.values_mut() {
            if answers.iter().all(|answer| *answer == answers[0]) {
                answers.truncate(1);
            }
        }
        self
    }

    /// Whether a fact was asked for while playing.
    pub fn has_asked(&self, question: &str) -> bool {
        self.asked.contains_key(question)
    }
}

/// Asks something that cannot fail.
pub fn fact<T: Serialize + DeserializeOwned + Default>(
    question: impl FnOnce() -> String,
    ask: impl FnOnce() -> T,
) -> T {
    match MODE.get() {
        Mode::Off => ask(),
        Mode::Record => {
            let answer = aside(ask);
            note(question(), serde_json::to_value(&answer));
            answer
        }
        Mode::Play => {
            let question = question();
            let answer = with(|tape| tape.recall(&question)).flatten();
            answer.and_then(|answer| serde_json::from_value(answer).ok()).unwrap_or_default()
        }
    }
}

/// What stands for a result in a record: the value, or the errno.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Outcome<T> {
    Ok(T),
    Errno(i32),
}

fn outcome<T>(result: OsResult<T>) -> Outcome<T> {
    result.map_or_else(|errno| Outcome::Errno(errno as i32), Outcome::Ok)
}

/// What a question without an answer in the record fails with.
const UNKNOWN: OsErrno = OsErrno::EIO;

fn recall<T: DeserializeOwned>(question: String) -> OsResult<T> {
    let answer = with(|tape| tape.recall(&question)).flatten();
    match answer.and_then(|answer| serde_json::from_value(answer).ok()) {
        Some(Outcome::Ok(value)) => Ok(value),
        Some(Outcome::Errno(errno)) => Err(OsErrno::from_raw(errno)),
        None => Err(UNKNOWN),
    }
}

/// Asks something that can fail.
///
/// # Errors
/// As `ask`, or as it failed when it was recorded.
pub fn os<T: Serialize + DeserializeOwned + Clone>(
    question: impl FnOnce() -> String,
    ask: impl FnOnce() -> OsResult<T>,
) -> OsResult<T> {
    match MODE.get() {
        Mode::Off => ask(),
        Mode::Record => {
            let result = aside(ask);
            note(question(), serde_json::to_value(outcome(result.clone())));
            result
        }
        Mode::Play => recall(question()),
    }
}

/// As [`os`], for bytes.
///
/// # Errors
/// As [`os`].
pub fn bytes(
    question: impl FnOnce() -> String,
    ask: impl FnOnce() -> OsResult<Vec<u8>>,
) -> OsResult<Vec<u8>> {
    if !is_on() {
        return ask();
    }
    os(question, || ask().map(|bytes| text(&bytes))).map(|text| untext(&text).unwrap_or_default())
}

/// As [`os`], for a new descriptor, which is known by the question from now on.
///
/// # Errors
/// As [`os`].
pub fn fd(question: impl FnOnce() -> String, ask: impl FnOnce() -> OsResult<OwnedFd>) -> OsResult<OwnedFd> {
    if !is_on() {
        return ask();
    }
    let question = question();
    let fd = if is_playing() {
        recall::<()>(question.clone())?;
        stand_in()?
    } else {
        let result = aside(ask);
        let noted = outcome(result.as_ref().map(drop).map_err(|errno| *errno));
        note(question.clone(), serde_json::to_value(noted));
        result?
    };
    let label = question.split_once(' ').map_or(&*question, |(_, what)| what).to_owned();
    with(|tape| tape.labels.insert(fd.as_raw_fd(), label));
    Ok(fd)
}

/// A descriptor that leads nowhere.
///
/// # Errors
/// EMFILE and the like.
pub fn stand_in() -> OsResult<OwnedFd> {
    thread_local! {
        static NOWHERE: OsResult<OwnedFd> = super::file::memfd(c"nowhere");
    }
    NOWHERE.with(|nowhere| match nowhere {
        Ok(nowhere) => {
            nowhere.try_clone().map_err(|error| OsErrno::from_raw(error.raw_os_error().unwrap_or(0)))
        }
        Err(errno) => Err(*errno),
    })
}

/// Does something around questions that count: remembers only how `enter` failed, and does `play` in its place.
///
/// # Errors
/// As `enter`.
pub fn around<T>(
    question: impl FnOnce() -> String,
    enter: impl FnOnce() -> OsResult<T>,
    play: impl FnOnce() -> T,
) -> OsResult<T> {
    match MODE.get() {
        Mode::Off => enter(),
        Mode::Record => {
            let result = enter();
            let noted = outcome(result.as_ref().map(drop).map_err(|errno| *errno));
            note(question(), serde_json::to_value(noted));
            result
        }
        Mode::Play => recall::<()>(question()).map(|()| play()),
    }
}

/// Gives a descriptor that was there before the tape a name.
pub fn label(fd: BorrowedFd<'_>, name: impl FnOnce() -> String) {
    if is_on() {
        let name = name();
        with(|tape| tape.labels.insert(fd.as_raw_fd(), name));
    }
}

/// By what words a descriptor was come by.
pub fn label_of(fd: i32) -> String {
    with(|tape| tape.labels.get(&fd).cloned()).flatten().unwrap_or_else(|| "?".to_owned())
}

/// A path for a question, seen from a directory.
pub fn place(at: Option<BorrowedFd<'_>>, path: &[u8]) -> String {
    let own = own_process();
    let link = |prefix: &str| {
        let number = path.strip_prefix(prefix.as_bytes())?;
        std::str::from_utf8(number).ok()?.parse::<i32>().ok()
    };
    if let Some(fd) = link("/proc/self/fd/").or_else(|| link(&format!("{own}/fd/"))) {
        return format!("[{}]", label_of(fd));
    }
    let path = text(path);
    match at {
        None => path,
        Some(at) if path.is_empty() => label_of(at.as_raw_fd()),
        Some(at) => format!("{}/{path}", label_of(at.as_raw_fd())),
    }
}

/// The number of the supervisor's process: on a playing tape, of the one that recorded.
pub fn own_process() -> u32 {
    match MODE.get() {
        Mode::Off => std::process::id(),
        _ => with(|tape| tape.own).unwrap_or_else(std::process::id),
    }
}

/// Notes something that is done to the outside.
pub fn act(what: impl FnOnce() -> String) {
    if is_on() {
        let what = what();
        with(|tape| tape.acts.push(what));
    }
}

/// Reads memory of a task.
///
/// # Errors
/// As `ask`; EFAULT for what the record does not have.
pub fn memory(addr: u64, buf: &mut [u8], ask: impl FnOnce(&mut [u8]) -> OsResult<usize>) -> OsResult<usize> {
    match MODE.get() {
        Mode::Off => ask(buf),
        Mode::Record => {
            let result = aside(|| ask(buf));
            let (bytes, errno) = match result {
                Ok(len) => (text(&buf[..len]), 0),
                Err(errno) => (String::new(), errno as i32),
            };
            with(|tape| tape.memory.push(Piece { at: addr, bytes, errno }));
            result
        }
        Mode::Play => with(|tape| tape.read(addr, buf)).unwrap_or(Err(UNKNOWN)),
    }
}

/// Says that the string at `addr` has `len` bytes with its NUL: what was read behind it stays out of the record, where
/// nobody expects a program's environment.
pub fn string(addr: u64, len: usize) {
    let end = addr.saturating_add(len as u64);
    let cut = |tape: &mut Tape| {
        for piece in tape.memory.iter_mut().filter(|piece| piece.at >= addr && piece.at <= end) {
            let mut bytes = untext(&piece.bytes).unwrap_or_default();
            bytes.truncate(usize::try_from(end - piece.at).unwrap_or(usize::MAX));
            piece.bytes = text(&bytes);
        }
    };
    if MODE.get() == Mode::Record {
        with(cut);
    }
}

impl Tape {
    fn read(&self, addr: u64, buf: &mut [u8]) -> OsResult<usize> {
        for piece in &self.memory {
            if piece.errno != 0 && piece.at == addr {
                return Err(OsErrno::from_raw(piece.errno));
            }
            let bytes = untext(&piece.bytes).unwrap_or_default();
            let offset = addr.checked_sub(piece.at).and_then(|offset| usize::try_from(offset).ok());
            if let Some(rest) = offset.and_then(|offset| bytes.get(offset..)).filter(|rest| !rest.is_empty())
            {
                let len = rest.len().min(buf.len());
                buf[..len].copy_from_slice(&rest[..len]);
                return Ok(len);
            }
        }
        Err(OsErrno::EFAULT)
    }
}

/// Bytes as text: printable ASCII as it is, everything else and `%` as `%XX`.
pub fn text(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b'%' => text.push_str("%25"),
            b' '..=b'~' | b'\n' | b'\t' => text.push(char::from(*byte)),
            _ => {
                let _ = write!(text, "%{byte:02X}");
            }
        }
    }
    text
}

/// The reverse of [`text`]; `None` for what it does not give.
pub fn untext(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, others)) = rest.split_first() {
        if *first == b'%' {
            let digits = std::str::from_utf8(others.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &others[2..];
        } else {
            bytes.push(*first);
            rest = others;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_survive_being_text() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(untext(&text(&all)), Some(all));
        assert_eq!(untext("%4"), None);
    }

    #[test]
    fn what_was_recorded_is_told_again_in_turn_and_the_rest_is_unknown() {
        let mut answers = [1, 2, 2].into_iter();
        let question = || "how many".to_owned();
        let session = Session::record();
        for expected in [1, 2, 2] {
            assert_eq!(fact(question, || answers.next().unwrap_or(0)), expected);
        }
        let failed: OsResult<u32> = os(|| "who".into(), || Err(OsErrno::ENOENT));
        assert_eq!(failed, Err(OsErrno::ENOENT));
        let tape = session.finish().compact();
        assert!(!is_on());

        let session = Session::play(7, tape.facts, tape.memory);
        assert_eq!([(); 4].map(|()| fact(question, || 9)), [1, 2, 2, 2]);
        assert_eq!(os::<u32>(|| "who".into(), || Ok(9)), Err(OsErrno::ENOENT));
        assert_eq!(os::<u32>(|| "where".into(), || Ok(9)), Err(UNKNOWN));
        assert_eq!(own_process(), 7);
        assert_eq!(session.finish().unknown, ["where"]);
    }
}
