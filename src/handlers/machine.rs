//! sysinfo(2) and sched_getaffinity(2) for a policy that describes the machine.

use nix::sched::sched_getaffinity;
use nix::unistd::Pid;

use super::trap_if;
use crate::emulator::abi::layout::{self, Sysinfo};
use crate::emulator::errno::Errno;
use crate::emulator::failure::{Failure, OrFault};
use crate::emulator::provider::Cx;
use crate::emulator::reply::{Out, Reply};
use crate::emulator::syscall::{Activation, Call, Syscall};
use crate::policy::Policy;

fn memory_given(policy: &Policy) -> Activation {
    trap_if(policy.machine.memory.is_some())
}

fn cpus_given(policy: &Policy) -> Activation {
    trap_if(policy.machine.cpus.is_some())
}

/// The rows of this family.
pub fn rows() -> Vec<Syscall> {
    vec![
        Syscall::new("sysinfo", memory_given, sysinfo),
        Syscall::new("sched_getaffinity", cpus_given, getaffinity),
    ]
}

/// The provider whose content sysinfo(2) must agree with.
const MEMINFO: &str = "meminfo";

fn sysinfo(call: &Call<'_>) -> Result<Reply, Failure> {
    let store = &call.emulator.store;
    let host = nix::sys::sysinfo::sysinfo().or_fault("ask the host's sysinfo")?;
    let provider = store.providers.get(MEMINFO).ok_or(Errno::ENOSYS)?;
    let cx = Cx {
        host: &*store.host,
        machine: store.machine,
        uname: &store.uname,
        path: "/proc/meminfo",
        tid: call.tid,
    };
    let text = (provider.show)(&cx)?;
    let text = String::from_utf8_lossy(&text);
    let bytes = |field: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
        kib.unwrap_or(0) * 1024
    };
    let (one, five, fifteen) = host.load_average();
    // Linux scales load averages by 2^16 (SI_LOAD_SHIFT).
    let load = |value: f64| (value * 65536.0) as u64;
    let info = Sysinfo {
        uptime: i64::try_from(host.uptime().as_secs()).unwrap_or(i64::MAX),
        loads: [load(one), load(five), load(fifteen)],
        totalram: store.machine.memory,
        freeram: bytes("MemFree"),
        sharedram: bytes("Shmem"),
        bufferram: bytes("Buffers"),
        totalswap: bytes("SwapTotal"),
        freeswap: bytes("SwapFree"),
        procs: host.process_count(),
    };
    Ok(Reply::stored(call.args[0], layout::sysinfo(call.abi.layout, &info)))
}

/// All CPUs of the policy, unless the task was confined to fewer than the host has: then those of them that
/// the policy has too.
fn getaffinity(call: &Call<'_>) -> Result<Reply, Failure> {
    let (pid, len) = (call.int(0), usize::try_from(call.args[1] as u32).unwrap_or(0));
    let word = match call.abi.layout {
        crate::emulator::abi::Layout::X86_64 => 8,
        crate::emulator::abi::Layout::I386 => 4,
    };
    let cpus = call.emulator.store.machine.cpus as usize;
    let needed = cpus.div_ceil(word * 8) * word;
    if len * 8 < cpus || len % word != 0 {
        return Err(Errno::EINVAL.into());
    }
    let task = call.emulator.resolver.views.task(call.tid).or_gone("read the identity of a task")?;
    let target = match pid {
        0 => call.tid.cast_signed(),
        // Another number means nothing outside the caller's own pid namespace.
        pid if task.status.ns_tid.len() <= 1 => pid,
        _ => return Ok(Reply::Continue),
    };
    let real = sched_getaffinity(Pid::from_raw(target)).map_err(|errno| Errno::from_raw(errno as i32))?;
    let own = sched_getaffinity(Pid::from_raw(0)).or_fault("ask for the own affinity")?;
    let mut mask = vec![0u8; needed];
    let is_confined = real != own;
    let set = |cpu: usize| !is_confined || real.is_set(cpu).unwrap_or(false);
    for cpu in (0..cpus).filter(|cpu| set(*cpu)) {
        mask[cpu / 8] |= 1 << (cpu % 8);
    }
    if mask.iter().all(|byte| *byte == 0) {
        mask[0] = 1;
    }
    Ok(Reply::Value { value: needed as i64, out: Some(Out { addr: call.args[2], bytes: mask }) })
}
