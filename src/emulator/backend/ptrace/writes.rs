//! Writing virtual files of the memfd carrier: the kernel would store anything in a memfd, so the calls that write one are
//! served here, for their errors and counts to be those of the file.
//!
//! Only calls on the few descriptors that such a file was delivered as are to stop. A filter cannot know them
//! beforehand, so the tracee gets another one for each number, which names the number in its tests; children and
//! programs that are executed keep it. What duplicates such a descriptor stops too, and the new number is taken up.
//! In the same way a tracee gets the filter for looks at descriptors.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use nix::errno::Errno as OsErrno;

use super::answer::PtraceAnswer;
use super::tracees::{Pass, Stops};
use crate::emulator::abi::Abi;
use crate::emulator::engine::Answer;
use crate::emulator::filter::{self, TrapAction};
use crate::emulator::reply::Reply;
use crate::emulator::sys::seccomp::Instruction;
use crate::emulator::sys::{OsResult, memory};
use crate::emulator::syscall::{Activation, ArgTest, Syscall, SyscallTable};
use crate::emulator::tracee::Tracee;
use crate::policy::Policy;

/// What a call does with a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Writes a buffer.
    Buffer(At),
    /// Writes what an array of `struct iovec` points to.
    Vector(At),
    /// Copies from another descriptor, which is not offered for virtual files.
    Copy,
    /// Makes another number of it.
    Duplicate,
    /// The same, for some commands.
    Control,
}

/// Where in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// At the position, which moves.
    Position,
    /// At an offset, in argument 3.
    Offset,
    /// The same, and at the position for -1 (pwritev2(2)).
    OffsetOrPosition,
}

/// Calls by which a file can be written, and which of their arguments the descriptor is.
const CALLS: [(&str, u32, Kind); 12] = [
    ("write", 0, Kind::Buffer(At::Position)),
    ("pwrite64", 0, Kind::Buffer(At::Offset)),
    ("writev", 0, Kind::Vector(At::Position)),
    ("pwritev", 0, Kind::Vector(At::Offset)),
    ("pwritev2", 0, Kind::Vector(At::OffsetOrPosition)),
    ("sendfile", 0, Kind::Copy),
    ("splice", 2, Kind::Copy),
    ("copy_file_range", 2, Kind::Copy),
    ("dup", 0, Kind::Duplicate),
    ("dup2", 0, Kind::Duplicate),
    ("dup3", 0, Kind::Duplicate),
    ("fcntl", 0, Kind::Control),
];

/// Most bytes that one call writes: the kernel's limit for sysctl files (KMALLOC_MAX_SIZE).
const MAX_WRITTEN: usize = 4 << 20;
/// Filters that a process gets; each costs every trapped call of it a little.
const MAX_FILTERS: usize = 16;
/// Stands for the filter of a process that looks at descriptors among those for its numbers, none of which is this one.
const LOOKS: i32 = -1;
/// Most elements of a vector (UIO_MAXIOV).
const MAX_ELEMENTS: usize = 1024;

/// Rows that trap what writes a descriptor of this number.
fn rows(fd: i32) -> Vec<Syscall> {
    let row = |(name, arg, _): &(&'static str, u32, Kind)| {
        let test = ArgTest { arg: *arg, mask: u32::MAX, value: fd.cast_unsigned() };
        let row = Syscall::new(name, |_| Activation::Trap, |_| Ok(Reply::Continue));
        Syscall { only_if: vec![test].into(), ..row }
    };
    CALLS.iter().map(row).collect()
}

/// Which descriptors of which processes are heard of.
pub struct Watch {
    pass: Pass,
    calls: SyscallTable,
    numbers: RefCell<HashMap<u32, HashSet<i32>>>,
    programs: RefCell<HashMap<i32, Rc<[Instruction]>>>,
}

impl Watch {
    /// None yet. Calls for the tracer are known by `pass`.
    pub fn new(pass: Pass) -> Self {
        let calls = SyscallTable::new(rows(-1), &Policy::default());
        Watch { pass, calls, numbers: RefCell::default(), programs: RefCell::default() }
    }

    /// The process ended.
    pub fn forget(&self, process: u32) {
        self.numbers.borrow_mut().remove(&process);
    }

