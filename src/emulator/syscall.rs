//! System call rows: what the filter traps and who answers it. Everything that depends on the set of calls
//! (filter, names in logs, dispatch) derives from the rows.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use libseccomp::ScmpSyscall;

use super::abi::{ABIS, Abi};
use super::context::Emulator;
use super::errno::Errno;
use super::failure::Failure;
use super::reply::Reply;
use super::resolve::path::{self, ReadMemory};
use super::resolve::view::TaskMemory;
use super::resolve::{Final, Found, Query};
use super::sys::seccomp::Notification;
use super::sys::tape;
use super::tracee::Tracee;
use crate::policy::Policy;

/// What answers a call.
pub type HandlerFn = dyn Fn(&Call<'_>) -> Result<Reply, Failure> + Send + Sync;

/// What becomes of a call under a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// The policy does not need it: native cost.
    Off,
    /// Trapped.
    Trap,
    /// Fails without asking anybody.
    Refuse(Errno),
}

/// A scalar test on one argument; pointers are never tested. Only the low 32 bits take part, because the
/// kernel ignores the others of an `int`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArgTest {
    /// Argument number from 0.
    pub arg: u32,
    /// Bits compared.
    pub mask: u32,
    /// Their value.
    pub value: u32,
}

impl ArgTest {
    /// Whether it holds for these arguments.
    pub fn holds(&self, args: [u64; 6]) -> bool {
        args.get(self.arg as usize).is_some_and(|arg| *arg as u32 & self.mask == self.value)
    }
}

/// One system call.
#[derive(Clone)]
pub struct Syscall {
    /// Its name, as libseccomp knows it; ABIs that lack it are passed over.
    pub name: &'static str,
    /// What becomes of it under a policy.
    pub activation: fn(&Policy) -> Activation,
    /// Trapped only when one of these holds; always when empty.
    pub only_if: Cow<'static, [ArgTest]>,
    /// Whether a policy needs all such calls, whatever else is said here, of programs that have descriptors of which it
    /// tells something; see [`Tracee::watch_looks`].
    pub looks: fn(&Policy) -> bool,
    /// Who answers it.
    pub handler: Arc<HandlerFn>,
}

impl Syscall {
    /// A row without argument tests.
    pub fn new(
        name: &'static str,
        activation: fn(&Policy) -> Activation,
        handler: impl Fn(&Call<'_>) -> Result<Reply, Failure> + Send + Sync + 'static,
    ) -> Self {
        Syscall {
            name,
            activation,
            only_if: Cow::Borrowed(&[]),
            looks: |_| false,
            handler: Arc::new(handler),
        }
    }
}

/// The rows that a policy needs, found by ABI and number.
pub struct SyscallTable {
    rows: Vec<(Syscall, Activation)>,
    looks: HashSet<&'static str>,
    by_number: HashMap<(&'static str, u32), usize>,
}

impl SyscallTable {
    /// Takes the rows that are active under a policy. Of two rows with one name the later counts.
    pub fn new(rows: Vec<Syscall>, policy: &Policy) -> Self {
        let mut active: Vec<(Syscall, Activation)> = Vec::new();
        let mut looks = HashSet::new();
        for row in rows {
            let activation = (row.activation)(policy);
            let is_look = (row.looks)(policy);
            if is_look {
                looks.insert(row.name);
            }
            active.retain(|(other, _)| other.name != row.name);
            if activation != Activation::Off || is_look {
                active.push((row, activation));
            }
        }
        let mut by_number = HashMap::new();
        for abi in &ABIS {
            for (index, (row, _)) in active.iter().enumerate() {
                if let Some(number) = number(row.name, abi) {
                    by_number.insert((abi.name, number), index);
                }
            }
        }
        SyscallTable { rows: active, looks, by_number }
    }

    /// Whether nothing is trapped or refused.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// All active rows.
    pub fn rows(&self) -> impl Iterator<Item = &(Syscall, Activation)> {
        self.rows.iter()
    }

    /// Whether a row is needed in full where descriptors are told of; see [`Syscall::looks`].
    pub fn is_look(&self, row: &Syscall) -> bool {
        self.looks.contains(row.name)
    }

