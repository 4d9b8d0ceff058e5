//! The filter that a policy needs: nothing more is trapped, on every ABI.

use sysemu::Supervisor;
use sysemu::emulator::abi::{ABIS, Abi};
use sysemu::emulator::filter::{TrapAction, build, evaluate, let_through};
use sysemu::emulator::sys::seccomp::Instruction;
use sysemu::emulator::syscall::{SyscallTable, number};
use sysemu::policy::{Loader, Policy};

const ALLOW: u32 = 0x7fff_0000;
const NOTIFY: u32 = 0x7fc0_0000;
const ENOSYS: u32 = 0x0005_0000 | 38;

fn filter(policy: Policy) -> Vec<Instruction> {
    Supervisor::builder().policy(policy).build().expect("a supervisor").filter().to_vec()
}

fn load(text: &str) -> Policy {
    let file = std::env::temp_dir().join(format!("sysemu-filter-{}-{}.toml", std::process::id(), text.len()));
    std::fs::write(&file, format!("schema = 1\n{text}")).expect("written");
    let policy = Loader::new().policy(file.to_string_lossy()).load();
    std::fs::remove_file(&file).expect("removed");
    policy.expect("a good policy")
}

/// Names of all calls that are not simply allowed, with plain arguments.
fn trapped(program: &[Instruction], abi: &Abi) -> Vec<String> {
    let all = (0..600).filter(|nr| evaluate(program, abi, nr | abi.nr_bits, [0; 6]) != Some(ALLOW));
    let name = |nr: u32| {
        let call = libseccomp::ScmpSyscall::from_raw_syscall((nr | abi.nr_bits).cast_signed());
        call.get_name_by_arch(abi.scmp).unwrap_or_else(|_| format!("number {nr}"))
    };
    all.map(name).collect()
}

#[test]
fn an_empty_policy_traps_nothing() {
    assert!(filter(Policy::default()).is_empty());
}

#[test]
fn uname_alone_traps_uname_alone() {
    let program = filter(load("[uname]\nrelease = \"1\"\nfiles = false\n"));
    assert_eq!(trapped(&program, &ABIS[0]), ["uname"]);
    assert_eq!(trapped(&program, &ABIS[2]), ["uname"]);
    let mut i386 = trapped(&program, &ABIS[1]);
    i386.sort_unstable();
    assert_eq!(i386, ["oldolduname", "olduname", "uname"]);
    // The machine field has a file since Linux 6.0 only; names that have files bring the calls that find them.
    let with_files = filter(load("[uname]\nrelease = \"1\"\n"));
    assert!(trapped(&with_files, &ABIS[0]).contains(&"openat".to_owned()));
}

#[test]
fn the_machine_traps_what_tells_its_size() {
    let memory = trapped(&filter(load("[machine]\nmemory = \"1G\"\n")), &ABIS[0]);
    assert!(
        memory.contains(&"sysinfo".into()) && !memory.contains(&"sched_getaffinity".into()),
        "{memory:?}"
    );
    let cpus = trapped(&filter(load("[machine]\ncpus = 1\n")), &ABIS[0]);
    assert!(cpus.contains(&"sched_getaffinity".into()) && !cpus.contains(&"sysinfo".into()), "{cpus:?}");
}

#[test]
fn statfs_rows_trap_statfs_alone() {
    let program = filter(load("[[statfs]]\nfrom = \"9p\"\ntype = \"tmpfs\"\n"));
    assert_eq!(trapped(&program, &ABIS[0]), ["statfs", "fstatfs"]);
}

#[test]
fn stat_rows_trap_looks_at_descriptors_unless_they_say_what_is_so() {
    const EMPTY_PATH: [u64; 6] = [0, 0, 0, libc::AT_EMPTY_PATH as u64, 0, 0];
    for (inode, traps) in [(1, false), (7777, true)] {
        let program = filter(load(&format!("[[stat]]\npath = \"/proc\"\ninode = {inode}\n")));
        let is_trapped = |name, args| {
            let number = number(name, &ABIS[0]).expect("it exists");
            !program.is_empty() && evaluate(&program, &ABIS[0], number, args) != Some(ALLOW)
        };
        for (name, args) in
            [("fstat", [0; 6]), ("newfstatat", EMPTY_PATH), ("newfstatat", [0; 6]), ("stat", [0; 6])]
        {
            assert_eq!(is_trapped(name, args), traps, "{name} {inode}");
        }
    }
    let other = filter(load("[[absent]]\npath = \"/a\"\n"));
    let at = number("newfstatat", &ABIS[0]).expect("it exists");
    assert_eq!(evaluate(&other, &ABIS[0], at, EMPTY_PATH), Some(ALLOW));
}

#[test]
fn calls_that_hurt_when_trapped_never_are() {
    let program = filter(Loader::new().policy("k3s").load().expect("good"));
    for name in [
        "close",
        "read",
        "write",
        "fork",
        "vfork",
        "clone",
        "clone3",
        "exit",
        "exit_group",
        "execve",
        "mmap",
        "fstat",
    ] {
        for abi in &ABIS {
            let Some(nr) = number(name, abi) else { continue };
            assert_eq!(evaluate(&program, abi, nr, [0; 6]), Some(ALLOW), "{name} on {}", abi.name);
        }
    }
}

