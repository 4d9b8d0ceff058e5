//! What this host offers, found by trying.

use std::os::fd::AsFd;

use nix::errno::Errno as OsErrno;

use super::carrier::memfd;
use super::sys::mount::{Access, detached_fuse};
use super::sys::{file, process, ptrace, seccomp};

/// How good the news is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// There, and used.
    Good,
    /// Something differs or costs more.
    Limited,
    /// Not there, and something does not work without it.
    Missing,
}

/// One finding.
#[derive(Clone, Debug)]
pub struct Finding {
    /// What it is about.
    pub topic: &'static str,
    /// How good the news is.
    pub state: State,
    /// What was found, and what follows.
    pub detail: String,
}

fn finding(topic: &'static str, state: State, detail: impl Into<String>) -> Finding {
    Finding { topic, state, detail: detail.into() }
}

/// Everything that `sysemu doctor` reports.
pub fn all() -> Vec<Finding> {
    let mut findings = vec![kernel()];
    findings.extend(backend());
    findings.push(fuse());
    findings.push(memfds());
    findings.push(privilege());
    findings.extend(yama());
    findings.push(pidfd());
    findings.push(limits());
    findings.push(finding(
        "io_uring",
        State::Limited,
        "io_uring_setup(2) answers ENOSYS under a policy with paths, because rings bypass the filter; allow it \
         with [options] io_uring = \"allow\"",
    ));
    findings.push(finding(
        "writing",
        State::Limited,
        "with the memfd carrier a bad value is not refused by write(2): it is dropped, and logged, when somebody looks next",
    ));
    findings
}

fn kernel() -> Finding {
    match nix::sys::utsname::uname() {
        Ok(host) => finding(
            "kernel",
            State::Good,
            format!("{} {}", host.release().display(), host.machine().display()),
        ),
        Err(errno) => finding("kernel", State::Missing, format!("uname(2) fails: {errno}")),
    }
}

/// Whether the kernel offers user notification to this process.
pub fn has_notify() -> bool {
    seccomp::supports_flags(libc::SECCOMP_FILTER_FLAG_NEW_LISTENER)
}

/// Whether the kernel lets this process install filters at all. A sandbox may refuse seccomp(2).
pub fn has_filters() -> bool {
    seccomp::supports_flags(0)
}

fn backend() -> Vec<Finding> {
    let listener = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    let traced = ptrace::try_seize();
    if !has_notify() {
        let why = "the kernel refuses SECCOMP_FILTER_FLAG_NEW_LISTENER (Linux 5.0, not in gVisor)";
        return vec![match traced {
            Ok(()) if !has_filters() => finding(
                "backend",
                State::Limited,
                "ptrace: seccomp(2) is refused; ptrace(2) takes its place and stops every system call of programs twice: \
                 they run, at a multiple of the cost, and cannot be traced by others (strace, gdb)",
            ),
            Ok(()) => finding(
                "backend",
                State::Limited,
                format!(
                    "ptrace: {why}; ptrace(2) with a narrow filter takes its place: a trapped call costs several \
                     times as much, the program cannot be traced by others (strace, gdb)"
                ),
            ),
            Err(errno) => finding(
                "backend",
                State::Missing,
                format!(
                    "none: {why}, and tracing a child fails: {errno}: programs cannot be run under a policy here"
                ),
            ),
        }];
    }
    let mut findings = vec![match already_filtered() {
        true => finding(
            "backend",
            State::Limited,
            "notify: seccomp user notification; this process is under a filter already: if that one has a listener, \
             running programs fails with EBUSY",
        ),
        false => finding("backend", State::Good, "notify: seccomp user notification"),
    }];
    findings.push(match traced {
        Ok(()) => finding("ptrace", State::Good, "ptrace(2) works too: --backend ptrace"),
        Err(errno) => finding("ptrace", State::Limited, format!("--backend ptrace cannot work: {errno}")),
    });
    findings.push(if seccomp::supports_flags(listener | seccomp::WAIT_KILLABLE_RECV) {
        finding("signals", State::Good, "a received call completes in spite of signals (WAIT_KILLABLE_RECV)")
    } else {
        finding(
            "signals",
            State::Limited,
            "no WAIT_KILLABLE_RECV (Linux 5.19): a signal makes a trapped call start anew, or fail with EINTR",
        )
    });
    findings
}

