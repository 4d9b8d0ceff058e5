//! What reading a virtual file and listing a directory shows, against the real file of the same content on
//! bare Linux, seen through a read-only bind mount (which is how `write = "deny"` behaves for writers).

mod common;

use std::collections::BTreeSet;

use common::{Run, Scratch, guest, is_root, skip};

/// Files with a number, a vector, a string and a long number. The virtual one has the real one's content.
const FILES: [(&str, &str); 4] = [
    ("kernel.pid_max", "/proc/sys/kernel/pid_max"),
    ("net.ipv4.tcp_rmem", "/proc/sys/net/ipv4/tcp_rmem"),
    ("kernel.core_pattern", "/proc/sys/kernel/core_pattern"),
    ("kernel.shmmax", "/proc/sys/kernel/shmmax"),
];

// Lines that differ by declaration (DESIGN.md), by how they start.

/// The supervisor does not stand between a program and calls that only change names or attributes.
const WITH_BOTH: &[&str] = &["chmod", "chown", "truncate", "utimensat", "unlink", "rename"];

/// A FUSE file can be mapped privately; O_DIRECT keeps sendfile(2) working on files of size 0.
const WITH_FUSE: &[&str] = &["mmap private", "flags"];

/// A memfd shows its size and that no name leads to it, can be mapped, is refused by epoll, and is read in
/// pieces whatever it holds; its own mode and owner can be changed by root.
const WITH_MEMFD: &[&str] = &[
    "fstat",
    "mmap shared",
    "mmap private",
    "epoll add",
    "epoll wait",
    "rest",
    "pread at 1",
    "pread at 2",
    "pread at 3",
    "SEEK_END",
    "SEEK_DATA",
    "SEEK_HOLE",
    "FIONREAD",
    "fsync",
    "fdatasync",
    "fchmod",
    "fchown",
];

/// The type of a row with this content.
fn kind_of(content: &str) -> &'static str {
    match content.split_ascii_whitespace().count() {
        3 => "type = \"int-list\"\nlen = 3",
        1 if content.trim_end().bytes().all(|byte| byte.is_ascii_digit()) => "type = \"ulong\"",
        _ => "type = \"string\"",
    }
}

fn compare(carrier: &str, declared: &[&str]) {
    if !is_root() {
        return skip("read_semantics", "a read-only bind mount needs root");
    }
    let mut wrong = Vec::new();
    let mut unseen: BTreeSet<&str> = declared.iter().chain(WITH_BOTH).copied().collect();
    for (key, path) in FILES {
        let content = std::fs::read_to_string(path).expect("readable");
        let run = Run::new(&[guest("reads").as_str(), path, &content]);
        let bare = run.read_only_sysctls().go().good();
        let scratch = Scratch::new();
        let (kind, value) = (kind_of(&content), content.trim_end().replace('\t', " "));
        let row = format!("[[sysctl]]\nkey = \"{key}\"\nvalue = '{value}'\n{kind}\nwrite = \"deny\"\n");
        let policy = scratch.write("p.toml", &format!("schema = 1\n{row}"));
        let wrapped = run.under(&["-p", &policy, "--carrier", carrier]).go().good();
        assert_eq!(bare.lines().count(), wrapped.lines().count(), "{bare}\n{wrapped}");
        for (bare, wrapped) in bare.lines().zip(wrapped.lines()) {
            let name = bare.split(':').next().unwrap_or("");
            if bare == wrapped {
                continue;
            }
            unseen.remove(name);
            if !declared.contains(&name) && !WITH_BOTH.contains(&name) {
                wrong.push(format!("{path}\n  - {bare}\n  + {wrapped}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(unseen.is_empty(), "declared, but not different: {unseen:?}");
}

#[test]
fn files_from_fuse_read_as_the_real_ones() {
    compare("fuse", WITH_FUSE);
}

#[test]
fn files_from_memfds_read_as_the_real_ones_but_for_what_is_declared() {
    compare("memfd", WITH_MEMFD);
}

#[test]
fn directories_list_as_real_ones() {
    let listing = guest("listing");
    for carrier in ["fuse", "memfd"] {
        let options = [
            "--set",
            "kernel.sysemu_new=1",
            "--hide",
            "/proc/sys/kernel/panic_on_oops",
            "--set",
            "kernel.panic=3",
            "--file",
            "/proc/sys/sysemu_dir/a=1",
            "--file",
            "/proc/sys/sysemu_dir/b=1",
            "--file",
            "/proc/sys/sysemu_dir/sub/c=1",
            "--carrier",
            carrier,
        ];
        let names = ["sysemu_new", "panic_on_oops", "panic", "pid_max"];
        let run = |directory: &str, names: &[&str]| {
            let mut words = vec![listing.as_str(), directory];
            words.extend(names);
            Run::new(&words)
        };
        // A directory that exists: native but for the entries.
        let kernel = run("/proc/sys/kernel", &names);
        let bare = kernel.go().good();
        let wrapped = kernel.under(&options).go().good();
        let native = |text: &str| -> Vec<String> {
            text.lines()
                .filter(|line| !names.iter().any(|name| line.starts_with(name)))
                .map(str::to_owned)
                .collect()
        };
        assert_eq!(native(&bare), native(&wrapped), "{carrier}");
        assert!(bare.ends_with("sysemu_new: 0\npanic_on_oops: 1\npanic: 1\npid_max: 1\n"), "{bare}");
        assert!(wrapped.ends_with("sysemu_new: 1\npanic_on_oops: 0\npanic: 1\npid_max: 1\n"), "{wrapped}");
        // One that exists only virtually: as a real one of the same kind.
        let keys = run("/proc/sys/kernel/keys", &[]).go().good();
        let only = run("/proc/sys/sysemu_dir", &["a", "b", "sub", "c"]).under(&options).go().good();
        let differing: Vec<&str> = only
            .lines()
            .zip(keys.lines())
            .filter(|(only, keys)| only != keys)
            .map(|(only, _)| only.split(':').next().unwrap_or(""))
            .collect();
        let declared: &[&str] = if carrier == "memfd" { &["directory"] } else { &[] };
        assert!(differing.iter().all(|name| declared.contains(name)), "{carrier}\n{keys}\n{only}");
        assert!(only.ends_with("a: 1\nb: 1\nsub: 1\nc: 0\n"), "{only}");
    }
}
