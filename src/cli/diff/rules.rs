//! The differences that are declared: what DESIGN.md says about virtual files, as rules with a name and a reason.
//! Every other difference is a mistake of the emulation.

use super::record::Record;

/// A difference in one field of a call that both runs made.
pub struct Case<'c> {
    /// `result`, the name of a field of a structure, `text`, `names`, or `data LINE`.
    pub field: &'c str,
    /// The call natively.
    pub native: &'c Record,
    /// The call under sysemu.
    pub emulated: &'c Record,
    /// The field natively.
    pub before: &'c str,
    /// The field under sysemu.
    pub after: &'c str,
    /// Whether a row answers for what the call is about.
    pub is_virtual: bool,
    /// Whether virtual files are memfds.
    pub has_memfds: bool,
    /// How the descriptor that the call is about was opened, as far as the run shows it.
    pub opened: &'c str,
}

/// A declared difference.
pub struct Rule {
    /// Its name, as reports show it.
    pub name: &'static str,
    /// Why it is there.
    pub reason: &'static str,
    /// Whether it explains a difference.
    pub explains: fn(&Case<'_>) -> bool,
}

impl Case<'_> {
    fn is_call(&self, names: &[&str]) -> bool {
        names.contains(&self.native.call.as_str())
    }

    fn is_field(&self, names: &[&str]) -> bool {
        names.contains(&self.field)
    }

    fn name(&self) -> &str {
        self.native.object.rsplit('/').next().unwrap_or_default()
    }

    fn below(&self, path: &str) -> bool {
        self.native.object.starts_with(path)
    }
}