fn already_filtered() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mode = status.lines().find_map(|line| line.strip_prefix("Seccomp:"));
    mode.is_some_and(|mode| mode.trim() == "2")
}

fn fuse() -> Finding {
    let consequence = format!("virtual files are sealed memfds instead: {}", memfd::DIFFERENCES);
    let device = match file::open(None, c"/dev/fuse", libc::O_RDWR) {
        Ok(device) => device,
        Err(errno) => {
            return finding(
                "carrier",
                State::Limited,
                format!("memfd: cannot open /dev/fuse ({errno}); {consequence}"),
            );
        }
    };
    match detached_fuse(device.as_fd(), c"sysemu", Access::Owner) {
        Ok(_) => finding("carrier", State::Good, "fuse: virtual files are served from a detached FUSE mount"),
        Err(errno) => {
            let why = match errno {
                OsErrno::EPERM => "mounting needs CAP_SYS_ADMIN",
                OsErrno::ENOSYS => "the kernel lacks fsopen(2) (Linux 5.2)",
                OsErrno::ENODEV => "the kernel has no FUSE",
                _ => "the kernel refuses a detached FUSE mount",
            };
            finding("carrier", State::Limited, format!("memfd: {why} ({errno}); {consequence}"))
        }
    }
}

fn memfds() -> Finding {
    match file::memfd(c"sysemu") {
        Ok(_) => finding("memfd", State::Good, "memfd_create(2) works"),
        Err(errno) => finding(
            "memfd",
            State::Missing,
            format!("memfd_create(2) fails: {errno}; without FUSE nothing can be served"),
        ),
    }
}

fn privilege() -> Finding {
    if process::has_cap_sys_admin() {
        finding(
            "privilege",
            State::Good,
            "CAP_SYS_ADMIN: programs keep the power to gain privileges (setuid works)",
        )
    } else {
        finding(
            "privilege",
            State::Limited,
            "no CAP_SYS_ADMIN: programs run with no_new_privs, so sudo, ping and the like lose their setuid bit",
        )
    }
}

fn yama() -> Option<Finding> {
    let scope = std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").ok()?;
    let scope: u32 = scope.trim().parse().ok()?;
    Some(match scope {
        0 | 1 => finding(
            "yama",
            State::Good,
            format!("ptrace_scope {scope}: a parent may read its children's memory"),
        ),
        _ if process::has_cap_sys_admin() => {
            finding("yama", State::Good, format!("ptrace_scope {scope}, passed by privilege"))
        }
        _ => finding(
            "yama",
            State::Missing,
            format!(
                "ptrace_scope {scope} forbids reading the memory of programs: run as root, or set it to 1"
            ),
        ),
    })
}

fn pidfd() -> Finding {
    match process::pidfd_open_thread(nix::unistd::gettid().as_raw().cast_unsigned()) {
        Ok(_) => finding(
            "pidfd",
            State::Good,
            "pidfd_open(2) works: directory listings can be merged, inotify watches added",
        ),
        Err(errno) => finding(
            "pidfd",
            State::Limited,
            format!(
                "pidfd_open(2) fails ({errno}; Linux 5.6): real directories are listed without virtual entries"
            ),
        ),
    }
}

fn limits() -> Finding {
    match nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE) {
        Ok((_, hard)) if hard >= 4096 => finding("limits", State::Good, format!("up to {hard} open files")),
        Ok((_, hard)) => {
            finding("limits", State::Limited, format!("only {hard} open files: raise it with ulimit -Hn"))
        }
        Err(errno) => {
            finding("limits", State::Limited, format!("cannot read the limit of open files: {errno}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_has_a_backend() {
        let findings = all();
        let backend = findings.iter().find(|finding| finding.topic == "backend").expect("reported");
        assert_ne!(backend.state, State::Missing, "{}", backend.detail);
    }
}
