//! Loads: many threads, children and signals at once, and no result may be wrong. `tests/gvisor/loads.rs` has the same
//! inside gVisor. `make loads` runs each fifty times.

mod common;

use common::loads::{KUBELET, LOAD, OPENS, OPTIONS, assert_loaded, rounds};
use common::{Outcome, Run, go_guest, guest};

#[test]
fn threads_children_and_signals_at_once() {
    let words: Vec<String> =
        std::iter::once(guest("load")).chain(LOAD.iter().map(|&word| word.to_owned())).collect();
    let run = Run::new(&words).under(OPTIONS);
    for round in 0..rounds(5) {
        let Outcome { stdout, stderr, status } = run.go();
        assert_eq!((stderr.as_str(), status), ("", 0), "round {round}: {stdout}");
        assert_loaded(&stdout, 1);
    }
}

#[test]
fn signals_reach_a_program_that_makes_nothing_but_trapped_calls() {
    let run = Run::new(&[&guest("alarms"), LOAD[0]]);
    assert_eq!(run.under(OPTIONS).go().good(), "handled 20 killed 20 of 20\n");
}

#[test]
fn a_go_program_that_opens_files_while_it_is_interrupted() {
    let words: Vec<String> =
        std::iter::once(go_guest("opens")).chain(OPENS.iter().map(|&word| word.to_owned())).collect();
    let outcome = Run::new(&words).under(OPTIONS).limit(120).go();
    assert_eq!(
        (outcome.stdout.as_str(), outcome.stderr.as_str()),
        ("opens 10000 interrupted true errors 0\n", "")
    );
}

#[test]
fn a_static_go_program_reads_as_kubernetes_does() {
    let run = Run::new(&[go_guest("kubelet")]);
    assert_eq!(run.under(&["-p", "k3s"]).go().good(), KUBELET);
    assert_ne!(run.go().stdout, KUBELET);
}
