//! The host as the supervisor sees it: its files, its machine, its uname.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno as OsErrno;
use nix::sys::utsname::UtsName;

use super::provider::{Host, MachineView, UnameView};
use super::sys::{OsResult, file, process, tape};
use crate::policy::{Policy, Sourced, Uname};

fn to_errno(error: &io::Error) -> OsErrno {
    OsErrno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}

/// The inode number of a directory.
pub fn inode(path: &str) -> Option<u64> {
    Some(file::stat(None, &file::c_path(path.as_bytes()).ok()?, 0).ok()?.ino)
}

/// The host's files through std.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsHost;

impl Host for OsHost {
    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        let read = || std::fs::read(path).map_err(|error| to_errno(&error));
        Ok(tape::bytes(|| format!("host file {path}"), read)?)
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        let list = || -> io::Result<Vec<String>> {
            let names =
                std::fs::read_dir(path)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
            names.collect()
        };
        let names = || list().map_err(|error| to_errno(&error));
        Ok(tape::os(|| format!("host directory {path}"), names)?)
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
        None => {
            let ask =
                || std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(1));
            tape::fact(|| "host cpus".to_owned(), ask)
        }
    }
}

/// Bytes of memory, as sysinfo(2) tells.
fn host_memory() -> u64 {
    let ask = || nix::sys::sysinfo::sysinfo().map_or(0, |info| info.ram_total());
    tape::fact(|| "host memory".to_owned(), ask)
}

/// uname(2) as the supervisor sees it, with the fields that the policy gives in their place.
pub fn uname(policy: &Policy) -> UnameView {
    match names() {
        Ok(host) => uname_over(&policy.uname, &host),
        Err(errno) => {
            tracing::warn!("uname(2) fails: {errno}");
            UnameView::default()
        }
    }
}

/// The real host and domain name.
pub fn uts_names() -> (String, String) {
    names().map_or_else(|_| Default::default(), |host| (host.nodename, host.domainname))
}

/// The fields that a policy gives over those of a UTS namespace.
pub fn uname_over(given: &Uname, host: &UnameView) -> UnameView {
    let pick = |given: &Option<Sourced<String>>, own: &String| {
        given.as_ref().map_or_else(|| own.clone(), |given| given.value.clone())
    };
    UnameView {
        sysname: pick(&given.sysname, &host.sysname),
        nodename: pick(&given.nodename, &host.nodename),
        release: pick(&given.release, &host.release),
        version: pick(&given.version, &host.version),
        machine: pick(&given.machine, &host.machine),
        domainname: pick(&given.domainname, &host.domainname),
    }
}

fn view(names: &UtsName) -> UnameView {
    let field = |text: &std::ffi::OsStr| text.to_string_lossy().into_owned();
    UnameView {
        sysname: field(names.sysname()),
        nodename: field(names.nodename()),
        release: field(names.release()),
        version: field(names.version()),
        machine: field(names.machine()),
        domainname: field(names.domainname()),
    }
}

/// uname(2) of the calling thread.
///
/// # Errors
/// None in practice.
pub fn names() -> OsResult<UnameView> {
    tape::os(|| "uname".to_owned(), || process::uname().map(|names| view(&names)))
}

/// uname(2) in another UTS namespace, asked by a thread that enters it for good.
///
/// # Errors
/// EPERM: without CAP_SYS_ADMIN nobody enters it.
pub fn uname_in(namespace: OwnedFd) -> OsResult<UnameView> {
    let question = || format!("uname {}", tape::place(Some(namespace.as_fd()), b""));
    tape::os(question, || {
        let namespace = namespace.try_clone().map_err(|error| to_errno(&error))?;
        let ask = move || {
            nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWUTS)?;
            nix::sys::utsname::uname()
        };
        let names = std::thread::spawn(ask).join().unwrap_or(Err(OsErrno::EPERM))?;
        Ok(view(&names))
    })
}
