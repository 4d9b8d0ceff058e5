//! `sysemu policy`.

use std::process::ExitCode;

use serde_json::json;
use sysemu::handlers::providers;
use sysemu::policy::diagnostic::{Report, Source};
use sysemu::policy::{Loader, PolicyError, builtin, import, parse, schema, show};

use super::args::{Format, PolicyCommand, PolicyCommandArgs};
use super::{MISTAKES, fail};

/// Runs a command of `sysemu policy`.
pub fn main(args: PolicyCommandArgs) -> ExitCode {
    match args.command {
        PolicyCommand::List { format } => list(format),
        PolicyCommand::Show { policies } => print(load(&policies).map(|policy| show::policy(&policy))),
        PolicyCommand::Check { files, format } => check(&files, format),
        PolicyCommand::Import { file } => match std::fs::read_to_string(&file) {
            Ok(text) => print(import::import(&file.to_string_lossy(), text)),
            Err(error) => fail(format!("cannot read {}: {error}", file.display())),
        },
        PolicyCommand::Schema => {
            out!("{:#}", schema::json_schema());
            ExitCode::SUCCESS
        }
        PolicyCommand::Providers { format } => list_providers(format),
    }
}

fn load(policies: &[String]) -> Result<sysemu::Policy, PolicyError> {
    let providers = providers::all();
    policies.iter().fold(Loader::new().providers(&providers), |loader, name| loader.policy(name)).load()
}

fn print(text: Result<String, PolicyError>) -> ExitCode {
    match text {
        Ok(text) => {
            out!("{}", text.trim_end_matches('\n'));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(MISTAKES)
        }
    }
}

fn list(format: Format) -> ExitCode {
    let policies: Vec<(&str, String)> = builtin::NAMED
        .iter()
        .map(|(name, text)| {
            let document = parse::parse(&Source::new(name, (*text).to_owned()), &mut Report::default());
            (*name, document.doc)
        })
        .collect();
    match format {
        Format::Text => {
            for (name, doc) in policies {
                out!("{name:<16} {doc}");
            }
        }
        Format::Json => {
            let items: Vec<_> =
                policies.iter().map(|(name, doc)| json!({ "name": name, "doc": doc })).collect();
            out!("{:#}", json!(items));
        }
    }
    ExitCode::SUCCESS
}

fn check(files: &[String], format: Format) -> ExitCode {
    let mut found = Vec::new();
    for file in files {
        if let Err(error) = load(std::slice::from_ref(file)) {
            found.extend(error.diagnostics);
        }
    }
    match format {
        Format::Text => {
            for diagnostic in &found {
                eprintln!("{diagnostic}");
            }
            if found.is_empty() {
                out!("{} ok", files.join(", "));
            }
        }
        Format::Json => {
            let items: Vec<_> = found
                .iter()
                .map(|diagnostic| {
                    let origin = &diagnostic.origin;
                    json!({
                        "file": &*origin.file,
                        "line": origin.line,
                        "column": origin.column,
                        "message": diagnostic.message,
                    })
                })
                .collect();
            out!("{:#}", json!(items));
        }
    }
    if found.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(MISTAKES) }
}

fn list_providers(format: Format) -> ExitCode {
    let providers = providers::all();
    match format {
        Format::Text => {
            for (name, doc) in providers.iter() {
                out!("{name:<24} {doc}");
            }
        }
        Format::Json => {
            let items: Vec<_> =
                providers.iter().map(|(name, doc)| json!({ "name": name, "doc": doc })).collect();
            out!("{:#}", json!(items));
        }
    }
    ExitCode::SUCCESS
}
