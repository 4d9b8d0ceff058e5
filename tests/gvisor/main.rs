//! sysemu inside gVisor, and what it needs for that: a binary that starts where nothing else is.
//!
//! Each case runs in every kind of sandbox that [`Setup::all`] names, in a sandbox of its own. The sandboxes are those
//! of `tests/common/gvisor.rs`, which has cases here too. A machine without gVisor skips all but the first case.
//!
//! `cargo test --test gvisor -- v2024-systrap-none-root` runs the cases of one kind, `-- doctor` one case in all kinds.

#[path = "../common/mod.rs"]
mod common;

#[path = "../programs/case.rs"]
#[allow(dead_code, reason = "shared with the runner of the programs on bare Linux")]
mod case;
mod costs;
mod facts;
mod harness;
mod loads;
mod policies;
mod programs;
mod runc;
mod start;
mod usable;

use std::process::ExitCode;

use common::gvisor::{Setup, built, ready};
use common::skip;
use libtest_mimic::{Arguments, Trial};

/// A case that needs a sandbox.
fn trial(name: String, case: impl FnOnce() + Send + 'static) -> Trial {
    Trial::test(name.clone(), move || {
        match ready() {
            Ok(()) => case(),
            Err(reason) => skip(&name, &reason),
        }
        Ok(())
    })
}

/// A case for every kind of sandbox.
fn everywhere(name: &str, case: fn(Setup)) -> Vec<Trial> {
    let kinds = Setup::all().into_iter();
    kinds.map(|setup| trial(format!("{name}::{}", setup.name()), move || case(setup))).collect()
}

/// A case for each version.
fn versions(name: &str, case: impl Fn(Setup) + Clone + Send + 'static) -> Vec<Trial> {
    let kinds = Setup::versions().into_iter();
    let one = |setup: Setup| {
        let case = case.clone();
        trial(format!("{name}::{}", setup.name()), move || case(setup))
    };
    kinds.map(one).collect()
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    if let (Ok(()), Err(reason)) = (ready(), built()) {
        skip("gvisor::v2026", &reason);
    }
    // A sandbox spends much of its time waiting for its own parts.
    arguments.test_threads.get_or_insert(4);
    let trials = [
        start::cases(),
        harness::cases(),
        facts::cases(),
        usable::cases(),
        programs::cases(),
        costs::cases(),
        policies::cases(),
        runc::cases(),
        loads::cases(),
    ];
    libtest_mimic::run(&arguments, trials.into_iter().flatten().collect()).exit_code()
}
