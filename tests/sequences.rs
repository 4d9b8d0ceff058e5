//! Random sequences of calls, made on the real kernel and under sysemu with each backend: every result has to be the
//! same. What once failed is kept in `fixtures/sequences/`, made small, and made again by each run.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{Run, Scratch, guest, is_long, is_root, skip, sysemu_program, text_of};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};

/// Sysctls that belong to namespaces, so that writing real ones harms nobody: key, type, value at the start.
const KEYS: [(&str, &str, &str); 5] = [
    ("net.core.somaxconn", "type = \"int\"\nrange = [0, 2147483647]\nscope = \"net\"", "4096"),
    (
        "net.ipv4.tcp_rmem",
        "type = \"int-list\"\nlen = 3\nrange = [1, 2147483647]\nscope = \"net\"",
        "4096 5000 6000",
    ),
    ("kernel.shmmax", "type = \"ulong\"\nscope = \"ipc\"", "77"),
    ("kernel.domainname", "type = \"string\"\nlen = 64\nscope = \"uts\"", "abc"),
    ("net.ipv4.conf.lo.tag", "type = \"int\"\nscope = \"net\"", "0"),
];

/// The folder of a sequence, the same for each way of running it, with a file, a folder and links.
struct Place {
    scratch: Scratch,
}

impl Place {
    fn new() -> Self {
        Place { scratch: Scratch::new() }
    }

    fn folder(&self) -> PathBuf {
        self.scratch.join("d")
    }

    fn policy(&self) -> String {
        let row = |(key, kind, value): &(&str, &str, &str)| {
            format!("[[sysctl]]\nkey = \"{key}\"\nvalue = \"{value}\"\n{kind}\n")
        };
        let rows: String = KEYS.iter().map(row).collect();
        self.scratch.write("p.toml", &format!("schema = 1\n{rows}"))
    }

    fn fresh(&self) {
        let folder = self.folder();
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(folder.join("sub")).expect("own directory");
        fs::write(folder.join("file"), "text of a file\n").expect("own directory");
        for (name, target) in [
            ("somaxconn", "/proc/sys/net/core/somaxconn"),
            ("core", "/proc/sys/net/core"),
            ("sysctls", "/proc/sys"),
            ("up", ".."),
            ("loop", "loop"),
            ("nowhere", "/proc/sys/net/core/nothing"),
        ] {
            std::os::unix::fs::symlink(target, folder.join(name)).expect("own directory");
        }
    }

    /// What a sequence prints, in namespaces of its own; `options` are for sysemu, none for the bare kernel.
    fn run(&self, script: &str, options: Option<&[&str]>) -> String {
        self.fresh();
        let set: String = KEYS
            .iter()
            .map(|(key, _, value)| {
                format!("set /proc/sys/{} {}\n", key.replace('.', "/"), value.replace(' ', "\\x20"))
            })
            .collect();
        let script = self.scratch.write("script", &format!("{set}{script}"));
        let (guest, folder) = (guest("steps"), text_of(&self.folder()));
        let mut words = vec!["unshare", "-n", "-i", "-u"];
        if let Some(options) = options {
            words.extend([sysemu_program(), "--no-auto"]);
            words.extend(options);
            words.push("--");
        }
        words.extend([&*guest, &*script, &*folder]);
        let outcome = Run::new(&words).go();
        let why = if outcome.status == 0 { "" } else { &outcome.stderr };
        without_numbers(&format!("{}{why}status {}\n", outcome.stdout, outcome.status))
    }

    /// The first step whose result differs from the kernel's, for each backend.
    fn differences(&self, script: &str) -> Vec<String> {
        let bare = self.run(script, None);
        let policy = self.policy();
        let mut found = Vec::new();
        for backend in ["notify", "ptrace"] {
            let shown = self.run(script, Some(&["--backend", backend, "-p", &policy]));
            let declared = |a: &str, b: &str| backend == "ptrace" && is_declared_for_memfds(a, b);
            // A descriptor that is somewhere else is also written somewhere else.
            let is_apart = |a: &str, b: &str| a != b && a.split(' ').nth(1) == Some("seek") && declared(a, b);
            let pairs = bare.lines().zip(shown.lines()).take_while(|(a, b)| !is_apart(a, b));
            let pairs = pairs.filter(|(a, b)| a != b && !declared(a, b));
            found.extend(pairs.take(1).map(|(a, b)| format!("{backend}\n  - {a}\n  + {b}")));
            if bare.lines().count() != shown.lines().count() {
                found.push(format!("{backend}: another number of lines\n{shown}"));
            }
        }
        found
    }
}

/// Text in which directories of processes have no number: each run has other ones.
fn without_numbers(text: &str) -> String {
    let mut parts = text.split("/proc/");
    let first = parts.next().unwrap_or("").to_owned();
    parts.fold(first, |all, part| {
        let rest = part.trim_start_matches(|c: char| c.is_ascii_digit());
        let name = if rest.len() == part.len() { "" } else { "PID" };
        format!("{all}/proc/{name}{rest}")
    })
}

