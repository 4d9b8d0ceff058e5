//! What reading a virtual file and listing a directory shows, in every world against the real file of the same content
//! on bare Linux, seen through a read-only bind mount (which is how `write = "deny"` behaves for writers).

use std::collections::BTreeSet;

use crate::Case;
use crate::common::gvisor::Version::{V2022, V2026};
use crate::common::{Run, guest};
use crate::table::Tally;
use crate::world::{Place, World};

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

/// What gVisor's own kernel answers otherwise than Linux.
const IN_GVISOR: &[(&str, &str)] = &[
    ("copy_file_range", "gVisor has none before 2026, and has it between file systems since"),
    ("mkdir", "gVisor finds out first that nothing can be made in procfs (EPERM)"),
    ("mkdir below", "gVisor finds out first that nothing can be made in procfs (EPERM)"),
    ("link", "gVisor finds out first that nothing can be made in procfs (EPERM)"),
    ("create a missing one", "gVisor finds out first that nothing can be made in procfs (EPERM)"),
    ("exec", "gVisor has no such file, and execve(2) is not trapped"),
    ("readlinkat with the empty path", "an empty path of gVisor's readlink(2) is EINVAL"),
];

/// The same since 2026.
const IN_NEW_GVISOR: &[(&str, &str)] = &[("statx", "memfds of gVisor are in a mount that has a number")];

/// Why a line is not as on Linux, where that is declared.
fn reason(world: World, name: &str) -> Option<&'static str> {
    let gvisor: &[&[(&str, &str)]] = match world {
        World::Gvisor(V2026) => &[IN_GVISOR, IN_NEW_GVISOR],
        World::Gvisor(_) => &[IN_GVISOR],
        _ => &[],
    };
    gvisor.iter().copied().flatten().find(|(line, _)| *line == name).map(|(_, reason)| *reason)
}

