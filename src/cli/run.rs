//! `sysemu run`.

use std::path::PathBuf;
use std::process::ExitCode;

use sysemu::Policy;
use sysemu::emulator::backend::BackendChoice;
use sysemu::emulator::backend::notify::NotifyOptions;
use sysemu::handlers::providers;
use sysemu::launcher::{self, Launch, Summary};
use sysemu::policy::{Loader, PolicyError};

use super::args::{BackendArg, PolicyArgs, RunArgs, Switch, TuningArgs};
use super::{fail, logging};

/// The variable that names policies when no --policy does.
const VARIABLE: &str = "SYSEMU_POLICY";

/// Loads the policies that a command line names. With a program and nothing else, the one named after it.
///
/// # Errors
/// All mistakes in the policies.
pub fn load(args: &PolicyArgs, program: Option<&str>) -> Result<Policy, PolicyError> {
    let providers = providers::all();
    let mut loader = Loader::new().providers(&providers);
    let from_env = std::env::var(VARIABLE).unwrap_or_default();
    let mut named: Vec<&str> = args.policy.iter().map(String::as_str).collect();
    if named.is_empty() {
        named = from_env.split([':', ',']).filter(|name| !name.is_empty()).collect();
    }
    if named.is_empty() && !args.no_auto {
        named.extend(program.and_then(Loader::auto));
    }
    for name in named {
        loader = loader.policy(name);
    }
    for text in &args.set {
        loader = loader.set(text);
    }
    for text in &args.file {
        loader = loader.file(text);
    }
    for path in &args.hide {
        loader = loader.hide(path);
    }
    if let Some(release) = &args.uname_release {
        loader = loader.uname_release(release);
    }
    for text in &args.statfs {
        loader = loader.statfs(text);
    }
    loader.load()
}

/// The receiver options of a command line.
pub fn notify_options(tuning: &TuningArgs) -> NotifyOptions {
    NotifyOptions { receivers: tuning.receivers.into(), sync_wake_up: tuning.sync_wake_up == Switch::On }
}

/// Runs the program, and records its calls in a file.
pub fn main(args: RunArgs, record: Option<PathBuf>) -> ExitCode {
    let program = args.command.first().map(|word| word.to_string_lossy().into_owned());
    let policy = match load(&args.policy, program.as_deref()) {
        Ok(policy) => policy,
        Err(error) => return fail(format!("the policy has mistakes:\n{error}")),
    };
    if let Some(cpu) = args.pin
        && !may_use(cpu)
    {
        return fail(format!(
            "--pin {cpu}: not one of the CPUs that this process may use; nproc(1) counts them"
        ));
    }
    let (names, logging) = (policy.names.clone(), args.logging.clone());
    let auto = args.policy.policy.is_empty() && !names.is_empty();
    let start_logging = move || -> Box<dyn std::any::Any> {
        let guard = logging::start(&logging);
        let how = if auto { "chosen by the program's name or the environment" } else { "as asked" };
        tracing::info!(
            "policies: {} ({how})",
            if names.is_empty() { "none".into() } else { names.join(", ") }
        );
        Box::new(guard)
    };
    let status = launcher::run(Launch {
        policy,
        command: args.command,
        carrier: args.carrier.into(),
        backend: match args.backend {
            BackendArg::Auto => BackendChoice::Auto,
            BackendArg::Notify => BackendChoice::Notify,
            BackendArg::Ptrace => BackendChoice::Ptrace,
        },
        notify: notify_options(&args.tuning),
        pin: args.pin,
        state: args.state,
        record,
        summary: if args.summary { Summary::Print } else { Summary::Off },
        start_logging: Box::new(start_logging),
    });
    ExitCode::from(u8::try_from(status).unwrap_or(u8::MAX))
}

fn may_use(cpu: usize) -> bool {
    let own = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0));
    own.and_then(|set| set.is_set(cpu)).unwrap_or(false)
}
