//! `sysemu replay`.

use std::process::ExitCode;

use serde_json::json;
use sysemu::emulator::record::CallLine;
use sysemu::replay::reduce::reduce;
use sysemu::replay::{Played, Record, RecordError, Replayer};

use super::args::{Format, ReplayArgs};
use super::fail;

/// Exit status when a call differs.
const DIFFERS: u8 = 1;

/// Serves the calls of a record and prints those that differ.
pub fn main(args: &ReplayArgs) -> ExitCode {
    match replay(args) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(DIFFERS),
        Err(error) => fail(error),
    }
}

fn replay(args: &ReplayArgs) -> Result<usize, RecordError> {
    let record = Record::read(&args.file)?;
    let mut replayer = Replayer::new(&record.header)?;
    let mut differing = 0;
    for (index, call) in record.calls.iter().enumerate() {
        let played = replayer.serve(call);
        if !played.is_as_recorded(call) {
            differing += 1;
            print_difference(index + 2, call, &played, args.format);
        }
    }
    let same = record.calls.len() - differing;
    match args.format {
        Format::Text => out!("{same} calls as recorded, {differing} differ"),
        Format::Json => out!("{}", json!({ "same": same, "differ": differing })),
    }
    if let Some(path) = &args.reduce {
        match reduce(&record)? {
            Some(reduced) => {
                reduced.write(path)?;
                let call = &reduced.calls[0];
                eprintln!("sysemu: the smallest call that differs is a {}: {}", call.call, path.display());
            }
            None => eprintln!("sysemu: no call differs: {} is not written", path.display()),
        }
    }
    Ok(differing)
}

fn print_difference(line: usize, call: &CallLine, played: &Played, format: Format) {
    if format == Format::Json {
        let (recorded, unknown) = (&call.outcome, &played.unknown);
        let now = &played.outcome;
        out!(
            "{}",
            json!({ "line": line, "call": call.call, "recorded": recorded, "now": now, "unknown": unknown })
        );
        return;
    }
    let path = call.memory.first().map_or("", |piece| piece.bytes.split("%00").next().unwrap_or(""));
    out!("line {line}: {} {path}", call.call);
    let (before, after) = (&call.outcome, &played.outcome);
    for act in before.iter().filter(|act| !after.contains(act)) {
        out!("  recorded: {}", one_line(act));
    }
    for act in after.iter().filter(|act| !before.contains(act)) {
        out!("  now:      {}", one_line(act));
    }
    for question in &played.unknown {
        out!("  not in the record: {question}");
    }
}

/// Content has lines of its own.
fn one_line(act: &str) -> String {
    act.replace('\n', "\\n").replace('\t', "\\t")
}
