//! Stock runc sets sysctls of containers that gVisor does not have, through the hardened walk of its newer versions too.
//! `tests/runc.rs` does the same on Linux.
//!
//! Not in gVisor of 2022, where runc starts no container: it had no devices controller (`policies::runc`).

use libtest_mimic::Trial;

use crate::common::gvisor::{Sandbox, Setup, Version, ready};
use crate::common::runc::{BAD_VALUE, Runc, TWO_CONTAINERS, two_containers};
use crate::common::{Outcome, skip};
use crate::policies::CGROUPS;
use crate::trial;

pub fn cases() -> Vec<Trial> {
    let mut trials = Vec::new();
    let mut runcs = Runc::DEBIAN.to_vec();
    match ready().and_then(|()| Runc::Newest.ready()) {
        Ok(()) => runcs.push(Runc::Newest),
        Err(reason) => skip("gvisor::runc_sysctls::newest", &reason),
    }
    for setup in Setup::versions().into_iter().filter(|setup| setup.version != Version::V2022) {
        for runc in runcs.iter().copied() {
            let name = format!("runc_sysctls::{runc:?}::{}", setup.name()).to_lowercase();
            trials.push(trial(name.clone(), move || match runc.ready() {
                Ok(()) => sysctls(setup, runc),
                Err(reason) => skip(&name, &reason),
            }));
        }
    }
    trials
}

fn wrapped(setup: Setup, script: &str) -> Outcome {
    let words = ["sysemu", "--no-auto", "-p", "gvisor", "--", "bash", "-c", script];
    Sandbox::new(setup).command(&words).limit(120).go()
}

/// gVisor's tmpfs does not know the options with which runc hides directories.
const UNMASKED: &str = "spec[\"linux\"][\"maskedPaths\"] = []";

fn sysctls(setup: Setup, runc: Runc) {
    let script = format!("{CGROUPS}\n{}", runc.script(UNMASKED, &format!("{TWO_CONTAINERS}{BAD_VALUE}")));
    let outcome = wrapped(setup, &script);
    let wanted = format!("{}status 1\n1024\nstatus 0\n", two_containers("1024"));
    let rest = outcome.stdout.split_once('\n').map(|(_, rest)| rest);
    assert_eq!(rest, Some(wanted.as_str()), "{}", outcome.stderr);
    assert!(outcome.stdout.starts_with(runc.version()), "{}", outcome.stdout);
    assert!(outcome.stderr.contains("invalid argument"), "{}", outcome.stderr);
    // What the policy is for: the files are not there otherwise.
    let bare = Sandbox::new(setup).command(&["cat", "/proc/sys/net/ipv4/ping_group_range"]).go();
    assert_eq!(bare.status, 1, "{bare:?}");
}