    /// What becomes of a call: the filter's decision, for where there is no filter.
    pub fn activation(&self, abi: &Abi, nr: u32, args: [u64; 6]) -> Activation {
        let Some(index) = self.by_number.get(&(abi.name, nr)) else { return Activation::Off };
        let (row, activation) = &self.rows[*index];
        if self.is_look(row) {
            return Activation::Trap;
        }
        let is_selected = row.only_if.is_empty() || row.only_if.iter().any(|test| test.holds(args));
        if is_selected { *activation } else { Activation::Off }
    }

    /// The row for a trapped call, and its position in [`SyscallTable::rows`].
    pub fn find(&self, abi: &Abi, nr: u32) -> Option<(usize, &Syscall)> {
        let index = *self.by_number.get(&(abi.name, nr))?;
        Some((index, &self.rows[index].0))
    }
}

/// The number of a call in an ABI's table.
pub fn number(name: &str, abi: &Abi) -> Option<u32> {
    let number = ScmpSyscall::from_name_by_arch(name, abi.scmp).ok()?;
    // Calls that exist elsewhere only have negative pseudo numbers.
    u32::try_from(i32::from(number)).ok()
}

/// What a failed look at the tracee's memory means.
fn unreadable(errno: Errno) -> Failure {
    match errno {
        Errno::EPERM => Failure::Fault("read the memory of a task", nix::errno::Errno::EPERM),
        Errno::ESRCH => Failure::Gone,
        errno => Failure::Guest(errno),
    }
}

/// One trapped call, as a handler sees it: read-only towards the tracee.
pub struct Call<'c> {
    /// Everything a handler may consult.
    pub emulator: &'c Emulator,
    /// The caller.
    pub tracee: &'c dyn Tracee,
    /// Name of the call.
    pub name: &'static str,
    /// Its ABI.
    pub abi: &'static Abi,
    /// Raw arguments.
    pub args: [u64; 6],
    /// Thread id of the caller.
    pub tid: u32,
    /// The path that the call was about, for logs.
    seen: RefCell<Option<Vec<u8>>>,
}

impl<'c> Call<'c> {
    /// The view of a received call.
    pub fn new(
        emulator: &'c Emulator,
        tracee: &'c dyn Tracee,
        name: &'static str,
        abi: &'static Abi,
        call: &Notification,
    ) -> Self {
        Call { emulator, tracee, name, abi, args: call.args, tid: call.tid, seen: RefCell::new(None) }
    }

    /// An `int` argument: the kernel looks at the low 32 bits only.
    pub fn int(&self, index: usize) -> i32 {
        (self.args[index] as u32).cast_signed()
    }

    /// Copies a path argument.
    ///
    /// # Errors
    /// EFAULT and ENAMETOOLONG for the tracee, as getname() of the kernel.
    pub fn path(&self, index: usize) -> Result<Vec<u8>, Failure> {
        let path = path::read_path(&TaskMemory(self.tid), self.args[index]).map_err(unreadable)?;
        tape::string(self.args[index], path.len() + 1);
        if self.emulator.records_paths() {
            *self.seen.borrow_mut() = Some(path.clone());
        }
        Ok(path)
    }

    /// The path that the call was about, when logs or the summary want it.
    pub fn seen_path(&self) -> Option<Vec<u8>> {
        self.seen.borrow().clone()
    }

    /// Copies up to `buf.len()` bytes.
    ///
    /// # Errors
    /// EFAULT for the tracee.
    pub fn read(&self, addr: u64, buf: &mut [u8]) -> Result<usize, Failure> {
        TaskMemory(self.tid).read(addr, buf).map_err(unreadable)
    }

    /// Resolves a path as the caller sees it.
    ///
    /// # Errors
    /// As [`super::resolve::Resolver::resolve`].
    pub fn resolve(&self, dirfd: i32, path: &[u8], last: Final) -> Result<Found, Failure> {
        self.emulator.resolver.resolve(&Query { tid: self.tid, dirfd, path, last, resolve: 0 })
    }
}