    /// Whether calls on this number stop in a process already.
    pub fn has(&self, process: u32, fd: i32) -> bool {
        self.numbers.borrow().get(&process).is_some_and(|numbers| numbers.contains(&fd))
    }

    /// Whether any process has a file at the number that a call is about, where every call stops.
    pub fn may_concern(&self, abi: &Abi, nr: u32, args: [u64; 6]) -> bool {
        let Some((_, arg, _)) = self.find(abi, nr) else { return false };
        let fd = args[arg as usize] as i32;
        self.numbers.borrow().values().any(|numbers| numbers.contains(&fd))
    }

    /// Whether a process can have one more filter.
    pub fn has_room(&self, process: u32) -> bool {
        self.numbers.borrow().get(&process).is_none_or(|numbers| numbers.len() < MAX_FILTERS)
    }

    /// Calls on this number stop in a process from now on.
    pub fn add(&self, process: u32, fd: i32) {
        self.numbers.borrow_mut().entry(process).or_default().insert(fd);
    }

    /// The filter for a number; for [`LOOKS`], that for looks at any descriptor, as a table says.
    ///
    /// # Errors
    /// EINVAL: libseccomp refused.
    pub fn program(&self, fd: i32, table: &SyscallTable) -> OsResult<Rc<[Instruction]>> {
        if let Some(program) = self.programs.borrow().get(&fd) {
            return Ok(program.clone());
        }
        let built = match fd {
            LOOKS => filter::build_looks(table),
            _ => filter::build(&SyscallTable::new(rows(fd), &Policy::default()), TrapAction::Trace),
        };
        let mut program = built.map_err(|_| OsErrno::EINVAL)?;
        filter::let_through(&mut program, self.pass.0);
        let program: Rc<[Instruction]> = program.into();
        self.programs.borrow_mut().insert(fd, program.clone());
        Ok(program)
    }

    fn find(&self, abi: &Abi, nr: u32) -> Option<(&'static str, u32, Kind)> {
        let (_, row) = self.calls.find(abi, nr)?;
        CALLS.iter().find(|(name, ..)| *name == row.name).copied()
    }

    /// Whether these filters select such calls.
    pub fn selects(&self, abi: &Abi, nr: u32) -> bool {
        self.find(abi, nr).is_some()
    }
}

