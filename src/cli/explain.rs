//! `sysemu explain`: which row answers a path, or why it passes through.

use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;

use serde_json::json;
use sysemu::Supervisor;
use sysemu::emulator::object::{Object, ObjectKind};
use sysemu::emulator::resolve::{Final, Found, Query};
use sysemu::emulator::tree::Entry;
use sysemu::policy::{Content, Row, What, When};

use super::args::{ExplainArgs, Format};
use super::{fail, run};

/// Resolves the path as a program would see it and says what answers.
pub fn main(args: &ExplainArgs) -> ExitCode {
    let policy = match run::load(&args.policy, None) {
        Ok(policy) => policy,
        Err(error) => return fail(format!("the policy has mistakes:\n{error}")),
    };
    let supervisor = match Supervisor::builder().policy(policy).build() {
        Ok(supervisor) => supervisor,
        Err(error) => return fail(error),
    };
    let emulator = &supervisor.engine().emulator;
    let tid = args.pid.unwrap_or_else(std::process::id);
    let query =
        Query { tid, dirfd: libc::AT_FDCWD, path: args.path.as_bytes(), last: Final::NoFollow, resolve: 0 };
    let found = match emulator.resolver.resolve_fully(&query) {
        Ok(found) => found,
        Err(failure) => return fail(format!("cannot resolve {}: {failure:?}", args.path.display())),
    };
    let (verdict, text, row, content) = describe(&supervisor, &found, tid);
    match args.format {
        Format::Text => {
            out!("{}: {text}", args.path.display());
            if let Some(row) = &row {
                out!("  row      {} ({})", row.origin, what(row));
                let about = [("doc", &row.doc), ("source", &row.source)];
                for (name, text) in about.into_iter().filter(|(_, text)| !text.is_empty()) {
                    out!("  {name:<8} {text}");
                }
            }
            if let Some(content) = &content {
                out!("  content  {}", content.escape_debug());
            }
        }
        Format::Json => out!(
            "{:#}",
            json!({
                "path": args.path.to_string_lossy(),
                "verdict": verdict,
                "text": text,
                "row": row.as_ref().map(|row| json!({
                    "origin": row.origin.to_string(), "path": row.path, "kind": what(row),
                    "doc": row.doc, "source": row.source,
                })),
                "content": content,
            })
        ),
    }
    ExitCode::SUCCESS
}

type Explanation = (&'static str, String, Option<Row>, Option<String>);

fn describe(supervisor: &Supervisor, found: &Found, tid: u32) -> Explanation {
    let store = &supervisor.engine().emulator.store;
    match found {
        Found::Virtual(object) => {
            let content = store.content(object, tid).ok();
            let content =
                content.map(|bytes| String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned());
            let text = format!("virtual {} {:04o}, as {}", kind(object), object.mode() & 0o7777, object.key);
            ("virtual", text, row_of(object), content)
        }
        Found::Refused(errno) => {
            ("refused", format!("fails with {errno}: the virtual tree hides or lacks it"), None, None)
        }
        Found::OnBehalf(real) => {
            let key = real.key.as_deref().unwrap_or("a real object");
            ("on-behalf", format!("the real {key}, reached through a virtual link or directory"), None, None)
        }
        Found::Kernel(None) => {
            ("kernel", "passes through: it does not exist, and no row makes it".into(), None, None)
        }
        Found::Kernel(Some(real)) => {
            let Some(key) = real.key.as_deref() else {
                return (
                    "kernel",
                    "passes through: it is in no file system that rows can name".into(),
                    None,
                    None,
                );
            };
            let key = if key.is_empty() { "/" } else { key };
            let (why, row) = match store.tree.entry(&store.tree.at(key)) {
                Entry::Nothing => (format!("passes through as {key}: no row names it"), None),
                Entry::Dir(row) => (
                    format!(
                        "passes through as {key}: a real directory, listed together with the rows below it"
                    ),
                    row.map(|row| (*row).clone()),
                ),
                Entry::File(row) | Entry::Link(row) if row.when == When::Missing => (
                    format!(
                        "passes through as {key}: the row applies only where the real file is missing or unreadable"
                    ),
                    Some((*row).clone()),
                ),
                Entry::File(row) | Entry::Link(row) | Entry::Absent(row) => {
                    (format!("passes through as {key}"), Some((*row).clone()))
                }
            };
            ("kernel", why, row, None)
        }
    }
}

fn kind(object: &Object) -> &'static str {
    match object.kind {
        ObjectKind::Dir(_) => "directory",
        ObjectKind::File(_) => "file",
        ObjectKind::Link(_) => "link",
    }
}

fn row_of(object: &Object) -> Option<Row> {
    match &object.kind {
        ObjectKind::Dir(row) => row.as_deref().cloned(),
        ObjectKind::File(row) | ObjectKind::Link(row) => Some((**row).clone()),
    }
}

fn what(row: &Row) -> String {
    match &row.what {
        What::File { content: Content::Provider(name), .. } => format!("file from provider {name}"),
        What::File { content: Content::Like(path), .. } => format!("file like {path}"),
        What::File { .. } => "file".into(),
        What::Dir => "directory".into(),
        What::Link { target } => format!("link to {target}"),
        What::Absent => "hidden".into(),
    }
}