/// Steps whose results are declared to differ with memfds (DESIGN.md), by the word of the step: what is about a
/// descriptor's size and position, and O_NOFOLLOW among its flags, which opening the memfd cannot have.
fn is_declared_for_memfds(bare: &str, shown: &str) -> bool {
    let words = |line: &str| -> Vec<String> { line.split(' ').map(str::to_owned).collect() };
    let flags = |words: &[String]| -> Option<i64> {
        i64::from_str_radix(words.get(3)?.strip_prefix("0x")?, 16).ok().map(|flags| flags & !0o400_000)
    };
    let (bare, shown) = (words(bare), words(shown));
    match bare.get(1).map(String::as_str) {
        Some("fstat" | "seek" | "read" | "pread") => true,
        Some("fstatat") => bare.get(3).is_some_and(|path| path == "\\e"),
        Some("flags") => flags(&bare).is_some() && flags(&bare) == flags(&shown) && bare[4..] == shown[4..],
        _ => false,
    }
}

/// Paths that are only looked at: through those that lead out of the folder a sequence could change things elsewhere.
fn seen() -> impl Strategy<Value = String> {
    let outside = ["..", "/", "../..", "/proc/..", "up", "up/", "up/.."].map(str::to_owned).to_vec();
    prop_oneof![6 => path(), 1 => prop::sample::select(outside)]
}

/// Paths: the ordinary ones, and everything between that leads to the same places or just does not.
fn path() -> impl Strategy<Value = String> {
    let keys: Vec<String> =
        KEYS.iter().map(|(key, _, _)| format!("/proc/sys/{}", key.replace('.', "/"))).collect();
    let odd = [
        "//proc//sys/net/core/somaxconn",
        "/proc/./sys/net/../net/core/somaxconn",
        "/proc/self/../sys/net/core/somaxconn",
        "/proc/thread-self/root/proc/sys/net/core/somaxconn",
        "/proc/sys/net/core/somaxconn/",
        "/proc/sys/net/core/somaxconn/.",
        "/proc/sys/net/core/somaxconn/..",
        "/proc/sys/net/core/somaxconn/x",
        "/proc/sys/net/core/Somaxconn",
        "/proc/sys/net/core/somaxcon",
        "/proc/sys/net/core/nothing",
        "/proc/sys/net/core",
        "/proc/sys",
        "/proc/sys/kernel/",
        "/../proc/sys/kernel/shmmax",
        "/proc/self/fd",
        "/proc/self/cwd/file",
        "/proc/self/cwd/sysctls/kernel/shmmax",
        "file",
        "file/",
        "file2",
        "sub",
        "sub/../file",
        "sub/file",
        "somaxconn",
        "somaxconn/",
        "core",
        "core/",
        "core/somaxconn",
        "core/../core/somaxconn",
        "sysctls/kernel/shmmax",
        "sysctls/kernel/../net/core/somaxconn",
        "up/d/core/somaxconn",
        "loop",
        "loop/x",
        "nowhere",
        "net/core/somaxconn",
        "core/rmem_max",
        ".",
        "\\e",
        "\\xff\\xfe",
        "/proc/sys/net/core/somaxconn\\x0a",
    ];
    let long = format!("/proc/sys/{}net/core/somaxconn", "./".repeat(500));
    let too_long = format!("/proc/sys/{}", "x".repeat(300));
    prop_oneof![
        3 => prop::sample::select(keys),
        4 => prop::sample::select(odd.map(str::to_owned).to_vec()),
        1 => prop::sample::select(vec![long, too_long]),
    ]
}

fn flags() -> impl Strategy<Value = String> {
    let bits = [0, 0o100, 0o200, 0o1000, 0o2000, 0o4000, 0o200_000, 0o400_000, 0o1_000_000, 0o2_000_000];
    // Without O_APPEND (0o2000): a FUSE file's position then is the kernel's own idea, which is declared.
    let bits: Vec<i32> = bits.into_iter().filter(|bit| *bit != 0o2000).collect();
    let more = prop::collection::vec(prop::sample::select(bits), 0..3);
    (prop_oneof![4 => Just(0), 2 => Just(1), 2 => Just(2)], more)
        .prop_map(|(mode, more)| format!("{:#x}", more.into_iter().fold(mode, |all, bit| all | bit)))
}

fn text() -> impl Strategy<Value = String> {
    let texts = [
        "1",
        "7\\x0a",
        "-1",
        "x",
        "\\e",
        "12\\x2034",
        "1\\x202\\x203",
        "0x10",
        "99999999999",
        "\\x20",
        "\\x00",
        "010",
    ];
    prop::sample::select(texts.map(str::to_owned).to_vec())
}

