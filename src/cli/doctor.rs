//! `sysemu doctor`: what this host offers, what is used and why.

use std::process::ExitCode;

use serde_json::json;
use sysemu::emulator::probe::{self, Finding, State};

use super::args::{DoctorArgs, Format};

/// Probes and prints.
pub fn main(args: &DoctorArgs) -> ExitCode {
    let findings = probe::all();
    match args.format {
        Format::Text => {
            for Finding { topic, state, detail } in &findings {
                let mark = match state {
                    State::Good => "ok  ",
                    State::Limited => "note",
                    State::Missing => "NO  ",
                };
                out!("{mark} {topic:<12} {detail}");
            }
        }
        Format::Json => {
            let items: Vec<_> = findings
                .iter()
                .map(|finding| {
                    let state = match finding.state {
                        State::Good => "good",
                        State::Limited => "limited",
                        State::Missing => "missing",
                    };
                    json!({ "topic": finding.topic, "state": state, "detail": finding.detail })
                })
                .collect();
            out!("{:#}", json!(items));
        }
    }
    let unusable =
        findings.iter().any(|finding| finding.topic == "backend" && finding.state == State::Missing);
    if unusable { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
