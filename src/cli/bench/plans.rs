//! What is measured, and what each line is compared with.

use sysemu::emulator::backend::BackendChoice;

use super::super::args::BenchArgs;
use super::Measure;
use super::floor::{self, Echo};
use super::guest::{self, Kind};
use super::{product, traced};

/// A line to be measured.
pub struct Plan {
    /// Its name.
    pub name: &'static str,
    /// What it is compared with, by name.
    pub floor: Option<&'static str>,
    /// What is taken off before the comparison, by name.
    pub plus: Option<&'static str>,
    /// How it is measured.
    pub measure: Measure,
}

fn plan(name: &'static str, floor: impl Into<Option<&'static str>>, measure: Measure) -> Plan {
    Plan { name, floor: floor.into(), plus: None, measure }
}

/// Programs that nobody supervises.
pub fn native(args: &BenchArgs) -> Vec<Plan> {
    let n = args.calls;
    let native = |name, kind| plan(name, None, Box::new(move || guest::run_natively(kind, n)));
    vec![
        native("native open", Kind::Open),
        native("native stat", Kind::Stat),
        native("native procfs open+read+close", Kind::ReadProc),
        native("native uname", Kind::Uname),
        native("native getpid", Kind::Getpid),
    ]
}

/// The floors of seccomp user notification, and sysemu above them.
pub fn notify(args: &BenchArgs) -> Vec<Plan> {
    let n = args.calls;
    let allowed = |kind| -> Measure { Box::new(move || floor::allowed(kind, n)) };
    let mut plans = vec![
        plan("filter, allowed: open", "native open", allowed(Kind::Open)),
        plan("filter, allowed: getpid", "native getpid", allowed(Kind::Getpid)),
        plan("notify echo (Continue)", "native open", floor::echo(args, Kind::Open, Echo::Continue)),
        plan("notify echo (value)", "native stat", floor::echo(args, Kind::Stat, Echo::Value)),
        plan(
            "notify echo (value, stored)",
            "notify echo (value)",
            floor::echo(args, Kind::Stat, Echo::Stored),
        ),
        plan("carrier alone: open+read+close", "native procfs open+read+close", product::carrier_alone(args)),
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
        let measure = product::measure(args, kind, BackendChoice::Notify);
        plans.push(Plan { plus, ..plan(name, floor, measure) });
    }
    plans
}

/// The floors of ptrace(2) with SECCOMP_RET_TRACE, and sysemu above them.
pub fn ptrace(args: &BenchArgs) -> Vec<Plan> {
    let n = args.calls;
    let traced = |kind, echo| -> Measure { Box::new(move || traced::echo(kind, n, echo)) };
    let mut plans = vec![
        plan(
            "traced, not selected: open+read+close",
            "native procfs open+read+close",
            traced(Kind::ReadProc, Echo::Continue),
        ),
        plan("traced, not selected: getpid", "native getpid", traced(Kind::Getpid, Echo::Continue)),
        plan("RET_TRACE echo (Continue)", "native open", traced(Kind::Open, Echo::Continue)),
        plan("RET_TRACE echo (value)", "native stat", traced(Kind::Stat, Echo::Value)),
        plan("RET_TRACE echo (value, stored)", "RET_TRACE echo (value)", traced(Kind::Stat, Echo::Stored)),
    ];
    for (name, kind, floor) in [
        ("sysemu, ptrace: unrelated open", Kind::Open, "RET_TRACE echo (Continue)"),
        ("sysemu, ptrace: managed stat", Kind::StatManaged, "RET_TRACE echo (value)"),
        ("sysemu, ptrace: managed open+read+close", Kind::ReadManaged, "RET_TRACE echo (value)"),
        ("sysemu, ptrace: uname", Kind::Uname, "RET_TRACE echo (value)"),
        ("sysemu, ptrace: untrapped getpid", Kind::Getpid, "native getpid"),
    ] {
        let plus = (kind == Kind::ReadManaged).then_some("native procfs open+read+close");
        let measure = product::measure(args, kind, BackendChoice::Ptrace);
        plans.push(Plan { plus, ..plan(name, floor, measure) });
    }
    plans
}
