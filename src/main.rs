//! The command line.
use sysemu::policy::{Content, Origin, Policy, Row, Scope, What, When, WriteRule};
fn file(path: &str, content: Content) -> Row {
    Row {
        path: path.into(),
        what: What::File { content, codec: None, scope: Scope::Global, write: WriteRule::Keep },
        mode: 0o644,
        when: When::Always,
        doc: "made by the example".into(),
        source: "example".into(),
        origin: Origin::synthetic("example"),
    }
}
fn main() {
    let policy = Policy {
        rows: vec![
            file("/proc/sys/kernel/pid_max", Content::Fixed("77777\n".into())),
            file("/proc/sys/sysemu/deep/value", Content::Fixed("deep\n".into())),
        ],
        ..Policy::default()
    };
    let launch = sysemu::launcher::Launch {
        policy,
        command: std::env::args_os().skip(1).collect(),
        carrier: Default::default(),
        notify: Default::default(),
        summary: if std::env::var_os("SUM").is_some() { sysemu::launcher::Summary::Print } else { Default::default() },
        start_logging: Box::new(|| tracing_subscriber::fmt().with_writer(std::io::stderr).init()),
    };
    std::process::exit(sysemu::launcher::run(launch))
}
