//! From syscall rows to a classic BPF program, by libseccomp, for every ABI of the machine.
//!
//! Calls that are not in the table cost next to nothing: the kernel caches verdicts that depend on number
//! and architecture alone, so no argument is looked at for them. Architectures that are not known pass.

use std::os::fd::AsFd;

use libseccomp::error::SeccompError;
use libseccomp::{ScmpAction, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
use nix::errno::Errno as OsErrno;

use super::abi::{ABIS, Abi};
use super::sys::seccomp::Instruction;
use super::sys::{file, tape};
use super::syscall::{Activation, ArgTest, Syscall, SyscallTable};

/// Why a filter cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// libseccomp refused.
    #[error("libseccomp cannot build the filter: {0}")]
    Build(#[from] SeccompError),
    /// The program could not be taken out of libseccomp.
    #[error("cannot read back the filter: {0}")]
    Export(OsErrno),
}

/// How trapped calls leave the tracee.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrapAction {
    /// SECCOMP_RET_USER_NOTIF.
    Notify,
    /// SECCOMP_RET_TRACE, whose data is the position of the call's ABI in [`ABIS`]: a tracer cannot tell it from
    /// the registers, since 64-bit programs can make 32-bit calls.
    Trace,
}

/// Builds the program for a table; empty when the table is.
///
/// # Errors
/// See [`FilterError`].
pub fn build(table: &SyscallTable, trap: TrapAction) -> Result<Vec<Instruction>, FilterError> {
    if table.is_empty() {
        return Ok(Vec::new());
    }
    if trap == TrapAction::Trace {
        return traced(table, Extent::First);
    }
    // libseccomp would ask the kernel whether it knows notifications, which may be refused although the
    // program is only built here; the action is put in afterwards.
    let mut program = export(&context(table, &ABIS, 0, Extent::All)?)?;
    let traps =
        program.iter_mut().filter(|i| u32::from(i.code) == libc::BPF_RET && i.k == libc::SECCOMP_RET_TRACE);
    traps.for_each(|instruction| instruction.k = libc::SECCOMP_RET_USER_NOTIF);
    Ok(program)
}

/// Builds the program for tracees that have descriptors of which the policy tells something, to be added to the first
/// one: what looks at descriptors ([`SyscallTable::is_look`]) is traced.
///
/// # Errors
/// See [`FilterError`].
pub fn build_looks(table: &SyscallTable) -> Result<Vec<Instruction>, FilterError> {
    traced(table, Extent::Looks)
}

/// What of a table a program selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extent {
    /// What is needed from the start where programs can be added later.
    First,
    /// What looks at descriptors.
    Looks,
    /// Both.
    All,
}

fn traced(table: &SyscallTable, extent: Extent) -> Result<Vec<Instruction>, FilterError> {
    let mut whole = context(table, &ABIS[..1], 0, extent)?;
    for (index, abi) in ABIS.iter().enumerate().skip(1) {
        whole.merge(context(table, std::slice::from_ref(abi), index as u16, extent)?)?;
    }
    export(&whole)
}

/// Lets calls through, of all that are traced, that have `pass` as sixth argument, which none of them uses. They are
/// those that a tracer makes tracees make.
///
/// Programs do not know the number. What is not traced is still decided by number and architecture alone.
pub fn let_through(program: &mut Vec<Instruction>, pass: u64) {
    let traced =
        |i: &Instruction| u32::from(i.code) == libc::BPF_RET && i.k & !0xffff == libc::SECCOMP_RET_TRACE;
    let mut kinds: Vec<u32> = program.iter().filter(|i| traced(i)).map(|i| i.k).collect();
    kinds.sort_unstable();
    kinds.dedup();
    for kind in kinds {
        let block = program.len();
        for (at, instruction) in program.iter_mut().enumerate() {
            if traced(instruction) && instruction.k == kind {
                let distance = (block - at - 1) as u32;
                *instruction = Instruction { code: JUMP, jt: 0, jf: 0, k: distance };
            }
        }
        let plain = |code, k| Instruction { code, jt: 0, jf: 0, k };
        program.extend([
            plain(LOAD, SIXTH_ARGUMENT),
            Instruction { code: JUMP_EQUAL, jt: 0, jf: 3, k: pass as u32 },
            plain(LOAD, SIXTH_ARGUMENT + 4),
            Instruction { code: JUMP_EQUAL, jt: 0, jf: 1, k: (pass >> 32) as u32 },
            plain(libc::BPF_RET as u16, libc::SECCOMP_RET_ALLOW),
            plain(libc::BPF_RET as u16, kind),
        ]);
    }
}

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const JUMP: u16 = (libc::BPF_JMP | libc::BPF_JA) as u16;
const JUMP_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
/// Where `struct seccomp_data` has it.
const SIXTH_ARGUMENT: u32 = 56;

