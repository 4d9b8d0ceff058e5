//! What can be typed.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use sysemu::emulator::carrier::CarrierChoice;

const EXAMPLES: &str = "\
Examples:
  sysemu --set vm.overcommit_memory=1 -- redis-server
  sysemu --uname-release 4.19.0 --hide /proc/swaps -- sh -c 'uname -r; ls /proc'

A policy named after the program is used by itself. This is no security boundary.";

/// Run a program unchanged; answer its look at /proc, /sys and the kernel version from policy files.
#[derive(Parser)]
#[command(name = "sysemu", version, after_help = EXAMPLES, subcommand_help_heading = "Commands",
    override_usage = "sysemu [run] [OPTIONS] [--] CMD [ARG]...\n       sysemu COMMAND ...",
    disable_help_subcommand = true, max_term_width = 100)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Subcommand)]
pub enum Command {
    /// Run a program under a policy (the default command)
    Run(RunArgs),
    /// Run a program as `run` does and write each managed call to a file
    Record(RecordArgs),
    /// Serve recorded calls again, without the program, and compare
    Replay(ReplayArgs),
    /// Say what this host offers, what is used and why
    Doctor(DoctorArgs),
    /// List, show, check, import policies
    Policy(PolicyCommandArgs),
    /// Say which row answers a path, or why it passes through
    Explain(ExplainArgs),
    /// Run a program natively and emulated; print every difference in its path calls
    Diff(DiffArgs),
    /// Run a program and log its path calls
    #[command(hide = true)]
    Calls {
        /// The log, in a folder of the run's own
        #[arg(long, value_name = "FILE")]
        output: PathBuf,
        /// The program and its arguments
        #[arg(required = true, trailing_var_arg = true, value_name = "CMD")]
        command: Vec<OsString>,
    },
    /// Measure what an intercepted call costs here
    Bench(BenchArgs),
    /// Make calls to be measured
    #[command(hide = true)]
    BenchGuest {
        /// Which
        #[arg(value_enum)]
        kind: super::bench::guest::Kind,
        /// How many
        calls: u32,
        /// Trap them for a tracer first
        #[arg(long)]
        trace: bool,
    },
    /// Print a completion script for a shell
    // Not in the list, which is to fit a screen; README names it.
    #[command(hide = true)]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the man page
    #[command(hide = true)]
    Man {
        /// Write a page for each command into this folder instead
        #[arg(long, value_name = "FOLDER")]
        folder: Option<PathBuf>,
    },
}

/// Where rows come from.
#[derive(ClapArgs, Clone, Default)]
pub struct PolicyArgs {
    /// A built-in policy by name, or a file; repeatable, later ones win
    #[arg(short, long, value_name = "NAME|FILE")]
    pub policy: Vec<String>,
    /// A sysctl, such as vm.swappiness=10; repeatable
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// A file with this content; repeatable
    #[arg(long, value_name = "PATH=CONTENT")]
    pub file: Vec<String>,
    /// A path that does not exist; repeatable
    #[arg(long, value_name = "PATH")]
    pub hide: Vec<String>,
    /// The kernel release that uname(2) and its files report
    #[arg(long, value_name = "RELEASE")]
    pub uname_release: Option<String>,
    /// A path or file system type, and the type to report instead; repeatable
    #[arg(long, value_name = "FROM=TO")]
    pub statfs: Vec<String>,
    /// Do not use the policy named after the program
    #[arg(long, overrides_with = "no_auto")]
    pub no_auto: bool,
}

/// `sysemu run`.
#[derive(ClapArgs)]
#[command(override_usage = "sysemu [run] [OPTIONS] [--] CMD [ARG]...")]
pub struct RunArgs {
    #[command(flatten)]
    pub policy: PolicyArgs,
    /// How calls are intercepted
    #[arg(long, value_enum, default_value_t = BackendArg::Auto)]
    pub backend: BackendArg,
    /// How descriptors of virtual files are made
    #[arg(long, value_enum, default_value_t = CarrierArg::Auto)]
    pub carrier: CarrierArg,
    #[command(flatten)]
    pub tuning: TuningArgs,
    /// Keep the supervisor, not the program, on this CPU
    #[arg(long, value_name = "CPU")]
    pub pin: Option<usize>,
    /// Keep written values in this file: read at the start, replaced when the program ends
    #[arg(long, value_name = "FILE")]
    pub state: Option<PathBuf>,
    /// Print counts and unowned paths when the program ended
    #[arg(long)]
    pub summary: bool,
    #[command(flatten)]
    pub logging: LoggingArgs,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

/// `sysemu record`.
#[derive(ClapArgs)]
#[command(override_usage = "sysemu record [OPTIONS] [--] CMD [ARG]...")]
pub struct RecordArgs {
    /// Where to write the record
    #[arg(short, long, value_name = "FILE", default_value = "sysemu.record")]
    pub output: PathBuf,
    #[command(flatten)]
    pub run: RunArgs,
}

/// `sysemu replay`.
#[derive(ClapArgs)]
pub struct ReplayArgs {
    /// The record
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Write the smallest call that differs, with no more of the policy than it needs, to this file
    #[arg(long, value_name = "FILE")]
    pub reduce: Option<PathBuf>,
    /// Text or JSON
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

/// How notifications are received.
#[derive(ClapArgs, Clone)]
pub struct TuningArgs {
    /// Threads that wait for calls at any time; busy ones are replaced
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub receivers: u16,
    /// Whether to ask the kernel for synchronous wake-ups (Linux 6.6)
    #[arg(long, value_enum, default_value_t = Switch::On)]
    pub sync_wake_up: Switch,
}

/// Logs.
#[derive(ClapArgs, Clone, Default)]
pub struct LoggingArgs {
    /// Log more: -v what is used, -vv each managed call, -vvv every trapped call
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Format of the log
    #[arg(long, value_enum, default_value_t = Format::Text, value_name = "FORMAT")]
    pub log_format: Format,
}

/// Text or JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// On.
    On,
    /// Off.
    Off,
}

/// `--backend`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BackendArg {
    /// The first that this host allows.
    Auto,
    /// seccomp user notification.
    Notify,
    /// ptrace(2) with a narrow filter, as inside gVisor.
    Ptrace,
}

