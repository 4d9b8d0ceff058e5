//! Loads inside gVisor: many threads, children and signals at once, and no result may be wrong.

use libtest_mimic::Trial;

use crate::common::gvisor::{Sandbox, Setup, Version};
use crate::common::loads::{KUBELET, LOAD, OPENS, OPTIONS, assert_loaded, rounds};
use crate::common::{go_guest, guest};
use crate::versions;

pub fn cases() -> Vec<Trial> {
    let mut trials = versions("loads::threads", threads);
    trials.extend(versions("loads::signals", signals));
    trials.extend(versions("loads::go", go));
    trials.extend(versions("loads::kubernetes_reader", kubernetes_reader));
    trials.extend(versions("loads::pipelines", pipelines));
    trials
}

/// A command of a shell: sysemu with these options, and this program with these arguments under it.
fn wrapped(options: &[&str], program: &str, arguments: &[&str]) -> String {
    [&["sysemu", "--no-auto"], options, &["--", program], arguments].concat().join(" ")
}

fn threads(setup: Setup) {
    // The older one needs three times as long.
    let rounds = rounds(if setup.version == Version::V2024 { 4 } else { 2 });
    let one = wrapped(OPTIONS, "load", LOAD);
    let script = format!("i=0; while [ $i -lt {rounds} ]; do {one} || exit; i=$((i + 1)); done");
    let sandbox = Sandbox::new(setup).with(guest("load")).shell(&script).limit(60 + 30 * rounds as u64);
    let outcome = sandbox.go();
    assert_eq!((outcome.stderr.as_str(), outcome.status), ("", 0), "{}", outcome.stdout);
    assert_loaded(&outcome.stdout, rounds);
}

/// gVisor notifies no task of a signal that comes in a stop.
fn signals(setup: Setup) {
    let script = wrapped(OPTIONS, "alarms", &LOAD[..1]);
    let outcome = Sandbox::new(setup).with(guest("alarms")).shell(&script).limit(120).go();
    assert_eq!(outcome.good(), "handled 20 killed 20 of 20\n");
}

fn go(setup: Setup) {
    let script = wrapped(OPTIONS, "opens", OPENS);
    let outcome = Sandbox::new(setup).with(go_guest("opens")).shell(&script).limit(240).go();
    let seen = (outcome.stdout.as_str(), outcome.stderr.as_str());
    assert_eq!(seen, ("opens 10000 interrupted true errors 0\n", ""));
}

fn kubernetes_reader(setup: Setup) {
    let run = |command: &str| Sandbox::new(setup).with(go_guest("kubelet")).shell(command).limit(120).go();
    assert_eq!(run(&wrapped(&["-p", "gvisor", "-p", "k3s"], "kubelet", &[])).good(), KUBELET);
    assert_ne!(run("kubelet").stdout, KUBELET);
}

fn pipelines(setup: Setup) {
    // The older one needs five times as long.
    let times = if setup.version == Version::V2024 { 1000 } else { 200 };
    let script = format!(
        "i=0; while [ $i -lt {times} ]; do r=$(echo a$i | cat | cat); [ \"$r\" = a$i ] || exit 1; i=$((i+1)); done; echo $i"
    );
    let words = [&["sysemu", "--no-auto"], OPTIONS, &["--", "dash", "-c", &script]].concat();
    assert_eq!(Sandbox::new(setup).command(&words).limit(300).go().good(), format!("{times}\n"));
}