/// The rules of a table for some ABIs; trapped calls are traced with this data.
fn context(
    table: &SyscallTable,
    abis: &[Abi],
    data: u16,
    extent: Extent,
) -> Result<ScmpFilterContext, FilterError> {
    let mut context = ScmpFilterContext::new(ScmpAction::Allow)?;
    context.set_act_badarch(ScmpAction::Allow)?;
    context.set_ctl_optimize(2)?;
    for abi in abis {
        if !context.is_arch_present(abi.scmp)? {
            context.add_arch(abi.scmp)?;
        }
    }
    if abis.iter().all(|abi| abi.scmp != ABIS[0].scmp) {
        context.remove_arch(ABIS[0].scmp)?;
    }
    for (row, activation) in table.rows() {
        let action = match (extent, activation) {
            (Extent::Looks | Extent::All, _) if table.is_look(row) => {
                add(&mut context, row, ScmpAction::Trace(data), &[])?;
                continue;
            }
            (Extent::Looks, _) | (_, Activation::Off) => continue,
            (_, Activation::Trap) => ScmpAction::Trace(data),
            (_, Activation::Refuse(errno)) => ScmpAction::Errno(errno.raw()),
        };
        add(&mut context, row, action, &row.only_if)?;
    }
    Ok(context)
}

fn add(
    context: &mut ScmpFilterContext,
    row: &Syscall,
    action: ScmpAction,
    only_if: &[ArgTest],
) -> Result<(), FilterError> {
    // A number by name in the native table; libseccomp translates it for the other ABIs of the filter, also
    // when it is a pseudo number because only another ABI has the call.
    let syscall = ScmpSyscall::from_name(row.name)?;
    if only_if.is_empty() {
        context.add_rule(action, syscall)?;
    }
    for test in only_if {
        context.add_rule_conditional(action, syscall, &[comparison(test)])?;
    }
    Ok(())
}

fn comparison(test: &ArgTest) -> ScmpArgCompare {
    ScmpArgCompare::new(test.arg, ScmpCompareOp::MaskedEqual(u64::from(test.mask)), u64::from(test.value))
}

fn export(context: &ScmpFilterContext) -> Result<Vec<Instruction>, FilterError> {
    tape::aside(|| export_now(context))
}

fn export_now(context: &ScmpFilterContext) -> Result<Vec<Instruction>, FilterError> {
    let memory = file::memfd(c"filter").map_err(FilterError::Export)?;
    context.export_bpf(&memory)?;
    file::seek(memory.as_fd(), 0, libc::SEEK_SET).map_err(FilterError::Export)?;
    let bytes = file::read_bytes(memory.as_fd()).map_err(FilterError::Export)?;
    let instruction = |chunk: &[u8]| Instruction {
        code: u16::from_ne_bytes([chunk[0], chunk[1]]),
        jt: chunk[2],
        jf: chunk[3],
        k: u32::from_ne_bytes([chunk[4], chunk[5], chunk[6], chunk[7]]),
    };
    Ok(bytes.chunks_exact(8).map(instruction).collect())
}

/// Runs a program as the kernel would: the tests' and fuzzers' judge of what is trapped.
///
/// Understands the instructions that libseccomp emits; anything else gives `None`.
pub fn evaluate(program: &[Instruction], abi: &Abi, nr: u32, args: [u64; 6]) -> Option<u32> {
    let mut data = [0u8; 64];
    data[0..4].copy_from_slice(&nr.to_ne_bytes());
    data[4..8].copy_from_slice(&abi.audit_arch.to_ne_bytes());
    for (index, arg) in args.iter().enumerate() {
        data[16 + 8 * index..24 + 8 * index].copy_from_slice(&arg.to_ne_bytes());
    }
    let mut accumulator = 0u32;
    let mut at = 0usize;
    loop {
        let instruction = program.get(at)?;
        let (jt, jf) = (usize::from(instruction.jt), usize::from(instruction.jf));
        let k = instruction.k;
        let branch = |taken: bool| if taken { jt } else { jf };
        at += 1;
        match u32::from(instruction.code) {
            0x20 => {
                let word = data.get(k as usize..k as usize + 4)?;
                accumulator = u32::from_ne_bytes(word.try_into().ok()?);
            }
            0x54 => accumulator &= k,
            0x05 => at += k as usize,
            0x15 => at += branch(accumulator == k),
            0x25 => at += branch(accumulator > k),
            0x35 => at += branch(accumulator >= k),
            0x45 => at += branch(accumulator & k != 0),
            0x06 => return Some(k),
            _ => return None,
        }
    }
}
