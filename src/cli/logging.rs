//! Logs: through tracing, on standard error, quiet unless asked.

use tracing_appender::non_blocking::WorkerGuard;
use tracing_subscriber::EnvFilter;

use super::args::{Format, LoggingArgs};

/// The variable that sets the log filter (a level, or tracing's directives).
const VARIABLE: &str = "SYSEMU_LOG";

/// Starts logging; dropping the guard writes out what is left. `SYSEMU_LOG` wins over `-v`.
pub fn start(args: &LoggingArgs) -> WorkerGuard {
    let level = match args.verbose {
        // The FUSE library's own messages help nobody but its developers.
        0 => "warn,fuser=off",
        1 => "info,fuser=off",
        2 => "debug,fuser=off",
        _ => "trace,fuser=off",
    };
    let asked = std::env::var(VARIABLE).ok().filter(|text| !text.is_empty());
    let filter = match asked.as_deref().map(EnvFilter::try_new) {
        Some(Ok(filter)) => filter,
        Some(Err(error)) => {
            eprintln!("sysemu: {VARIABLE} is not a log filter ({error}); write a level such as debug");
            EnvFilter::new(level)
        }
        None => EnvFilter::new(level),
    };
    let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::io::IsTerminal::is_terminal(&std::io::stderr());
    // A pipe that nobody drains must not stop the supervisor: lines are dropped rather than waited for.
    let (writer, guard) = tracing_appender::non_blocking(std::io::stderr());
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(colour);
    let started = match args.log_format {
        Format::Text => builder.try_init(),
        Format::Json => builder.json().try_init(),
    };
    if let Err(error) = started {
        eprintln!("sysemu: cannot start logging: {error}");
    }
    guard
}
