//! The sandboxes themselves: what they return is what the command did, and nothing is left of them.

use std::fs;
use std::path::Path;

use libtest_mimic::Trial;

use crate::common::gvisor::{Failure, Network, Sandbox, Setup, User};
use crate::common::{Outcome, eventually};
use crate::{everywhere, versions};

pub fn cases() -> Vec<Trial> {
    let mut trials = everywhere("sandbox_is_as_asked", is_as_asked);
    trials.extend(versions("status", status));
    trials.extend(versions("streams", streams));
    trials.extend(versions("no_command", no_command));
    trials.extend(versions("nothing_is_written", nothing_is_written));
    trials.extend(versions("hanging", hanging));
    trials
}

fn is_as_asked(setup: Setup) {
    let script = "id -u; grep CapEff /proc/self/status; ip -o -4 address; echo $VARIABLE; cat main.rs";
    let printed =
        Sandbox::new(setup).with("src/main.rs").variable("VARIABLE", "some value").shell(script).go().good();
    let (id, capabilities) = match setup.user {
        User::Root => ("0", "CapEff:\t0000003fffffdfff"),
        User::Nobody => ("65534", "CapEff:\t0000000000000000"),
    };
    assert!(printed.starts_with(&format!("{id}\n{capabilities}\n")), "{printed}");
    assert_eq!(printed.contains("10.99.0.2/24"), setup.network == Network::Sandbox, "{printed}");
    assert!(printed.ends_with(&format!("some value\n{}", include_str!("../../src/main.rs"))), "{printed}");
}

fn status(setup: Setup) {
    for (script, status) in
        [("exit 0", 0), ("exit 7", 7), ("exit 128", 128), ("kill -9 $$", 137), ("kill -15 $$", 143)]
    {
        let outcome = Sandbox::new(setup).shell(script).go();
        assert_eq!(outcome, Outcome { stdout: String::new(), stderr: String::new(), status }, "{script}");
    }
}

fn streams(setup: Setup) {
    let input = "some text\n".repeat(10_000);
    let script = "cat; yes out | head -c 1000000; yes err | head -c 1000000 >&2; exit 3";
    let outcome = Sandbox::new(setup).input(&input).shell(script).go();
    assert_eq!(outcome.status, 3);
    assert_eq!(outcome.stdout.len(), input.len() + 1_000_000);
    assert!(
        outcome.stdout == format!("{input}{}", "out\n".repeat(250_000)),
        "stdout is not what was written"
    );
    assert!(outcome.stderr == "err\n".repeat(250_000), "stderr is not what was written");
}

/// A sandbox that cannot be started is no outcome of the command.
fn no_command(setup: Setup) {
    let failure =
        Sandbox::new(setup).command(&["/no/such/command"]).attempt().expect_err("there is no such command");
    let Failure::Sandbox(log) = failure else { panic!("{failure:?}") };
    assert!(log.contains("/no/such/command"), "{log}");
}

fn nothing_is_written(setup: Setup) {
    let script = "echo text >/sysemu-was-here && cat /sysemu-was-here && echo text >here && cat here && pwd";
    let printed = Sandbox::new(setup).shell(script).go().good();
    let folder = printed.strip_prefix("text\ntext\n").expect("both files were written").trim_end();
    assert!(!Path::new("/sysemu-was-here").exists());
    assert_gone(folder);
}

fn hanging(setup: Setup) {
    let script = "pwd; sleep 1000 & trap '' TERM INT; while true; do sleep 1000; done";
    let failure = Sandbox::new(setup).limit(3).shell(script).attempt().expect_err("it does not end");
    let Failure::Hung(printed) = failure else { panic!("{failure:?}") };
    assert_gone(printed.lines().next().expect("it came to run"));
}

/// Fails when anything is left of the sandbox whose command started in this folder.
#[track_caller]
fn assert_gone(folder: &str) {
    let scratch = Path::new(folder).parent().expect("it has a name").to_owned();
    let name = scratch.file_name().and_then(|name| name.to_str()).expect("text").to_owned();
    assert!(!scratch.exists(), "{folder}");
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("procfs");
    assert!(!mounts.contains(&name), "{mounts}");
    assert!(!Path::new("/run/runsc").join(&name).exists());
    // All of its processes have the name of the sandbox in their arguments. The one that is waited for has ended
    // after them, others may still be on their way out of the table.
    let processes = || {
        let all = fs::read_dir("/proc").expect("procfs").flatten();
        let arguments = all.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
        arguments.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).find(|line| line.contains(&name))
    };
    assert!(eventually(std::time::Duration::from_secs(5), || processes().is_none()), "{:?}", processes());
}
