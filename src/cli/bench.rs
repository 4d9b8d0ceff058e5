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
mod product;

use guest::{Kind, Timing};

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

type Measure = Box<dyn Fn() -> Result<Timing, String>>;

struct Plan {
    name: &'static str,
    floor: Option<&'static str>,
    plus: Option<&'static str>,
    measure: Measure,
}

/// Measures and prints.
pub fn main(args: &BenchArgs) -> ExitCode {
    if !sysemu::emulator::probe::has_notify() {
        return fail("there is no seccomp user notification here to be measured; `sysemu doctor` says more");
    }
    let mut report = Vec::new();
    for placement in [Placement::Unpinned, Placement::OneCpu] {
        let measured = placed(placement, || run(args));
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

fn run(args: &BenchArgs) -> Result<Vec<Line>, String> {
    let n = args.calls;
    let native = move |kind| -> Measure { Box::new(move || guest::run_natively(kind, n)) };
    let plan = |name, floor, measure| Plan { name, floor, plus: None, measure };
    let mut plans = vec![
        plan("native open", None, native(Kind::Open)),
        plan("native stat", None, native(Kind::Stat)),
        plan("native procfs open+read+close", None, native(Kind::ReadProc)),
        plan("native uname", None, native(Kind::Uname)),
        plan("native getpid", None, native(Kind::Getpid)),
        plan("filter, allowed: open", Some("native open"), Box::new(move || floor::allowed(Kind::Open, n))),
        plan(
            "filter, allowed: getpid",
            Some("native getpid"),
            Box::new(move || floor::allowed(Kind::Getpid, n)),
        ),
        plan(
            "notify echo (Continue)",
            Some("native open"),
            floor::echo(args, Kind::Open, floor::Echo::Continue),
        ),
        plan("notify echo (value)", Some("native stat"), floor::echo(args, Kind::Stat, floor::Echo::Value)),
        plan(
            "notify echo (value, stored)",
            Some("notify echo (value)"),
            floor::echo(args, Kind::Stat, floor::Echo::Stored),
        ),
        plan(
            "carrier alone: open+read+close",
            Some("native procfs open+read+close"),
            product::carrier_alone(args),
        ),
        plan("RET_TRACE echo", Some("native open"), Box::new(move || floor::traced(Kind::Open, n))),
    ];
    for (name, kind, floor) in [
        ("sysemu: unrelated absolute open", Kind::Open, "notify echo (Continue)"),
        ("sysemu: unrelated open, new path", Kind::OpenNew, "notify echo (Continue)"),
        ("sysemu: unrelated relative open", Kind::OpenRelative, "notify echo (Continue)"),
        ("sysemu: managed stat", Kind::StatManaged, "notify echo (value)"),
        ("sysemu: managed open+read+close", Kind::ReadManaged, "native procfs open+read+close"),
        ("sysemu: uname", Kind::Uname, "notify echo (value)"),
        ("sysemu: untrapped getpid", Kind::Getpid, "native getpid"),
    ] {
        let plus = (kind == Kind::ReadManaged).then_some("notify echo (value)");
        plans.push(Plan { name, floor: Some(floor), plus, measure: product::measure(args, kind) });
    }
    let mut lines = Vec::new();
    for Plan { name, floor, plus, measure } in plans {
        // The better of two runs: these machines are shared.
        let (first, second) = (measure()?, measure()?);
        let timing = if second.p50 < first.p50 { second } else { first };
        lines.push(Line { name, floor, plus, timing });
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
    out!("{:<34} {:>10} {:>10}  ratio of medians", "", "p50 ns", "p99 ns");
    for line in lines {
        let Timing { p50, p99 } = line.timing;
        let against = match (ratio(lines, line), line.floor, line.plus) {
            (Some(ratio), Some(floor), None) => format!("{ratio:.2} x {floor}"),
            (Some(ratio), Some(floor), Some(plus)) => format!("{ratio:.2} x {floor}, plus one {plus}"),
            _ => String::new(),
        };
        out!("{:<34} {p50:>10} {p99:>10}  {against}", line.name);
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
