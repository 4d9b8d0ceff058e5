//! The product itself, under a policy with one virtual file and a release of its own.

use std::io::Read;

use sysemu::emulator::backend::BackendChoice;
use sysemu::emulator::backend::notify::NotifyOptions;
use sysemu::emulator::carrier::Opening;
use sysemu::policy::Loader;
use sysemu::{StartOptions, Supervisor};

use super::super::args::{BenchArgs, CarrierArg};
use super::super::run::notify_options;
use super::Measure;
use super::guest::{self, Kind, Timing};

/// Measures one kind of call under sysemu.
pub fn measure(args: &BenchArgs, kind: Kind, backend: BackendChoice) -> Measure {
    let (calls, carrier, notify) = (args.calls, args.carrier, notify_options(&args.tuning));
    Box::new(move || -> Result<Timing, String> {
        let supervisor = supervisor(carrier, backend, notify)?;
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

/// Measures open, read and close of a descriptor of the carrier, without any trapped call.
pub fn carrier_alone(args: &BenchArgs) -> Measure {
    let (calls, carrier, notify) = (args.calls, args.carrier, notify_options(&args.tuning));
    Box::new(move || {
        let supervisor = supervisor(carrier, BackendChoice::Notify, notify)?;
        let emulator = &supervisor.engine().emulator;
        let object = emulator.store.object(guest::MANAGED).ok_or("the measured row is not there")?;
        guest::times(calls, || {
            let content = emulator.store.content(&object, std::process::id()).map_err(|_| "no content")?;
            let opening = Opening { content, tid: std::process::id(), bound: None };
            let fd = emulator.carrier.open_file(&object, opening, 0).map_err(|errno| errno.to_string())?;
            let len = nix::unistd::read(&fd, &mut [0; 64]).map_err(|errno| errno.to_string())?;
            if len > 0 { Ok(()) } else { Err("an empty file".to_owned()) }
        })
    })
}

fn supervisor(
    carrier: CarrierArg,
    backend: BackendChoice,
    notify: NotifyOptions,
) -> Result<Supervisor, String> {
    let policy = Loader::new()
        .file(format!("{}=12345", guest::MANAGED))
        .uname_release("6.1.0-bench")
        .load()
        .map_err(|error| error.to_string())?;
    let builder = Supervisor::builder().policy(policy).carrier(carrier.into());
    builder.backend(backend).notify(notify).build().map_err(|error| error.to_string())
}
