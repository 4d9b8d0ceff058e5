//! Test suites that others wrote, run bare and under sysemu with both backends: each of their tests must give the same.
//!
//! The cases are in `fixtures/judges/cases.toml`; those of suites that have to be built first are taken from the
//! folders that `LTPROOT`, `KSELFTESTS` and `PJDFSTEST` name, when they are set. What cannot be the same is declared,
//! with its reason, in `fixtures/judges/declared.toml`. A test that differs between bare runs too is told and does not
//! count.
//!
//! Environment: `SYSEMU` names another binary, `SYSEMU_LONG=1` adds the long cases, `SYSEMU_KEEP=1` keeps what the
//! programs printed.

mod case;
mod compare;
mod formats;
mod outside;
mod own;
mod run;
#[path = "../common/trap_all.rs"]
mod trap_all;

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    match judge() {
        Ok(code) => code,
        Err(message) => {
            eprintln!("judges: {message}");
            ExitCode::FAILURE
        }
    }
}

fn judge() -> Result<ExitCode, String> {
    let mut arguments = Arguments::from_args();
    // Two at a time by default: a case is a whole program, often with children of its own.
    arguments.test_threads.get_or_insert(2);
    let is_long = std::env::var_os("SYSEMU_LONG").is_some_and(|value| value == "1");
    let mut cases = case::table(is_long)?;
    cases.extend(outside::cases()?);
    let setting = Arc::new(run::Setting::new()?);
    let report = Arc::new(compare::Report::new()?);
    let trial = |case: case::Case| {
        let (setting, report) = (setting.clone(), report.clone());
        Trial::test(case.name.clone(), move || match run::missing(&case) {
            Some(reason) => Ok(writeln!(std::io::stderr(), "SKIP {}: {reason}", case.name)?),
            None => Ok(report.judge(&setting, &case)?),
        })
    };
    let mut trials: Vec<Trial> = cases.into_iter().map(trial).collect();
    trials.push(Trial::test("own::reads_reports", || Ok(own::reads_reports()?)));
    if nix::unistd::geteuid().is_root() {
        let setting = setting.clone();
        trials.push(Trial::test("own::finds_differences", move || Ok(own::finds_differences(&setting)?)));
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    report.print();
    setting.clean();
    Ok(conclusion.exit_code())
}