/// All rules; the first that explains a difference names it.
pub static RULES: &[Rule] = &[
    Rule {
        name: "identity",
        reason: "device, inode and mount numbers of virtual files are the carrier's",
        explains: |case| {
            case.is_virtual && case.is_field(&["dev", "ino", "dev_major", "dev_minor", "mnt_id", "fsid"])
        },
    },
    Rule {
        name: "times",
        reason: "times of procfs are when the kernel first met the name, those of virtual files when sysemu started",
        explains: |case| case.is_virtual && case.is_field(&["atime", "mtime", "ctime", "btime"]),
    },
    Rule {
        name: "o-path",
        reason: "O_PATH on a virtual file gives a descriptor that can be read; on a virtual link it fails with ELOOP",
        explains: |case| {
            let opens = case.native.call.starts_with("open")
                && case.native.args.iter().any(|arg| arg.contains("O_PATH"));
            case.is_virtual && ((opens && case.after == "ELOOP") || case.opened.contains("O_PATH"))
        },
    },
    Rule {
        name: "direct",
        reason: "F_GETFL of a virtual file shows O_DIRECT, without which sendfile(2) would end at the size of 0",
        explains: |case| {
            let number = |text: &str| text.parse::<i32>().ok();
            let (before, after) = (number(case.before), number(case.after));
            case.is_virtual && case.is_call(&["fcntl"]) && before.map(|flags| flags | libc::O_DIRECT) == after
        },
    },
    Rule {
        name: "position",
        reason: "where a write leaves the position is the kernel's own idea of a FUSE file, told by lseek(2) only",
        explains: |case| {
            case.is_virtual && case.is_call(&["lseek"]) && case.field == "result" && is_written(case.opened)
        },
    },
    Rule {
        name: "names",
        reason: "calls that only change names or attributes are not trapped: on a path that is virtual only they fail",
        explains: |case| {
            let calls = [
                "chmod",
                "fchmodat",
                "chown",
                "lchown",
                "fchownat",
                "truncate",
                "utimensat",
                "unlink",
                "unlinkat",
                "rename",
                "renameat",
                "renameat2",
                "mkdir",
                "mkdirat",
                "rmdir",
                "setxattr",
                "link",
                "symlink",
            ];
            case.is_virtual && case.is_call(&calls) && case.after == "ENOENT"
        },
    },
    Rule {
        name: "queued",
        reason: "a call that is still queued when a signal handler without SA_RESTART comes fails with EINTR",
        explains: |case| case.field == "result" && case.after == "EINTR",
    },
    Rule {
        name: "status",
        reason: "/proc/PID/status shows the filter, and no_new_privs where it is needed",
        explains: |case| {
            let lines = ["Seccomp", "NoNewPrivs"];
            case.below("/proc/")
                && case.native.object.ends_with("/status")
                && lines.iter().any(|name| case.before.starts_with(name) && case.after.starts_with(name))
        },
    },
    Rule {
        name: "usage",
        reason: "what a process used (memory, switches) is of its own run",
        explains: |case| {
            let lines = ["Vm", "Rss", "voluntary_ctxt", "nonvoluntary_ctxt"];
            case.below("/proc/{")
                && case.native.object.ends_with("/status")
                && lines.iter().any(|name| case.before.starts_with(name) && case.after.starts_with(name))
        },
    },
    Rule {
        name: "counters",
        reason: "counters of the whole machine and random numbers change from run to run",
        explains: |case| {
            let names = [
                "ns_last_pid",
                "dentry-state",
                "inode-nr",
                "inode-state",
                "file-nr",
                "entropy_avail",
                "uuid",
            ];
            case.is_virtual
                && (case.field == "result" || case.field.starts_with("data"))
                && names.contains(&case.name())
        },
    },
    Rule {
        name: "initial-network",
        reason: "some files that are the same in each network namespace can be written in the first one only: rows \
                 have one mode",
        explains: |case| {
            let names = [
                "rmem_default",
                "rmem_max",
                "wmem_default",
                "wmem_max",
                "tcp_allowed_congestion_control",
                "nf_conntrack_buckets",
                "nf_conntrack_expect_max",
                "nf_conntrack_max",
            ];
            case.below("/proc/sys/net/")
                && names.contains(&case.name())
                && (case.field == "mode" || case.after != "EACCES")
        },
    },
    Rule {
        name: "checkpoint",
        reason: "CAP_CHECKPOINT_RESTORE opens the next ids of System V IPC for writing: rows have one mode",
        explains: |case| {
            let names = ["msg_next_id", "sem_next_id", "shm_next_id"];
            case.below("/proc/sys/kernel/") && names.contains(&case.name()) && case.after == "EACCES"
        },
    },
    Rule {
        name: "formats",
        reason: "values of these files have a format of their own (lists of ranges, keys): as texts of the catalogue they \
                 are neither checked nor put in order when they are written",
        explains: |case| {
            let names = ["ip_local_reserved_ports", "tcp_fastopen_key", "ratemask"];
            case.below("/proc/sys/net/") && names.contains(&case.name())
        },
    },
    Rule {
        name: "units",
        reason: "gc_min_interval and gc_min_interval_ms are one value of the kernel in two units, and two here",
        explains: |case| {
            case.below("/proc/sys/net/ipv6/route/gc_min_interval")
                && (case.field == "result" || case.field.starts_with("data"))
        },
    },
    Rule {
        name: "empty-write",
        reason: "the kernel does not tell FUSE of a write of no bytes: it gives 0 also where the file refuses it",
        explains: |case| {
            case.is_virtual
                && case.is_call(&["write", "pwrite64"])
                && case.native.args.get(1).is_some_and(|arg| arg == "\"\", 0")
        },
    },
    Rule {
        name: "bdi",
        reason: "the carrier's mount has an entry in /sys/class/bdi",
        explains: |case| {
            case.field == "names" && (case.below("/sys/class/bdi") || case.below("/sys/devices/virtual/bdi"))
        },
    },
    Rule {
        name: "memfd-size",
        reason: "a memfd shows its size, its maker's ids, and that no name leads to it",
        explains: |case| {
            let fields = ["size", "nlink", "blocks", "blksize", "uid", "gid"];
            case.has_memfds && case.is_virtual && case.emulated.fd.is_some() && case.is_field(&fields)
        },
    },
    Rule {
        name: "memfd-position",
        reason: "numbers in a memfd can be read in pieces, and seeking knows its size",
        explains: |case| {
            let calls = ["lseek", "read", "pread64", "readv", "preadv"];
            case.has_memfds && case.is_virtual && case.is_call(&calls)
        },
    },
    Rule {
        name: "memfd-write",
        reason: "what is written to a memfd counts at the next look, and is refused then",
        explains: |case| case.has_memfds && case.is_virtual && case.is_call(&["write", "pwrite64", "writev"]),
    },
    Rule {
        name: "memfd-owner",
        reason: "root can change mode and owner of a memfd, and fsync(2) it",
        explains: |case| {
            case.has_memfds && case.is_virtual && case.is_call(&["fchmod", "fchown", "fsync", "ftruncate"])
        },
    },
];

/// The rule for calls that only one run made: what programs remember of a device (ls(1): that it has no extended
/// attributes) holds for fewer files where virtual ones have another.
pub fn explains_alone(record: &Record, is_virtual: bool) -> Option<&'static str> {
    (is_virtual && record.call.ends_with("xattr")).then_some("identity")
}

fn is_written(opened: &str) -> bool {
    opened.contains("O_WRONLY") || opened.contains("O_RDWR")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_have_names_of_their_own_and_spare_real_files() {
        let mut names: Vec<&str> = RULES.iter().map(|rule| rule.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), RULES.len());
        let record = Record { object: "/etc/passwd".into(), ..Record::about("0", "stat", "0".into()) };
        for field in ["ino", "mtime", "size", "result", "names", "data 1"] {
            let case = Case {
                field,
                native: &record,
                emulated: &record,
                before: "1",
                after: "2",
                is_virtual: false,
                has_memfds: true,
                opened: "",
            };
            assert!(RULES.iter().all(|rule| !(rule.explains)(&case)), "{field}");
        }
    }
}