#[test]
fn scalar_tests_look_at_the_low_word_only() {
    let program = filter(Loader::new().file("/proc/sys/a=1").load().expect("good"));
    let native = &ABIS[0];
    let nr = number("newfstatat", native).expect("native");
    let verdict = |dirfd: u64, flags: u64| evaluate(&program, native, nr, [dirfd, 1, 2, flags, 0, 0]);
    let cwd = libc::AT_FDCWD as u64;
    let empty = libc::AT_EMPTY_PATH as u64;
    assert_eq!(verdict(3, empty), Some(ALLOW), "fstat(3) of the C library");
    for (dirfd, flags) in
        [(3, 0), (cwd, empty), (cwd & 0xffff_ffff, empty), (cwd, 0), (cwd ^ (7 << 40), empty)]
    {
        assert_eq!(verdict(dirfd, flags), Some(NOTIFY), "{dirfd:x} {flags:x}");
    }
}

#[test]
fn rings_and_the_mount_api_follow_the_options() {
    let ring = number("io_uring_setup", &ABIS[0]).expect("native");
    let fsopen = number("fsopen", &ABIS[0]).expect("native");
    let row = "[[file]]\npath = \"/proc/x\"\ncontent = \"\"\n";
    let verdict = |text: &str, nr| evaluate(&filter(load(text)), &ABIS[0], nr, [0; 6]);
    assert_eq!(verdict(row, ring), Some(ENOSYS));
    assert_eq!(verdict(&format!("[options]\nio_uring = \"allow\"\n{row}"), ring), Some(ALLOW));
    assert_eq!(verdict(row, fsopen), Some(ALLOW));
    assert_eq!(verdict(&format!("[options]\nmount_api = \"enosys\"\n{row}"), fsopen), Some(ENOSYS));
}

#[test]
fn foreign_architectures_pass() {
    let program = filter(Loader::new().policy("k3s").load().expect("good"));
    let aarch64 = Abi {
        name: "aarch64",
        audit_arch: 0xc000_00b7,
        nr_bits: 0,
        scmp: ABIS[0].scmp,
        layout: ABIS[0].layout,
    };
    assert!((0..600).all(|nr| evaluate(&program, &aarch64, nr, [0; 6]) == Some(ALLOW)));
}

#[test]
fn there_is_room_for_the_filters_of_containers() {
    let program = filter(Loader::new().policy("k3s").load().expect("good"));
    // The kernel allows 32768 instructions for all filters of a process.
    assert!(program.len() < 2048, "{} instructions", program.len());
}

#[test]
fn a_tracer_hears_of_the_same_calls_and_of_their_abi() {
    for name in ["linux", "k3s", "java"] {
        let policy = Loader::new().policy(name).load().expect("good");
        let table = SyscallTable::new(sysemu::handlers::all(), &policy);
        let notify = build(&table, TrapAction::Notify).expect("built");
        let trace = build(&table, TrapAction::Trace).expect("built");
        for (index, abi) in ABIS.iter().enumerate() {
            for nr in (0..600).map(|nr| nr | abi.nr_bits) {
                let expected = match evaluate(&notify, abi, nr, [0; 6]) {
                    Some(libc::SECCOMP_RET_USER_NOTIF) => Some(libc::SECCOMP_RET_TRACE | index as u32),
                    other => other,
                };
                assert_eq!(evaluate(&trace, abi, nr, [0; 6]), expected, "{name}: {} {nr}", abi.name);
            }
        }
    }
}

#[test]
fn calls_of_the_tracer_itself_are_let_through() {
    let pass = 0x8123_4567_89ab_cdef;
    let policy = Loader::new().policy("k3s").load().expect("good");
    let table = SyscallTable::new(sysemu::handlers::all(), &policy);
    let before = build(&table, TrapAction::Trace).expect("built");
    let mut after = before.clone();
    let_through(&mut after, pass);
    let is_traced = |verdict: Option<u32>| verdict.is_some_and(|v| v & !0xffff == libc::SECCOMP_RET_TRACE);
    let mut traced = 0;
    for abi in &ABIS {
        for nr in (0..600).map(|nr| nr | abi.nr_bits) {
            let plain = evaluate(&before, abi, nr, [0; 6]);
            for other in [0, pass + 1, pass ^ 1 << 32, pass & 0xffff_ffff, pass & !0xffff_ffff] {
                let args = [0, 0, 0, 0, 0, other];
                assert_eq!(evaluate(&after, abi, nr, args), plain, "{} {nr} {other:x}", abi.name);
            }
            let let_through = evaluate(&after, abi, nr, [0, 0, 0, 0, 0, pass]);
            assert_eq!(let_through, if is_traced(plain) { Some(ALLOW) } else { plain }, "{} {nr}", abi.name);
            traced += usize::from(is_traced(plain));
        }
    }
    assert!(traced > 100, "{traced}");
}
