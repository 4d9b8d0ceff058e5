//! Stock runc sets sysctls of containers whose `/proc/sys` is virtual: through the hardened walk of its newer versions,
//! and by path. `tests/gvisor/runc.rs` does the same inside gVisor.

mod common;

use std::sync::Once;

use common::runc::{BAD_VALUE, Runc, TWO_CONTAINERS, two_containers};
use common::{Run, is_root, skip};

/// What is virtual, with another default than the kernel's, so that one knows whose value it is.
const VIRTUAL: [&str; 4] =
    ["--set", "net.ipv4.ip_unprivileged_port_start=900", "--set", "net.ipv4.ping_group_range=1 0"];

/// Runs a case with each version of runc that can be had.
fn each(name: &str, case: impl Fn(Runc)) {
    if !is_root() {
        return skip(name, "containers need root");
    }
    for runc in Runc::DEBIAN {
        match runc.ready() {
            Ok(()) => case(runc),
            Err(reason) => skip(&format!("{name}::{runc:?}"), &reason),
        }
    }
    static SKIPPED: Once = Once::new();
    match Runc::Newest.ready() {
        Ok(()) => case(Runc::Newest),
        Err(reason) => SKIPPED.call_once(|| skip("runc::newest", &reason)),
    }
}

/// A script with the containers of a version, in a mount namespace of its own.
fn bare(runc: Runc, script: &str) -> Run {
    let words = ["unshare", "--mount", "--propagation", "private", "bash", "-c", &runc.script("", script)];
    Run::new(&words)
}

#[test]
fn containers_have_their_own_values() {
    each("containers_have_their_own_values", |runc| {
        let run = bare(runc, TWO_CONTAINERS);
        let check = |printed: String, port| {
            assert!(printed.starts_with(runc.version()), "{printed}");
            let (_, rest) = printed.split_once('\n').expect("there is a first line");
            assert_eq!(rest, two_containers(port), "{runc:?}");
        };
        check(run.go().good(), "1024");
        for carrier in ["fuse", "memfd"] {
            let options = [&VIRTUAL[..], &["--carrier", carrier]].concat();
            check(run.under(&options).go().good(), "900");
        }
    });
}

#[test]
fn a_value_that_the_kernel_refuses_fails_as_it_does_there() {
    each("a_value_that_the_kernel_refuses_fails_as_it_does_there", |runc| {
        let run = bare(runc, BAD_VALUE);
        let (bare, virtually) = (run.go(), run.under(&VIRTUAL).go());
        assert_eq!(bare.stdout, "status 1\n1024\nstatus 0\n", "{}", bare.stderr);
        assert_eq!(virtually.stdout, "status 1\n900\nstatus 0\n", "{}", virtually.stderr);
        assert!(bare.stderr.contains("invalid argument"), "{}", bare.stderr);
        assert_eq!(message(&virtually.stderr), message(&bare.stderr), "{runc:?}");
    });
}

/// What runc complains of, without the time.
fn message(log: &str) -> Vec<&str> {
    log.lines().map(|line| line.split_once(" level=").map_or(line, |(_, rest)| rest)).collect()
}
