//! Real programs under sysemu: the same output as without it, and what the policy says where it says something.
//!
//! The cases are data, in `fixtures/programs.toml`; this file only runs them. Two kinds:
//!
//! * `[[same]]`: the script gives the same stdout, stderr and status bare, under an empty policy, and under
//!   a policy that traps every call family but changes nothing the program looks at.
//! * `[[shows]]`: under the named policy the script prints exactly the given text; without sysemu it does not,
//!   which proves that the case can fail.
//!
//! Environment: `SYSEMU` names the binary (the one cargo built by default; `none` runs each case bare twice, which
//! finds a case whose own output wobbles), `SYSEMU_BACKEND=ptrace` chooses the other backend, `SYSEMU_LONG=1` adds the long cases, `SYSEMU_KEEP=1` keeps the folders.

mod case;
mod run;
#[path = "../common/trap_all.rs"]
mod trap_all;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

/// Where the cases are.
const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/programs.toml");

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Two at a time by default: a case is a whole program, often with children of its own.
    arguments.test_threads.get_or_insert(2);
    let long = std::env::var_os("SYSEMU_LONG").is_some_and(|value| value == "1");
    let table = case::Table::read(TABLE);
    let setting = match run::Setting::detect() {
        Ok(setting) => setting,
        Err(message) => {
            eprintln!("programs: {message}");
            return ExitCode::FAILURE;
        }
    };
    let mut trials = Vec::new();
    let ptrace = std::env::var_os("SYSEMU_BACKEND").is_some_and(|value| value == "ptrace");
    let fits = |case: &case::Same| (long || !case.long) && !(ptrace && case.traces);
    for case in table.same.into_iter().filter(fits) {
        let setting = setting.clone();
        trials.push(Trial::test(format!("same::{}", case.name), move || Ok(run::same(&setting, &case)?)));
    }
    for case in table.shows.into_iter().filter(|case| long || !case.long) {
        let setting = setting.clone();
        trials.push(Trial::test(format!("shows::{}", case.name), move || Ok(run::shows(&setting, &case)?)));
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    setting.clean();
    conclusion.exit_code()
}
