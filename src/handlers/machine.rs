//! sysinfo(2) and sched_getaffinity(2) for a policy that describes the machine.

use std::os::fd::AsFd;

use nix::errno::Errno as OsErrno;
use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;

use super::trap_if;
use crate::emulator::abi::layout::{self, Sysinfo};
use crate::emulator::errno::Errno;
use crate::emulator::failure::{Failure, OrFault};
use crate::emulator::provider::Cx;
use crate::emulator::reply::{Out, Reply};
use crate::emulator::resolve::task::Status;
use crate::emulator::sys::{OsResult, process, tape};
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
    // As of now: the supervisor's threads may be pinned later, the program is not.
    let all = affinity(0).ok();
    vec![
        Syscall::new("sysinfo", memory_given, sysinfo),
        Syscall::new("sched_getaffinity", cpus_given, move |call| getaffinity(call, all.as_deref())),
    ]
}

/// The provider whose content sysinfo(2) must agree with.
const MEMINFO: &str = "meminfo";

/// Uptime in seconds, load averages as sysinfo(2) has them, number of processes.
fn host_info() -> OsResult<(i64, [u64; 3], u16)> {
    let ask = || {
        let host = nix::sys::sysinfo::sysinfo()?;
        let (one, five, fifteen) = host.load_average();
        // Linux scales load averages by 2^16 (SI_LOAD_SHIFT).
        let load = |value: f64| (value * 65536.0) as u64;
        let uptime = i64::try_from(host.uptime().as_secs()).unwrap_or(i64::MAX);
        Ok((uptime, [load(one), load(five), load(fifteen)], host.process_count()))
    };
    tape::os(|| "sysinfo".to_owned(), ask)
}

/// The CPUs that a task may use, ascending.
fn affinity(pid: i32) -> OsResult<Vec<usize>> {
    let ask = || {
        let set = sched_getaffinity(Pid::from_raw(pid))?;
        Ok((0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false)).collect())
    };
    tape::os(|| format!("affinity {pid}"), ask)
}

fn sysinfo(call: &Call<'_>) -> Result<Reply, Failure> {
    let store = &call.emulator.store;
    let (uptime, loads, procs) = host_info().or_fault("ask the host's sysinfo")?;
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
    let info = Sysinfo {
        uptime,
        loads,
        totalram: store.machine.memory,
        freeram: bytes("MemFree"),
        sharedram: bytes("Shmem"),
        bufferram: bytes("Buffers"),
        totalswap: bytes("SwapTotal"),
        freeswap: bytes("SwapFree"),
        procs,
    };
    Ok(Reply::stored(call.args[0], layout::sysinfo(call.abi.layout, &info)))
}

/// All CPUs of the policy, unless the task was confined to fewer than sysemu was started with (`all`): then those
/// of them that the policy has too.
fn getaffinity(call: &Call<'_>, all: Option<&[usize]>) -> Result<Reply, Failure> {
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
    let Some(target) = task_named(call, pid)? else { return Ok(Reply::Continue) };
    let real = affinity(target).map_err(|errno| Errno::from_raw(errno as i32))?;
    let mut mask = vec![0u8; needed];
    let is_confined = Some(&*real) != all;
    let set = |cpu: usize| !is_confined || real.contains(&cpu);
    for cpu in (0..cpus).filter(|cpu| set(*cpu)) {
        mask[cpu / 8] |= 1 << (cpu % 8);
    }
    if mask.iter().all(|byte| *byte == 0) {
        mask[0] = 1;
    }
    Ok(Reply::Value { value: needed as i64, out: Some(Out { addr: call.args[2], bytes: mask }) })
}

/// The task that a number given by the caller means, by the number it has for the supervisor; `None` when only
/// the kernel knows. In a pid namespace of its own the caller counts differently: dockerd asks for its own number
/// in one.
fn task_named(call: &Call<'_>, pid: i32) -> Result<Option<i32>, Failure> {
    if pid == 0 {
        return Ok(Some(call.tid.cast_signed()));
    }
    let views = &call.emulator.resolver.views;
    let task = views.task(call.tid).or_gone("read the identity of a task")?;
    // gVisor does not tell a task's numbers; whether it counts differently shows in the pid namespace of its process (it has no
    // folder for threads that do not lead one), or, before 2024, nowhere.
    let is_other = || {
        let own = views.namespace(std::process::id(), "pid");
        own == Ok(0) || own != views.namespace(task.status.tgid, "pid")
    };
    let is_elsewhere = task.status.ns_tid.is_empty() && is_other();
    if is_elsewhere {
        return Ok(None);
    }
    let Some(given) = u32::try_from(pid).ok().filter(|_| task.status.ns_tid.len() > 1) else {
        return Ok(Some(pid));
    };
    if let Some(own) = own_number(&task.status, given) {
        return Ok(Some(own.cast_signed()));
    }
    let namespace = views.open_namespace(call.tid, "pid").or_gone("open the namespace of a task")?;
    match process::pid_from_namespace(namespace.as_fd(), pid) {
        Ok(other) => Ok(Some(other)),
        Err(OsErrno::ESRCH) => Err(Errno::ESRCH.into()),
        // Linux before 6.11 does not translate.
        Err(_) => Ok(None),
    }
}

/// The outermost number of the task or its process, if `given` is what it has in its own pid namespace.
fn own_number(status: &Status, given: u32) -> Option<u32> {
    let numbers = [&status.ns_tid, &status.ns_tgid];
    numbers.into_iter().find(|levels| levels.last() == Some(&given))?.first().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_numbers_are_those_of_the_innermost_namespace() {
        let status = Status { ns_tid: vec![41, 9, 3], ns_tgid: vec![40, 8, 2], ..Status::default() };
        assert_eq!(
            [3, 2, 9, 41, 1].map(|given| own_number(&status, given)),
            [Some(41), Some(40), None, None, None]
        );
    }
}
