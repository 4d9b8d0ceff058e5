//! `filter_eval`.

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock, PoisonError};

use sysemu::emulator::abi::{ABIS, Abi, Layout};
use sysemu::emulator::filter::{self, TrapAction};
use sysemu::emulator::record::CallLine;
use sysemu::emulator::sys::seccomp::Instruction;
use sysemu::emulator::syscall::{Activation, SyscallTable};
use sysemu::handlers;
use sysemu::policy::{Loader, MountApi, Policy};

use crate::input::Input;

type Compiled = (SyscallTable, [Vec<Instruction>; 2]);

const ACTIONS: [TrapAction; 2] = [TrapAction::Notify, TrapAction::Trace];

/// What decides which calls are needed, by bits.
fn policy(bits: u8) -> Policy {
    let mut loader = Loader::new();
    if bits & 1 != 0 {
        loader = loader.file("/proc/sys/a=1");
    }
    if bits & 2 != 0 {
        loader = loader.uname_release("1");
    }
    if bits & 4 != 0 {
        loader = loader.statfs("9p=tmpfs");
    }
    if bits & 8 != 0 {
        loader = loader.text("machine", "schema = 1\n[machine]\ncpus = 3\nmemory = 1073741824\n");
    }
    let mut policy = loader.load().expect("a good policy");
    policy.options.io_uring = bits & 16 != 0;
    if bits & 32 != 0 {
        policy.options.mount_api = MountApi::Enosys;
    }
    policy
}

fn compiled(bits: u8) -> &'static Compiled {
    static ALL: OnceLock<Mutex<HashMap<u8, &'static Compiled>>> = OnceLock::new();
    let mut all = ALL.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    all.entry(bits).or_insert_with(|| {
        let table = SyscallTable::new(handlers::all(), &policy(bits));
        let programs = ACTIONS.map(|action| filter::build(&table, action).expect("a filter"));
        Box::leak(Box::new((table, programs)))
    })
}

const ALLOW: u32 = 0x7fff_0000;
const USER_NOTIF: u32 = 0x7fc0_0000;
const TRACE: u32 = 0x7ff0_0000;
const ERRNO: u32 = 0x0005_0000;

/// An architecture that the filter does not know.
static FOREIGN: Abi =
    Abi { name: "aarch64", audit_arch: 0xc000_00b7, nr_bits: 0, scmp: ABIS[0].scmp, layout: Layout::X86_64 };

/// The compiled filter against the registry, for these arguments: all numbers of all ABIs, for both backends.
pub fn filter_eval(data: &[u8]) {
    let mut input = Input(data);
    let (table, programs) = compiled(input.byte() & 63);
    let args: [u64; 6] = std::array::from_fn(|_| input.register());
    let odd = u32::from(input.byte()) << 22 | u32::from(input.byte()) << 9;
    for (program, action) in programs.iter().zip(ACTIONS) {
        if program.is_empty() {
            assert!(table.is_empty());
            continue;
        }
        for (index, abi) in ABIS.iter().enumerate() {
            let trapped = match action {
                TrapAction::Notify => USER_NOTIF,
                TrapAction::Trace => TRACE | index as u32,
            };
            for nr in (0..600).map(|nr| nr | abi.nr_bits).chain([odd | abi.nr_bits, u32::MAX]) {
                let verdict = filter::evaluate(program, abi, nr, args).expect("instructions that are known");
                let expected = match table.activation(abi, nr, args) {
                    Activation::Off => ALLOW,
                    Activation::Trap => trapped,
                    Activation::Refuse(errno) => ERRNO | errno.raw().cast_unsigned(),
                };
                assert_eq!(verdict, expected, "{action:?} {} {nr:#x} {args:x?}", abi.name);
            }
        }
        for nr in 0..600 {
            assert_eq!(filter::evaluate(program, &FOREIGN, nr, args), Some(ALLOW));
        }
    }
}

/// The registers of a recorded call as an input of [`filter_eval`].
pub fn filter_seed(call: &CallLine) -> Vec<u8> {
    let mut seed = vec![63];
    for arg in call.args {
        seed.push(6);
        seed.extend(arg.to_le_bytes());
    }
    seed
}