/// One step of `fixtures/guests/steps.c`.
fn step() -> impl Strategy<Value = String> {
    let slot = || 0..4i32;
    let dir = || -1..4i32;
    let size = || prop::sample::select(vec![0, 1, 2, 3, 100, 65536]);
    let offset = || prop::sample::select(vec![-1, 0, 1, 2, 5, 4096]);
    prop_oneof![
        6 => (slot(), path(), flags()).prop_map(|(s, p, f)| format!("open {s} {p} {f}")),
        2 => (slot(), dir(), path(), flags()).prop_map(|(s, d, p, f)| format!("openat {s} {d} {p} {f}")),
        2 => (slot(), dir(), path(), flags(), prop::sample::select(vec![0, 1, 2, 4, 8, 16]))
            .prop_map(|(s, d, p, f, r)| format!("openat2 {s} {d} {p} {f} {r}")),
        4 => (slot(), size()).prop_map(|(s, n)| format!("read {s} {n}")),
        2 => (slot(), size(), offset()).prop_map(|(s, n, o)| format!("pread {s} {n} {o}")),
        3 => (slot(), text()).prop_map(|(s, t)| format!("write {s} {t}")),
        1 => (slot(), text(), offset()).prop_map(|(s, t, o)| format!("pwrite {s} {t} {o}")),
        2 => (slot(), offset(), prop::sample::select(vec![0, 1, 2, 9]))
            .prop_map(|(s, o, w)| format!("seek {s} {o} {w}")),
        1 => (slot(), slot()).prop_map(|(a, b)| format!("dup {a} {b}")),
        1 => (slot(), slot()).prop_map(|(a, b)| format!("dup2 {a} {b}")),
        1 => slot().prop_map(|s| format!("close {s}")),
        1 => slot().prop_map(|s| format!("flags {s}")),
        2 => slot().prop_map(|s| format!("fstat {s}")),
        1 => slot().prop_map(|s| format!("fdlink {s}")),
        1 => slot().prop_map(|s| format!("fstatfs {s}")),
        1 => slot().prop_map(|s| format!("list {s}")),
        1 => slot().prop_map(|s| format!("fchdir {s}")),
        1 => Just("getcwd".to_owned()),
        2 => seen().prop_map(|p| format!("stat {p}")),
        1 => seen().prop_map(|p| format!("lstat {p}")),
        1 => seen().prop_map(|p| format!("statfs {p}")),
        1 => seen().prop_map(|p| format!("readlink {p}")),
        1 => path().prop_map(|p| format!("chdir {p}")),
        1 => (seen(), 0..8i32).prop_map(|(p, m)| format!("access {p} {m}")),
        1 => (dir(), seen(), prop::sample::select(vec![0, 0x100, 0x1000]))
            .prop_map(|(d, p, f)| format!("fstatat {d} {p} {f}")),
        1 => (slot(), slot(), prop::sample::select(vec![0, 1, 2])).prop_map(|(a, b, f)| format!("reopen {a} {b} {f}")),
        1 => (path(), path()).prop_map(|(a, b)| format!("rename {a} {b}")),
        1 => (path(), text()).prop_map(|(p, t)| format!("set {p} {t}")),
        1 => prop::sample::select(vec!["file", "sub", "somaxconn", "core", "sub/file"])
            .prop_map(|p| format!("unlink {p}")),
        1 => prop::sample::select(vec!["made", "sub/made", "core/made"]).prop_map(|p| format!("mkdir {p}")),
    ]
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/sequences")
}

#[test]
fn random_sequences_give_what_the_kernel_gives() {
    if !is_root() {
        return skip(
            "random_sequences_give_what_the_kernel_gives",
            "namespaces with sysctls of their own need root",
        );
    }
    let given = std::env::var("SYSEMU_SEED").ok().and_then(|seed| seed.parse().ok());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    let seed: u64 = given.unwrap_or(now.as_nanos() as u64);
    let cases = if is_long() { 1000 } else { 40 };
    eprintln!("{cases} sequences; SYSEMU_SEED={seed} makes the same ones");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config { cases, max_shrink_iters: 80, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let place = Place::new();
    let result = runner.run(&prop::collection::vec(step(), 1..40), |steps| {
        let found = place.differences(&(steps.join("\n") + "\n"));
        if found.is_empty() { Ok(()) } else { Err(TestCaseError::fail(found.join("\n"))) }
    });
    if let Err(proptest::test_runner::TestError::Fail(reason, steps)) = result {
        let script = steps.join("\n") + "\n";
        let path = fixtures().join(format!("seed-{seed}.steps"));
        fs::write(&path, format!("# {}\n{script}", reason.to_string().replace('\n', "\n# ")))
            .expect("the folder is there");
        panic!("{reason}\n{script}kept as {}", path.display());
    }
    result.expect("no sequence is rejected");
}

#[test]
fn sequences_that_once_failed_give_what_the_kernel_gives() {
    if !is_root() {
        return skip("sequences_that_once_failed", "namespaces with sysctls of their own need root");
    }
    let place = Place::new();
    let mut wrong = Vec::new();
    let mut paths: Vec<PathBuf> =
        fs::read_dir(fixtures()).expect("there").map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "no sequence is kept");
    for path in paths {
        let found = place.differences(&fs::read_to_string(&path).expect("text"));
        wrong.extend(found.iter().map(|one| format!("{}: {one}", path.display())));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
