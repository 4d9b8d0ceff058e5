//! The command line: what can be typed ([`args`]), and a file for each command.

use std::ffi::{OsStr, OsString};
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};

use args::{Args, Command};

/// As `println!`, but a reader who has seen enough (`| head`) is no failure.
macro_rules! out {
    ($($text:tt)*) => {{
        use std::io::Write;
        if let Err(error) = writeln!(std::io::stdout().lock(), $($text)*) {
            let gone = error.kind() == std::io::ErrorKind::BrokenPipe;
            std::process::exit(if gone { 0 } else { sysemu::launcher::OWN_FAILURE });
        }
    }};
}

mod args;
mod bench;
mod diff;
mod doctor;
mod explain;
mod logging;
mod policy;
mod replay;
mod run;

/// Exit status of `policy check` for a policy with mistakes.
const MISTAKES: u8 = 2;

/// Parses the command line and runs the command.
pub fn main() -> ExitCode {
    let words = with_command(std::env::args_os().collect());
    let parsed =
        Args::command().try_get_matches_from(words).and_then(|matches| Args::from_arg_matches(&matches));
    let args = match parsed {
        Ok(args) => args,
        Err(error) => {
            let _ = error.print();
            // Help and version are no failure; bad usage is one of our own.
            return if error.use_stderr() { own_failure() } else { ExitCode::SUCCESS };
        }
    };
    match args.command {
        Command::Run(run) => run::main(run, None),
        Command::Record(record) => run::main(record.run, Some(record.output)),
        Command::Replay(replay) => replay::main(&replay),
        Command::Doctor(doctor) => doctor::main(&doctor),
        Command::Policy(policy) => policy::main(policy),
        Command::Explain(explain) => explain::main(&explain),
        Command::Diff(diff) => diff::main(&diff),
        Command::Calls { output, command } => diff::tracer::main(&output, &command),
        Command::Bench(bench) => bench::main(&bench),
        Command::BenchGuest { kind, calls, trace } => bench::guest::main(kind, calls, trace),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Args::command(), "sysemu", &mut script);
            out!("{}", String::from_utf8_lossy(&script));
            ExitCode::SUCCESS
        }
        Command::Man { folder } => man(folder.as_deref()),
    }
}

fn own_failure() -> ExitCode {
    ExitCode::from(sysemu::launcher::OWN_FAILURE as u8)
}

fn fail(message: impl std::fmt::Display) -> ExitCode {
    eprintln!("sysemu: {message}");
    own_failure()
}

fn man(folder: Option<&std::path::Path>) -> ExitCode {
    let written = match folder {
        None => clap_mangen::Man::new(Args::command()).render(&mut std::io::stdout()),
        Some(folder) => clap_mangen::generate_to(Args::command(), folder),
    };
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(format!("cannot write the man page: {error}")),
    }
}

/// Puts `run` before a command line that names no command: the first word that is no option of `run` is the
/// program.
fn with_command(mut words: Vec<OsString>) -> Vec<OsString> {
    let is_command = |word: &OsStr| {
        let command = Args::command();
        command.get_subcommands().any(|known| word == known.get_name())
    };
    let top_level = |word: &OsStr| word == "--help" || word == "-h" || word == "--version" || word == "-V";
    match words.get(1) {
        None => {}
        Some(first) if is_command(first) || top_level(first) => {}
        Some(_) => words.insert(1, "run".into()),
    }
    words
}
