//! The same cases in every world: what bare Linux says, and what sysemu says with each backend and inside each gVisor.
//!
//! A case is compared with bare Linux everywhere. Where gVisor's own kernel does otherwise, or sysemu by declaration, the
//! case names the difference and its reason; a difference without one fails, and so does a declared one that is not
//! met. The run ends with a table of all of them.
//!
//! `cargo test --test conformance -- gvisor-2024` runs one world, `-- b12` one case everywhere.

#[path = "../common/mod.rs"]
mod common;

mod descriptors;
mod field_reports;
mod identity;
mod read_semantics;
mod resolution;
mod spellings;
mod table;
mod world;

use std::process::ExitCode;
use std::sync::Arc;

use common::{is_root, skip};
use libtest_mimic::{Arguments, Trial};
use table::{Table, Tally};
use world::World;

type Check = dyn Fn(World) -> Tally + Send + Sync;

/// What is looked at in every world.
pub struct Case {
    name: String,
    needs_root: bool,
    /// Where it is run.
    worlds: fn(World) -> bool,
    check: Arc<Check>,
}

impl Case {
    /// A case of what sysemu says, for everybody.
    pub fn new(name: &str, check: impl Fn(World) -> Tally + Send + Sync + 'static) -> Self {
        let worlds = |world| world != World::Linux;
        Case { name: name.to_owned(), needs_root: false, worlds, check: Arc::new(check) }
    }

    /// The same for root only.
    pub fn root(name: &str, check: impl Fn(World) -> Tally + Send + Sync + 'static) -> Self {
        Case { needs_root: true, ..Case::new(name, check) }
    }
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // A sandbox spends much of its time waiting for its own parts.
    arguments.test_threads.get_or_insert(4);
    let table = Arc::new(Table::default());
    let mut worlds = Vec::new();
    let mut missing = Vec::new();
    for world in World::ALL {
        match world.ready() {
            Ok(()) => worlds.push(world),
            Err(reason) => {
                skip(&format!("conformance::{}", world.name()), &reason);
                missing.push((world, reason));
            }
        }
    }
    let all = [
        resolution::cases(),
        read_semantics::cases(),
        descriptors::cases(),
        identity::cases(),
        field_reports::cases(),
    ];
    let cases: Vec<Case> = all.into_iter().flatten().collect();
    let mut trials = Vec::new();
    for (index, case) in cases.iter().enumerate() {
        for world in worlds.iter().copied() {
            if !(case.worlds)(world) {
                continue;
            }
            let name = format!("{}::{}", case.name, world.name());
            let (table, check, needs_root) = (table.clone(), case.check.clone(), case.needs_root);
            trials.push(Trial::test(name.clone(), move || {
                if needs_root && !is_root() {
                    skip(&name, "needs root for its mounts and namespaces");
                    return Ok(());
                }
                table.begun(index, world);
                world.begin();
                table.passed(index, world, check(world));
                Ok(())
            }));
        }
    }
    let names: Vec<String> = cases.iter().map(|case| case.name.clone()).collect();
    let (lists, is_whole) = (arguments.list, arguments.filter.is_none() && arguments.skip.is_empty());
    let conclusion = libtest_mimic::run(&arguments, trials);
    if lists {
        return conclusion.exit_code();
    }
    println!("{}", table.text(&names, &missing));
    let unmet = if is_whole && !conclusion.has_failed() { resolution::unmet(&worlds) } else { Vec::new() };
    for difference in &unmet {
        println!("declared, but not met: {difference}");
    }
    if unmet.is_empty() { conclusion.exit_code() } else { ExitCode::FAILURE }
}