impl PtraceAnswer<'_> {
    /// From now on calls that write a descriptor stop, where that can be had; elsewhere what they write is looked at
    /// later.
    pub(super) fn watch_writes(&self, fd: i64) {
        let Ok(fd) = i32::try_from(fd) else { return };
        if let Err(errno) = self.add_filter(fd) {
            tracing::info!(tid = self.tid, fd, %errno, "errors of writes to it will be told later only");
        }
    }

    /// From now on calls that look at descriptors stop.
    pub(super) fn watch_all_looks(&self) {
        if self.tracees.stops() == Stops::All {
            return;
        }
        if let Err(errno) = self.add_filter(LOOKS) {
            tracing::info!(tid = self.tid, %errno, "descriptors of root directories will show what is real");
        }
    }

    fn add_filter(&self, fd: i32) -> OsResult<()> {
        let watch = &self.tracees.watch;
        self.with_session(|session| {
            let process = session.process();
            if watch.has(process, fd) {
                return Ok(());
            }
            if self.tracees.stops() == Stops::Selected {
                if !watch.has_room(process) {
                    return Err(OsErrno::ENOSPC);
                }
                session.install_filter(&watch.program(fd, &self.engine.table)?)?;
            }
            watch.add(process, fd);
            Ok(())
        })
    }

    fn is_staged(&self, fd: i32) -> bool {
        self.stat_of(fd.into()).is_ok_and(|stat| self.engine.emulator.carrier.is_staged(&stat))
    }

    fn refuse(&self, errno: OsErrno) -> OsResult<()> {
        self.give(-i64::from(errno as i32))
    }

    /// Serves a call that a filter of [`Watch`] selected.
    pub fn serve_write(&self, abi: &Abi, nr: u32, args: [u64; 6]) {
        let served = self.tracees.watch.find(abi, nr).ok_or(OsErrno::ENOSYS).and_then(|(name, arg, kind)| {
            let fd = args[arg as usize] as i32;
            if !self.is_staged(fd) {
                // Another file, to which the number was given since.
                return self.resume();
            }
            match kind {
                Kind::Copy => self.refuse(OsErrno::EINVAL),
                Kind::Duplicate => self.duplicate(name, args),
                Kind::Control if matches!(args[1] as i32, libc::F_DUPFD | libc::F_DUPFD_CLOEXEC) => {
                    self.duplicate(name, args)
                }
                Kind::Control => self.resume(),
                Kind::Buffer(at) => self.write(fd, at, abi, args, |this| this.buffer(args)),
                Kind::Vector(at) => self.write(fd, at, abi, args, |this| this.vector(abi, args)),
            }
        });
        if let Err(errno) = served {
            // Dropped without an answer the call would be run, and what it writes be looked at later.
            tracing::debug!(%errno, "cannot serve a write");
        }
    }

    /// Makes the call for the tracee, and takes up the new number.
    fn duplicate(&self, name: &str, args: [u64; 6]) -> OsResult<()> {
        match self.with_session(|session| session.call(name, args)) {
            Ok(fd) => {
                self.watch_writes(fd);
                self.give(fd)
            }
            Err(errno) => self.refuse(errno),
        }
    }

    fn write(
        &self,
        fd: i32,
        at: At,
        abi: &Abi,
        args: [u64; 6],
        data: impl FnOnce(&Self) -> OsResult<Vec<u8>>,
    ) -> OsResult<()> {
        let offset = match at {
            At::Offset => Some(offset_of(abi, args)),
            At::OffsetOrPosition => Some(offset_of(abi, args)).filter(|offset| *offset != -1),
            At::Position => None,
        };
        if offset.is_some_and(i64::is_negative) {
            return self.refuse(OsErrno::EINVAL);
        }
        let data = match data(self) {
            Ok(data) => data,
            Err(errno) => return self.refuse(errno),
        };
        let start = offset.map_or_else(|| self.seek(fd, 0, libc::SEEK_CUR), Ok)?;
        let stat = self.stat_of(fd.into())?;
        let carrier = &self.engine.emulator.carrier;
        let Some(written) = carrier.write(&stat, self.tid, &data, start.cast_unsigned()) else {
            return self.resume();
        };
        match written.result {
            Ok(count) => {
                let count = count as i64;
                if written.moves && offset.is_none() {
                    self.seek(fd, count, libc::SEEK_CUR)?;
                }
                self.give(count)
            }
            Err(errno) => self.refuse(OsErrno::from_raw(errno.raw())),
        }
    }

    /// What write(2) and pwrite64(2) write.
    fn buffer(&self, args: [u64; 6]) -> OsResult<Vec<u8>> {
        self.read_all(args[1], usize::try_from(args[2]).unwrap_or(usize::MAX))
    }

    /// What writev(2) and its kin write.
    fn vector(&self, abi: &Abi, args: [u64; 6]) -> OsResult<Vec<u8>> {
        let word = if abi.is_32bit() { 4 } else { 8 };
        let count = args[2] as usize;
        if count > MAX_ELEMENTS {
            return Err(OsErrno::EINVAL);
        }
        let list = self.read_all(args[1], count * 2 * word)?;
        let number = |bytes: &[u8]| bytes.iter().rev().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
        let mut data = Vec::new();
        for element in list.chunks_exact(2 * word) {
            let (address, len) = (number(&element[..word]), number(&element[word..]));
            let len = usize::try_from(len).unwrap_or(usize::MAX);
            data.extend(self.read_all(address, len)?);
            if data.len() > MAX_WRITTEN {
                return Err(OsErrno::ENOMEM);
            }
        }
        Ok(data)
    }

    fn read_all(&self, address: u64, len: usize) -> OsResult<Vec<u8>> {
        if len > MAX_WRITTEN {
            return Err(OsErrno::ENOMEM);
        }
        let mut data = vec![0; len];
        let mut have = 0;
        while have < len {
            match memory::read(self.tid, address + have as u64, &mut data[have..])? {
                0 => return Err(OsErrno::EFAULT),
                got => have += got,
            }
        }
        Ok(data)
    }
}

/// The offset of a positioned write, which 32-bit calls have in two halves.
fn offset_of(abi: &Abi, args: [u64; 6]) -> i64 {
    if abi.is_32bit() {
        return (args[3] & 0xffff_ffff | args[4] << 32).cast_signed();
    }
    args[3].cast_signed()
}
