//! The host as the supervisor sees it: its files, its machine, its uname.

use std::io;

use super::provider::{Host, MachineView, UnameView};
use crate::policy::{Policy, Sourced};

/// The host's files through std.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsHost;

impl Host for OsHost {
    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        std::fs::read(path)
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        let names =
            std::fs::read_dir(path)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        names.collect()
    }
}

/// The machine of a policy: the host's numbers where the policy gives none.
pub fn machine(policy: &Policy, host: &dyn Host) -> MachineView {
    let cpus = policy.machine.cpus.as_ref().map(|cpus| cpus.value);
    let memory = policy.machine.memory.as_ref().map(|memory| memory.value);
    MachineView {
        cpus: cpus.unwrap_or_else(|| host_cpus(host)),
        cpus_given: cpus.is_some(),
        memory: memory.unwrap_or_else(host_memory),
        memory_given: memory.is_some(),
    }
}

/// How many CPUs the host has: those that can ever come online, else those this process may use.
fn host_cpus(host: &dyn Host) -> u32 {
    let listed = host.read("/sys/devices/system/cpu/possible").ok();
    let last = listed.as_deref().and_then(|text| {
        let text = std::str::from_utf8(text).ok()?.trim();
        text.rsplit([',', '-']).next()?.parse::<u32>().ok()
    });
    match last {
        Some(last) => last + 1,
        None => std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(1)),
    }
}

/// Bytes of memory, as sysinfo(2) tells.
fn host_memory() -> u64 {
    nix::sys::sysinfo::sysinfo().map_or(0, |info| info.ram_total())
}

/// uname(2) under a policy.
pub fn uname(policy: &Policy) -> UnameView {
    let host = nix::sys::utsname::uname();
    let text =
        |field: &dyn Fn(&nix::sys::utsname::UtsName) -> String| host.as_ref().map(field).unwrap_or_default();
    let pick = |given: &Option<Sourced<String>>, own: String| {
        given.as_ref().map_or(own, |given| given.value.clone())
    };
    let lossy = |text: &std::ffi::OsStr| text.to_string_lossy().into_owned();
    let given = &policy.uname;
    UnameView {
        sysname: pick(&given.sysname, text(&|host| lossy(host.sysname()))),
        nodename: pick(&given.nodename, text(&|host| lossy(host.nodename()))),
        release: pick(&given.release, text(&|host| lossy(host.release()))),
        version: pick(&given.version, text(&|host| lossy(host.version()))),
        machine: pick(&given.machine, text(&|host| lossy(host.machine()))),
        domainname: pick(&given.domainname, text(&|host| lossy(host.domainname()))),
    }
}
