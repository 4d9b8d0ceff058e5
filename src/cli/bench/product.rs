//! The product itself, under a policy with one virtual file and a release of its own.

use std::io::Read;

use sysemu::policy::Loader;
use sysemu::{StartOptions, Supervisor};

use super::super::args::BenchArgs;
use super::super::run::notify_options;
use super::Measure;
use super::guest::{self, Kind, Timing};

/// Measures one kind of call under sysemu.
pub fn measure(args: &BenchArgs, kind: Kind) -> Measure {
    let (calls, carrier, notify) = (args.calls, args.carrier, notify_options(&args.tuning));
    Box::new(move || -> Result<Timing, String> {
        let file = format!("{}=12345", guest::MANAGED);
        let policy = Loader::new()
            .file(file)
            .uname_release("6.1.0-bench")
            .load()
            .map_err(|error| error.to_string())?;
        let supervisor = Supervisor::builder()
            .policy(policy)
            .carrier(carrier.into())
            .notify(notify)
            .build()
            .map_err(|error| error.to_string())?;
        let mut running = supervisor
            .spawn(guest::command(kind, calls)?, StartOptions::default())
            .map_err(|error| error.to_string())?;
        let mut report = String::new();
        if let Some(stdout) = &mut running.child().stdout {
            stdout.read_to_string(&mut report).map_err(|error| error.to_string())?;
        }
        running.wait().map_err(|error| error.to_string())?;
        guest::timing(&report)
    })
}