/// Gives the names of declared lines.
fn names(world: World, declared: &[&'static str]) -> BTreeSet<&'static str> {
    let all = [IN_GVISOR, IN_NEW_GVISOR].into_iter().flatten().map(|(name, _)| *name);
    let gvisor = all.filter(|name| reason(world, name).is_some());
    declared.iter().chain(WITH_BOTH).copied().chain(gvisor).collect()
}

/// The worlds that have a FUSE mount which is attached nowhere and can be read from.
fn has_fuse(world: World) -> bool {
    matches!(world, World::Notify | World::Ptrace)
}

pub fn cases() -> Vec<Case> {
    let fuse = Case::root("read_semantics/files_from_fuse", |world| compare(world, "fuse", WITH_FUSE));
    let list = Case::new("read_semantics/directories_from_fuse", |world| list(world, "fuse"));
    vec![
        Case { worlds: has_fuse, ..fuse },
        Case::root("read_semantics/files_from_memfds", |world| compare(world, "memfd", WITH_MEMFD)),
        Case { worlds: has_fuse, ..list },
        Case::new("read_semantics/directories_from_memfds", |world| self::list(world, "memfd")),
        Case::root("read_semantics/directories_from_another_root_and_namespace", from_elsewhere),
    ]
}

/// The type of a row with this content.
fn kind_of(content: &str) -> &'static str {
    match content.split_ascii_whitespace().count() {
        3 => "type = \"int-list\"\nlen = 3",
        1 if content.trim_end().bytes().all(|byte| byte.is_ascii_digit()) => "type = \"ulong\"",
        _ => "type = \"string\"",
    }
}

fn compare(world: World, carrier: &str, declared: &[&'static str]) -> Tally {
    let mut wrong = Vec::new();
    let mut tally = Tally::default();
    let mut unseen = names(world, declared);
    for (key, path) in FILES {
        let content = World::Linux.bare(&Run::new(&["cat", path])).good();
        let run = Run::new(&[guest("reads").as_str(), path, &content]);
        let bare = World::Linux.bare(&run.read_only_sysctls()).good();
        let (kind, value) = (kind_of(&content), content.trim_end().replace('\t', " "));
        let row = format!("[[sysctl]]\nkey = \"{key}\"\nvalue = '{value}'\n{kind}\nwrite = \"deny\"\n");
        let place = Place::new(world);
        let policy = place.write("p.toml", &format!("schema = 1\n{row}"));
        let wrapped = world.run(&run, &["-p", &policy, "--carrier", carrier]).good();
        assert_eq!(bare.lines().count(), wrapped.lines().count(), "{bare}\n{wrapped}");
        for (bare, wrapped) in bare.lines().zip(wrapped.lines()) {
            let name = bare.split(':').next().unwrap_or("");
            tally.compared += 1;
            if bare == wrapped {
                continue;
            }
            unseen.remove(name);
            let own = declared.contains(&name) || WITH_BOTH.contains(&name);
            match reason(world, name).or(own.then_some("declared in DESIGN.md")) {
                Some(reason) => tally.different.push((format!("{path}: {wrapped}"), reason)),
                None => wrong.push(format!("{path}\n  - {bare}\n  + {wrapped}")),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(unseen.is_empty(), "declared, but not different: {unseen:?}");
    tally
}

fn list(world: World, carrier: &str) -> Tally {
    let listing = guest("listing");
    let options = [
        "--set",
        "kernel.sysemu_new=1",
        "--hide",
        "/proc/sys/kernel/shmall",
        "--set",
        "kernel.msgmax=3",
        "--file",
        "/proc/sys/sysemu_dir/a=1",
        "--file",
        "/proc/sys/sysemu_dir/b=1",
        "--file",
        "/proc/sys/sysemu_dir/sub/c=1",
        "--carrier",
        carrier,
    ];
    let names = ["sysemu_new", "shmall", "msgmax", "shmmni"];
    let run = |directory: &str, names: &[&str]| Run::new(&[&[listing.as_str(), directory], names].concat());
    // A directory that exists: native but for the entries.
    let kernel = run("/proc/sys/kernel", &names);
    let bare = World::Linux.bare(&kernel).good();
    let wrapped = world.run(&kernel, &options).good();
    let native = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| !names.iter().any(|name| line.starts_with(name)));
        lines.map(str::to_owned).collect()
    };
    assert_eq!(native(&bare), native(&wrapped));
    assert!(bare.ends_with("sysemu_new: 0\nshmall: 1\nmsgmax: 1\nshmmni: 1\n"), "{bare}");
    assert!(wrapped.ends_with("sysemu_new: 1\nshmall: 0\nmsgmax: 1\nshmmni: 1\n"), "{wrapped}");
    // One that exists only virtually: as a real one of the same kind.
    let like = World::Linux.bare(&run("/proc/sys/kernel/keys", &[])).good();
    let only = world.run(&run("/proc/sys/sysemu_dir", &["a", "b", "sub", "c"]), &options).good();
    let differing: Vec<&str> = only
        .lines()
        .zip(like.lines())
        .filter(|(only, like)| only != like)
        .map(|(only, _)| only.split(':').next().unwrap_or(""))
        .collect();
    let declared: &[&str] = if carrier == "memfd" { &["directory"] } else { &[] };
    assert!(differing.iter().all(|name| declared.contains(name)), "{like}\n{only}");
    assert!(only.ends_with("a: 1\nb: 1\nsub: 1\nc: 0\n"), "{only}");
    Tally { compared: bare.lines().count() + only.lines().count(), different: Vec::new() }
}

/// What exists only virtually, and what stands for a real file, reaches programs that have no way to the supervisor.
fn from_elsewhere(world: World) -> Tally {
    let place = Place::new(world);
    let policy = "schema = 1\n[[file]]\npath = \"/proc/sys/sysemu_dir/a\"\ncontent = \"1\\n\"\n[[file]]\npath = \"/virtual/b\"\n\
                  content = \"2\\n\"\n[[file]]\npath = \"/virtual/c\"\nlike = \"/real\"\n";
    let policy = place.write("policy.toml", policy);
    place.make("mkdir bin; cp /bin/busybox bin; echo real >real");
    let options = ["-p", policy.as_str()];
    let look = |directory: &str| {
        format!(
            "exec 3<{directory}; b=/bin/busybox; $b ls {directory}; $b cat {directory}/*; $b find {directory}; \
             $b stat -c '%F %a' {directory}; cd {directory} && $b ls ."
        )
    };
    let root = place.path();
    let run = Run::new(&["chroot", &root, "/bin/busybox", "sh", "-c", &look("/virtual")]);
    let wanted = "b\nc\n2\nreal\n/virtual\n/virtual/b\n/virtual/c\ndirectory 755\nb\nc\n";
    assert_eq!(world.run(&run, &options).good(), wanted);
    let mut tally = Tally { compared: 2, different: Vec::new() };
    if world == World::Gvisor(V2022) {
        let reason =
            "one mount namespace for all: the /proc of a pid namespace is also what the supervisor then sees";
        tally.different.push(("left out".into(), reason));
        return tally;
    }
    let directory = "/proc/sys/sysemu_dir";
    let namespaces = ["unshare", "-m", "-n", "-p", "-f", "--mount-proc", "sh", "-c"];
    let run = Run::new(&[look(directory)]).after(&namespaces);
    let wanted = format!("a\n1\n{directory}\n{directory}/a\ndirectory 555\na\n");
    assert_eq!(world.run(&run, &options).good(), wanted);
    tally
}
