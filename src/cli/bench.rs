//! `sysemu bench`: the floors of this host, and the product's cost above them, measured in one run.
//!
//! The measured program is sysemu itself under a hidden command ([`guest`]), so that nothing else is needed.
//! It times each call and reports a histogram; the ratios are between medians of the same run.

use std::process::ExitCode;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::args::{BenchArgs, Format};
use super::fail;

mod floor;
pub mod guest;
mod plans;
mod product;
mod traced;

use guest::Timing;
use plans::Plan;

/// One measured line.
struct Line {
    name: &'static str,
    /// What it is compared with, by name.
    floor: Option<&'static str>,
    /// What is added to the floor for the comparison, by name.
    plus: Option<&'static str>,
    timing: Timing,
}

/// Where the processes run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Placement {
    Unpinned,
    OneCpu,
}

/// How often each line is measured.
const ROUNDS: usize = 3;

type Measure = Box<dyn Fn() -> Result<Timing, String>>;

/// Measures and prints.
pub fn main(args: &BenchArgs) -> ExitCode {
    let has_notify = sysemu::emulator::probe::has_notify();
    let mut placements = vec![Placement::Unpinned];
    if has_notify {
        placements.push(Placement::OneCpu);
    } else {
        // Kernels without it but for gVisor are older than what is supported, and gVisor accepts any choice of CPUs
        // without keeping to it.
        eprintln!(
            "sysemu: no seccomp user notification here: ptrace alone is measured, on any CPU (gVisor keeps to none)"
        );
    }
    let mut report = Vec::new();
    for placement in placements {
        let measured = placed(placement, || run(args, has_notify));
        match measured {
            Ok(lines) => report.push((placement, lines)),
            Err(message) => return fail(message),
        }
    }
    match args.format {
        Format::Text => report.iter().for_each(|(placement, lines)| print(*placement, lines)),
        Format::Json => {
            let items: Vec<Value> =
                report.iter().map(|(placement, lines)| to_json(*placement, lines)).collect();
            out!("{:#}", json!(items));
        }
    }
    ExitCode::SUCCESS
}

/// Runs `work` with this thread, and so everything it starts, on one CPU or on all.
fn placed<T>(placement: Placement, work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    let own = Pid::from_raw(0);
    let failed = |errno| format!("cannot choose the CPU: {errno}");
    let all = sched_getaffinity(own).map_err(failed)?;
    if placement == Placement::OneCpu {
        let first = (0..CpuSet::count()).find(|cpu| all.is_set(*cpu).unwrap_or(false)).unwrap_or(0);
        let mut one = CpuSet::new();
        one.set(first).map_err(failed)?;
        sched_setaffinity(own, &one).map_err(failed)?;
    }
    let result = work();
    sched_setaffinity(own, &all).map_err(failed)?;
    result
}

fn run(args: &BenchArgs, has_notify: bool) -> Result<Vec<Line>, String> {
    let mut all = plans::native(args);
    if has_notify {
        all.extend(plans::notify(args));
    }
    all.extend(plans::ptrace(args));
    let mut lines: Vec<Line> = Vec::new();
    // In rounds, so that a line and its floor meet the same load of the machine, and the best of each counts.
    for round in 0..ROUNDS {
        for (at, Plan { name, floor, plus, measure }) in all.iter().enumerate() {
            let timing = measure()?;
            if round == 0 {
                lines.push(Line { name, floor: *floor, plus: *plus, timing });
            } else if timing.p50 < lines[at].timing.p50 {
                lines[at].timing = timing;
            }
        }
    }
    Ok(lines)
}

fn ratio(lines: &[Line], line: &Line) -> Option<f64> {
    let p50 = |name: &str| lines.iter().find(|line| line.name == name).map(|line| line.timing.p50 as f64);
    let floor = p50(line.floor?)?;
    let plus = match line.plus {
        Some(name) => p50(name)?,
        None => 0.0,
    };
    Some((line.timing.p50 as f64 - plus).max(0.0) / floor)
}

fn print(placement: Placement, lines: &[Line]) {
    match placement {
        Placement::Unpinned => out!("program and supervisor on any CPU"),
        Placement::OneCpu => out!("\nprogram and supervisor on one CPU"),
    }
    out!("{:<39} {:>10} {:>10}  ratio of medians", "", "p50 ns", "p99 ns");
    for line in lines {
        let Timing { p50, p99 } = line.timing;
        let against = match (ratio(lines, line), line.floor, line.plus) {
            (Some(ratio), Some(floor), None) => format!("{ratio:.2} x {floor}"),
            (Some(ratio), Some(floor), Some(plus)) => format!("{ratio:.2} x {floor}, plus one {plus}"),
            _ => String::new(),
        };
        out!("{:<39} {p50:>10} {p99:>10}  {against}", line.name);
    }
}

fn to_json(placement: Placement, lines: &[Line]) -> Value {
    let items: Vec<Value> = lines
        .iter()
        .map(|line| {
            json!({
                "name": line.name,
                "p50_ns": line.timing.p50,
                "p99_ns": line.timing.p99,
                "floor": line.floor,
                "plus": line.plus,
                "ratio": ratio(lines, line),
            })
        })
        .collect();
    let placement = if placement == Placement::OneCpu { "one-cpu" } else { "unpinned" };
    json!({ "placement": placement, "lines": items })
}
