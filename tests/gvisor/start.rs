//! The static binary starts where there is nothing but itself.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use libtest_mimic::Trial;

use crate::common::gvisor::{Sandbox, Setup, static_binary};
use crate::common::{Run, Scratch, is_root, skip};
use crate::versions;

/// What it is asked there, and the beginning of what it says.
const QUESTIONS: [(&[&str], &str); 3] = [
    (&["/sysemu", "--version"], concat!("sysemu ", env!("CARGO_PKG_VERSION"))),
    (&["/sysemu", "policy", "list"], "containerd"),
    (
        &["/sysemu", "explain", "/proc/sys/vm/swappiness", "-p", "linux"],
        "/proc/sys/vm/swappiness: virtual file 0644",
    ),
];

pub fn cases() -> Vec<Trial> {
    let name = "empty_root::linux";
    let mut trials = vec![Trial::test(name, move || {
        if is_root() {
            on_linux()
        } else {
            skip(name, "needs root")
        }
        Ok(())
    })];
    trials.extend(versions("empty_root", in_gvisor));
    trials
}

fn on_linux() {
    let scratch = Scratch::new();
    fs::copy(static_binary(), scratch.join("sysemu")).expect("own directory");
    fs::set_permissions(scratch.join("sysemu"), fs::Permissions::from_mode(0o755)).expect("own file");
    let root = scratch.path().to_str().expect("text");
    for (words, begin) in QUESTIONS {
        let printed = Run::new(&[&["chroot", root], words].concat()).go().good();
        assert!(printed.starts_with(begin), "{words:?}: {printed}");
    }
}

fn in_gvisor(setup: Setup) {
    for (words, begin) in QUESTIONS {
        let printed = Sandbox::new(setup).empty_root().command(words).go().good();
        assert!(printed.starts_with(begin), "{words:?}: {printed}");
    }
}
