//! `sysctl_store`.

use std::os::fd::AsFd;
use std::sync::OnceLock;

use nix::sched::{CloneFlags, unshare};
use sysemu::Supervisor;
use sysemu::emulator::codec::Codec;
use sysemu::emulator::errno::Errno;
use sysemu::emulator::scope;
use sysemu::emulator::sys::file;
use sysemu::policy::Loader;

/// A type, a file of the kernel with a value of that type in a namespace of its own, and the row for it.
struct Case {
    key: &'static str,
    codec: Codec,
    value: &'static str,
    row: &'static str,
}

const CASES: [Case; 6] = [
    Case {
        key: "net/ipv4/conf/lo/tag",
        codec: Codec::Int { min: i32::MIN, max: i32::MAX },
        value: "7",
        row: "type = \"int\"",
    },
    Case {
        key: "net/core/somaxconn",
        codec: Codec::Int { min: 0, max: i32::MAX },
        value: "7",
        row: "type = \"int\"\nrange = [0, 2147483647]",
    },
    Case {
        key: "net/ipv4/tcp_keepalive_probes",
        codec: Codec::Uint { min: 0, max: 255 },
        value: "7",
        row: "type = \"uint\"\nrange = [0, 255]",
    },
    Case {
        key: "net/ipv4/tcp_rmem",
        codec: Codec::IntList { len: 3, min: 1, max: i32::MAX },
        value: "7 8 9",
        row: "type = \"int-list\"\nlen = 3\nrange = [1, 2147483647]",
    },
    Case {
        key: "kernel/shmmax",
        codec: Codec::Ulong { min: 0, max: u64::MAX },
        value: "7",
        row: "type = \"ulong\"",
    },
    Case {
        key: "kernel/domainname",
        codec: Codec::Str { max: 64 },
        value: "abc",
        row: "type = \"string\"\nlen = 64",
    },
];

fn supervisor() -> &'static Supervisor {
    static SUPERVISOR: OnceLock<Supervisor> = OnceLock::new();
    SUPERVISOR.get_or_init(|| {
        let row = |case: &Case| {
            let key = case.key.replace('/', ".");
            format!("[[sysctl]]\nkey = \"{key}\"\nvalue = \"{}\"\n{}\n", case.value, case.row)
        };
        let text = format!("schema = 1\n{}", CASES.iter().map(row).collect::<String>());
        let policy = Loader::new().text("sysctls", text).load().expect("a good policy");
        Supervisor::builder().policy(policy).build().expect("a supervisor")
    })
}

/// Whether this thread has sysctls of its own to write to; says once why not.
fn has_namespaces() -> bool {
    thread_local! {
        static OWN: bool = {
            let all = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS;
            let own = unshare(all);
            if let Err(errno) = own {
                println!("SKIP sysctl_store_kernel: namespaces with sysctls of their own are not to be had: {errno}");
            }
            own.is_ok()
        };
    }
    OWN.with(|own| *own)
}

/// What is written to a file of each type is taken, counted, refused and shown as the kernel does it with its own file
/// of that type; and what a file shows can be written back without a change. The first byte chooses the type, the second
/// the offset, the rest is written.
pub fn sysctl_store(data: &[u8]) {
    let [kind, offset, data @ ..] = data else { return };
    let case = &CASES[usize::from(*kind) % CASES.len()];
    let first = case.codec.canonical(case.value).expect("a good value").into_bytes();
    let written = case.codec.write(&first, data, (*offset).into());
    let shown = written.content.clone().unwrap_or_else(|| first.clone());
    assert!(written.result.is_err() || written.result.is_ok_and(|count| count <= data.len()));
    if has_namespaces() {
        let kernel = by_the_kernel(case, data, (*offset).into());
        assert_eq!(kernel, (written.result, shown.clone()), "{:?} {offset} {data:?}", case.codec);
    }
    stored(case, &first, data, (*offset).into(), &(written.result, shown.clone()));
    // What is shown is a value, and writing it back changes nothing.
    match std::str::from_utf8(&shown) {
        Ok(text) => assert_eq!(case.codec.canonical(text).as_deref(), Ok(text), "{:?} {data:?}", case.codec),
        Err(_) => assert!(matches!(case.codec, Codec::Str { max } if shown.len() <= max + 1)),
    }
    let again = case.codec.write(&shown, &shown, 0);
    assert_eq!(
        (again.content.unwrap_or_else(|| shown.clone()), again.result),
        (shown.clone(), Ok(shown.len()))
    );
}

type Outcome = (Result<usize, Errno>, Vec<u8>);

fn by_the_kernel(case: &Case, data: &[u8], offset: i64) -> Outcome {
    let path = file::c_path(format!("/proc/sys/{}", case.key).as_bytes()).expect("no NUL");
    let target = file::open(None, &path, libc::O_RDWR).expect("a file of the kernel");
    nix::sys::uio::pwrite(&target, case.value.as_bytes(), 0).expect("a good value");
    // An empty write(2) does not reach the handler.
    let result = nix::sys::uio::pwrite(&target, data, offset).map_err(|errno| Errno::from_raw(errno as i32));
    let shown = file::open(None, &path, libc::O_RDONLY).and_then(|file| file::read_bytes(file.as_fd()));
    (result, shown.expect("readable"))
}

/// The same through the store, with the row's rules.
fn stored(case: &Case, first: &[u8], data: &[u8], offset: u64, expected: &Outcome) {
    let store = &supervisor().engine().emulator.store;
    let object = store.object(&format!("/proc/sys/{}", case.key)).expect("a row");
    let show = || store.content_in(&object, 0, Some(scope::GLOBAL)).expect("content").to_vec();
    store.apply(&object, 0, Some(scope::GLOBAL), first, 0).result.expect("a good value");
    assert_eq!(show(), first);
    let result = store.apply(&object, 0, Some(scope::GLOBAL), data, offset).result;
    assert_eq!((result, show()), *expected, "{:?} {offset} {data:?}", case.codec);
}
