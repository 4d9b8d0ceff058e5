//! `sysemu explain`: which row answers a path, or why it passes through.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::ExitCode;

use nix::errno::Errno;
use serde_json::json;
use sysemu::emulator::context::EmulatorError;
use sysemu::emulator::object::{Object, ObjectKind};
use sysemu::emulator::resolve::{Final, Found, Query};
use sysemu::emulator::tree::{Entry, Tree};
use sysemu::policy::{Content, Row, What, When, WriteRule};
use sysemu::{BuildError, Policy, Supervisor};

use super::args::{ExplainArgs, Format};
use super::{fail, run};

/// Resolves the path as a program would see it and says what answers.
pub fn main(args: &ExplainArgs) -> ExitCode {
    let policy = match run::load(&args.policy, None) {
        Ok(policy) => policy,
        Err(error) => return fail(format!("the policy has mistakes:\n{error}")),
    };
    let (verdict, text, row, content) = match explanation(args, policy) {
        Ok(explanation) => explanation,
        Err(message) => return fail(message),
    };
    match args.format {
        Format::Text => {
            out!("{}: {text}", args.path.display());
            if let Some(row) = &row {
                out!("  row      {} ({})", row.origin, what(row));
                let about = [("doc", &row.doc), ("source", &row.source)];
                for (name, text) in about.into_iter().filter(|(_, text)| !text.is_empty()) {
                    out!("  {name:<8} {text}");
                }
                if let Some(writes) = writes(row) {
                    out!("  writes   {writes}");
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
                    "doc": row.doc, "source": row.source, "writes": writes(row),
                })),
                "content": content,
            })
        ),
    }
    ExitCode::SUCCESS
}

type Explanation = (&'static str, String, Option<Row>, Option<String>);

fn explanation(args: &ExplainArgs, policy: Policy) -> Result<Explanation, String> {
    let supervisor = match Supervisor::builder().policy(policy.clone()).build() {
        Ok(supervisor) => supervisor,
        Err(error) => {
            let unfollowed = matches!(error, BuildError::Emulator(EmulatorError::Proc(Errno::ENOENT)));
            let key = args.path.to_str().filter(|path| path.starts_with('/'));
            return match key {
                Some(key) if unfollowed && args.pid.is_none() => Ok(by_text(&policy, key)),
                _ => Err(error.to_string()),
            };
        }
    };
    let tid = args.pid.unwrap_or_else(std::process::id);
    let query =
        Query { tid, dirfd: libc::AT_FDCWD, path: args.path.as_bytes(), last: Final::NoFollow, resolve: 0 };
    let found = supervisor.engine().emulator.resolver.resolve_fully(&query);
    let found = found.map_err(|failure| format!("cannot resolve {}: {failure:?}", args.path.display()))?;
    Ok(describe(&supervisor, &found, tid))
}

/// Which row has a path as it is written. In a root without procfs nothing can be followed, and policies are still to
/// be looked at.
fn by_text(policy: &Policy, path: &str) -> Explanation {
    let tree = Tree::build(policy, Path::new("/sys"));
    let key = path.trim_end_matches('/');
    let (verdict, text, row) = match (tree.entry(&tree.at(key)), Object::at(&tree, key)) {
        (Entry::Absent(row), _) => ("refused", "hidden".to_owned(), Some((*row).clone())),
        (Entry::Dir(None), _) => ("kernel", "a directory with rows below it".to_owned(), None),
        (_, Some(object)) => {
            let row = row_of(&object);
            let only = match &row {
                Some(row) if row.when == When::Missing => ", where the real file is missing or unreadable",
                _ => "",
            };
            ("virtual", format!("virtual {} {:04o}{only}", kind(&object), object.mode() & 0o7777), row)
        }
        (_, None) => ("kernel", "passes through: no row names it".to_owned(), None),
    };
    (verdict, format!("{text}; by the text of the path alone: no procfs is mounted at /proc"), row, None)
}

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

/// What a write does, where it does anything.
fn writes(row: &Row) -> Option<&'static str> {
    let What::File { content, write, .. } = &row.what else { return None };
    Some(match write {
        _ if matches!(content, Content::Like(_)) => return None,
        WriteRule::Keep => "kept",
        WriteRule::Ignore => "checked and dropped",
        WriteRule::Deny => "refused (EROFS)",
        WriteRule::Forward => "forwarded to the real file, else kept",
    })
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