/// `--carrier`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CarrierArg {
    /// The best that this host allows.
    Auto,
    /// A detached FUSE mount.
    Fuse,
    /// Sealed memfds.
    Memfd,
}

impl From<CarrierArg> for CarrierChoice {
    fn from(arg: CarrierArg) -> Self {
        match arg {
            CarrierArg::Auto => CarrierChoice::Auto,
            CarrierArg::Fuse => CarrierChoice::Fuse,
            CarrierArg::Memfd => CarrierChoice::Memfd,
        }
    }
}

/// `sysemu doctor`.
#[derive(ClapArgs)]
pub struct DoctorArgs {
    /// Text or JSON
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

/// `sysemu policy`.
#[derive(ClapArgs)]
pub struct PolicyCommandArgs {
    #[command(subcommand)]
    pub command: PolicyCommand,
}

/// The commands of `sysemu policy`.
#[derive(Subcommand)]
pub enum PolicyCommand {
    /// List the built-in policies
    List {
        /// Text or JSON
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
    /// Print a policy with everything it includes, each row with the file and line it came from
    Show {
        /// A built-in policy or a file; several are merged as --policy would
        #[arg(required = true, value_name = "NAME|FILE")]
        policies: Vec<String>,
    },
    /// Check policy files: prints all mistakes and exits with 2 if there are any
    Check {
        /// The files (or names of built-in policies)
        #[arg(required = true, value_name = "FILE")]
        files: Vec<String>,
        /// Text or JSON
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
    /// Convert a sysctl.conf(5) file to a policy
    Import {
        /// The file
        #[arg(value_name = "SYSCTL_CONF")]
        file: PathBuf,
    },
    /// Print the JSON Schema of policy files
    Schema,
    /// List the providers of computed content
    Providers {
        /// Text or JSON
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
}

/// `sysemu explain`.
#[derive(ClapArgs)]
pub struct ExplainArgs {
    /// The path, as a program would write it
    #[arg(value_name = "PATH")]
    pub path: OsString,
    /// See the path as this process does
    #[arg(long = "as", value_name = "PID")]
    pub pid: Option<u32>,
    #[command(flatten)]
    pub policy: PolicyArgs,
    /// Text or JSON
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

const DIFF_ABOUT: &str = "\
Runs a program three times, natively, under sysemu and natively again, and compares the result, errno, stored
structures and bytes of each of its path calls, its output and its exit status. What differs between the two native
runs is set aside.

Without a policy every sysctl of the catalogue that exists here is virtual and has its real value, so that all
differences are the emulation's own. With one the differences show what it changes; --mirror gives its files the
real contents.

Each difference is marked: `declared` by a rule (printed with its reason), made by the `policy`, one that `follows`
from another one, or UNDECLARED. Processes that outlive the program are ended. Needs user notification, because the
calls are seen with ptrace(2). Standard input is passed on when it is a file.

Exit status: 0, or 1 if a difference is undeclared, 125 for failures of sysemu itself.";

/// `sysemu diff`.
#[derive(ClapArgs)]
#[command(long_about = DIFF_ABOUT)]
pub struct DiffArgs {
    #[command(flatten)]
    pub policy: PolicyArgs,
    /// Give the policy's files the contents of the real ones
    #[arg(long)]
    pub mirror: bool,
    /// How descriptors of virtual files are made
    #[arg(long, value_enum, default_value_t = CarrierArg::Auto)]
    pub carrier: CarrierArg,
    /// Text or JSON
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

/// `sysemu bench`.
#[derive(ClapArgs)]
pub struct BenchArgs {
    /// Calls of each kind that are measured
    #[arg(long, value_name = "N", default_value_t = 20000)]
    pub calls: u32,
    /// Text or JSON
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
    #[command(flatten)]
    pub tuning: TuningArgs,
    /// How descriptors of virtual files are made
    #[arg(long, value_enum, default_value_t = CarrierArg::Auto)]
    pub carrier: CarrierArg,
}
