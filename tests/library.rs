//! The library by itself: a policy made in code, a provider and a handler of one's own.

use std::io::Read;
use std::process::{Command, Stdio};

use sysemu::emulator::carrier::CarrierChoice;
use sysemu::emulator::errno::Errno;
use sysemu::emulator::reply::Reply;
use sysemu::emulator::stats::Verdict;
use sysemu::emulator::syscall::{Activation, Syscall};
use sysemu::policy::{Content, Loader, Origin, Policy, Row, What};
use sysemu::{BuildError, SpawnError, StartOptions, Supervisor};

fn file(path: &str, content: Content) -> Row {
    Row::new(path, What::file(content), 0o444, Origin::synthetic("test"))
}

fn output(supervisor: &Supervisor, words: &[&str]) -> (String, Option<i32>) {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut running = supervisor.spawn(command, StartOptions::default()).expect("started");
    let mut text = String::new();
    running.child().stdout.as_mut().expect("piped").read_to_string(&mut text).expect("read");
    let status = running.wait().expect("waited");
    (text, status.code())
}

#[test]
fn a_provider_of_ones_own_is_asked_at_each_open() {
    let rows = vec![file("/proc/counter", Content::Provider("counter".into()))];
    let count = std::sync::atomic::AtomicU32::new(0);
    let supervisor = Supervisor::builder()
        .policy(Policy { rows, ..Policy::default() })
        .provider("counter", "counts", move |cx| {
            let count = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Ok(format!("{} {count}\n", cx.path).into())
        })
        .build()
        .expect("built");
    let (text, status) = output(&supervisor, &["cat", "/proc/counter", "/proc/counter"]);
    assert_eq!((text.as_str(), status), ("/proc/counter 0\n/proc/counter 1\n", Some(0)));
    assert_eq!(supervisor.engine().stats.by_verdict()[&Verdict::Fd], 2);
}

#[test]
fn a_handler_of_ones_own_replaces_or_adds_a_call() {
    for carrier in [CarrierChoice::Fuse, CarrierChoice::Memfd] {
        let refuse = Syscall::new(
            "mkdir",
            |_| Activation::Trap,
            |call| {
                assert_eq!(call.path(0)?, b"/tmp/sysemu-library-test");
                Err(Errno::ENOSPC.into())
            },
        );
        let pass = Syscall::new("mkdirat", |_| Activation::Trap, |_| Ok(Reply::Continue));
        let supervisor =
            Supervisor::builder().carrier(carrier).handler(refuse).handler(pass).build().expect("built");
        let script = "import os\ntry:\n    os.mkdir('/tmp/sysemu-library-test')\nexcept OSError as error:\n    print(error.errno)";
        assert_eq!(output(&supervisor, &["python3", "-c", script]), (format!("{}\n", libc::ENOSPC), Some(0)));
    }
}

#[test]
fn a_handler_that_panics_lets_the_call_through() {
    let row = Syscall::new("mkdir", |_| Activation::Trap, |_| panic!("as the test wants it"));
    let supervisor = Supervisor::builder().handler(row).build().expect("built");
    let (text, status) = output(
        &supervisor,
        &[
            "python3",
            "-c",
            "import os\ntry:\n    os.mkdir('/')\nexcept OSError as error:\n    print(error.errno)",
        ],
    );
    assert_eq!((text, status), (format!("{}\n", libc::EEXIST), Some(0)));
    assert_eq!(supervisor.engine().stats.by_verdict()[&Verdict::Fault], 1);
}

#[test]
fn what_cannot_be_built_or_started_says_why() {
    let rows = vec![file("/proc/x", Content::Provider("nobody".into()))];
    let error =
        Supervisor::builder().policy(Policy { rows, ..Policy::default() }).build().err().expect("refused");
    assert!(matches!(&error, BuildError::Provider { name, .. } if name == "nobody"), "{error}");
    let supervisor = Supervisor::builder()
        .policy(Loader::new().file("/proc/x=1").load().expect("good"))
        .build()
        .expect("built");
    let error = supervisor.spawn(Command::new("sysemu-no-such-program"), StartOptions::default()).err();
    assert!(matches!(error, Some(SpawnError::Exec { .. })), "{:?}", error.map(|error| error.to_string()));
}

#[test]
fn two_supervisors_in_one_process_do_not_mix() {
    let make = |value: &str| {
        let policy = Loader::new().file(format!("/proc/sysemu_two={value}")).load().expect("good");
        Supervisor::builder().policy(policy).build().expect("built")
    };
    let (a, b) = (make("a"), make("b"));
    assert_eq!(output(&a, &["cat", "/proc/sysemu_two"]).0, "a\n");
    assert_eq!(output(&b, &["cat", "/proc/sysemu_two"]).0, "b\n");
    assert_eq!(output(&a, &["cat", "/proc/sysemu_two"]).0, "a\n");
}
