//! The host as the supervisor sees it: its files, its machine, its uname.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;

use nix::sys::utsname::UtsName;

use super::provider::{Host, MachineView, UnameView};
use super::sys::OsResult;
use crate::policy::{Policy, Sourced, Uname};

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

/// uname(2) as the supervisor sees it, with the fields that the policy gives in their place.
pub fn uname(policy: &Policy) -> UnameView {
    match nix::sys::utsname::uname() {
        Ok(host) => uname_over(&policy.uname, &host),
        Err(errno) => {
            tracing::warn!("uname(2) fails: {errno}");
            UnameView::default()
        }
    }
}

/// The real host and domain name.
pub fn uts_names() -> (String, String) {
    nix::sys::utsname::uname().map_or_else(
        |_| Default::default(),
        |host| {
            (host.nodename().to_string_lossy().into_owned(), host.domainname().to_string_lossy().into_owned())
        },
    )
}

/// The fields that a policy gives over those of a UTS namespace.
pub fn uname_over(given: &Uname, host: &UtsName) -> UnameView {
    let pick = |given: &Option<Sourced<String>>, own: &OsStr| {
        given.as_ref().map_or_else(|| own.to_string_lossy().into_owned(), |given| given.value.clone())
    };
    UnameView {
        sysname: pick(&given.sysname, host.sysname()),
        nodename: pick(&given.nodename, host.nodename()),
        release: pick(&given.release, host.release()),
        version: pick(&given.version, host.version()),
        machine: pick(&given.machine, host.machine()),
        domainname: pick(&given.domainname, host.domainname()),
    }
}

/// uname(2) in another UTS namespace, asked by a thread that enters it for good.
///
/// # Errors
/// EPERM: without CAP_SYS_ADMIN nobody enters it.
pub fn uname_in(namespace: OwnedFd) -> OsResult<UtsName> {
    let ask = move || {
        nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWUTS)?;
        nix::sys::utsname::uname()
    };
    std::thread::spawn(ask).join().unwrap_or(Err(nix::errno::Errno::EPERM))
}
