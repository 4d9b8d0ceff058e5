//! Supervising a program from one's own: a provider of one's own, and a policy made in code.
//!
//! Run it with `cargo run --example embed -- cat /proc/sys/kernel/pid_max /proc/sys/kernel/answer`.

use std::process::Command;

use sysemu::policy::{Content, Origin, Policy, Row, What};
use sysemu::{StartOptions, Supervisor};

fn file(path: &str, content: Content) -> Row {
    Row::new(path, What::file(content), 0o444, Origin::synthetic("example"))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args_os().skip(1);
    let mut command = Command::new(args.next().unwrap_or_else(|| "true".into()));
    command.args(args);
    let policy = Policy {
        rows: vec![
            file("/proc/sys/kernel/pid_max", Content::Fixed("77777\n".into())),
            file("/proc/sys/kernel/answer", Content::Provider("answer".into())),
            file("/proc/sys/sysemu/deep/value", Content::Fixed("deep\n".into())),
        ],
        ..Policy::default()
    };
    let supervisor = Supervisor::builder()
        .policy(policy)
        .provider("answer", "counts up at each open", |cx| {
            Ok(format!("{} asked by {}\n", cx.path, cx.tid).into())
        })
        .build()?;
    let mut running = supervisor.spawn(command, StartOptions::default())?;
    let status = running.wait()?;
    for (verdict, calls) in supervisor.engine().stats.by_verdict() {
        eprintln!("{:>8} {calls}", verdict.name());
    }
    std::process::exit(status.code().unwrap_or(1));
}
