//! Who is calling: task identity and credentials, from `/proc/TID/status`.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use super::view::View;

/// What `/proc/TID/status` says about a task (proc_pid_status(5)).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Thread group id.
    pub tgid: u32,
    /// Parent's thread group id.
    pub ppid: u32,
    /// Real, effective, saved and file system user id.
    pub uid: [u32; 4],
    /// Real, effective, saved and file system group id.
    pub gid: [u32; 4],
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Effective capabilities.
    pub cap_effective: u64,
    /// Thread group id in each pid namespace, outermost first.
    pub ns_tgid: Vec<u32>,
    /// Thread id in each pid namespace, outermost first.
    pub ns_tid: Vec<u32>,
}

impl Status {
    /// Parses the file; fields that are missing stay at their defaults.
    pub fn parse(text: &str) -> Self {
        let mut status = Status::default();
        let numbers =
            |rest: &str| -> Vec<u32> { rest.split_whitespace().filter_map(|n| n.parse().ok()).collect() };
        let four = |rest: &str| -> [u32; 4] { numbers(rest).try_into().unwrap_or([u32::MAX; 4]) };
        for line in text.lines() {
            let Some((key, rest)) = line.split_once(':') else { continue };
            match key {
                "Tgid" => status.tgid = rest.trim().parse().unwrap_or(0),
                "PPid" => status.ppid = rest.trim().parse().unwrap_or(0),
                "Uid" => status.uid = four(rest),
                "Gid" => status.gid = four(rest),
                "Groups" => status.groups = numbers(rest),
                "CapEff" => status.cap_effective = u64::from_str_radix(rest.trim(), 16).unwrap_or(0),
                "NStgid" => status.ns_tgid = numbers(rest),
                "NSpid" => status.ns_tid = numbers(rest),
                _ => {}
            }
        }
        status
    }

    /// Whether the task has this capability in effect.
    pub fn has_capability(&self, bit: u32) -> bool {
        self.cap_effective & (1 << bit) != 0
    }
}

/// A task whose identity was checked a short while ago.
#[derive(Debug)]
pub struct Task {
    /// Thread id in the supervisor's pid namespace.
    pub tid: u32,
    /// Its status when it was looked at. Credentials may have changed since: read them anew to decide.
    pub status: Status,
    /// Root directory and mounts.
    pub view: Arc<View>,
    /// Its UTS namespace, once somebody asked.
    pub uts: OnceLock<u64>,
    /// When it was looked at.
    pub seen: Instant,
    /// Which generation of views it belongs to.
    pub generation: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_own_status() {
        let text = std::fs::read_to_string("/proc/thread-self/status").expect("status");
        let status = Status::parse(&text);
        assert_eq!(status.tgid, std::process::id());
        assert_eq!(status.uid[1], nix::unistd::geteuid().as_raw());
        assert_eq!(status.ns_tgid.last().copied(), Some(std::process::id()));
    }

    #[test]
    fn parses_nested_namespaces() {
        let text = "Name:\tx\nTgid:\t40\nPPid:\t3\nUid:\t0\t1\t2\t3\nNStgid:\t40\t1\nNSpid:\t41\t2\nCapEff:\t0000000000200000\n";
        let status = Status::parse(text);
        assert_eq!((status.ns_tgid.as_slice(), status.ns_tid.as_slice()), (&[40, 1][..], &[41, 2][..]));
        assert!(status.has_capability(21) && !status.has_capability(1));
        assert_eq!(status.uid, [0, 1, 2, 3]);
    }
}
