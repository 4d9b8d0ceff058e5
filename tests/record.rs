//! `sysemu record` and `sysemu replay`: calls are served again without the program that made them, and differences are
//! found and made small.

mod common;

use std::fs;

use common::{Outcome, Run, Scratch, is_ptrace, sysemu_program, text_of};
use sysemu::emulator::sys::spent;
use sysemu::replay::reduce::reduce;
use sysemu::replay::{Record, Replayer};

const SCRIPT: &str = "cat /proc/sys/vm/swappiness; uname -r; ls /proc/sys/vm /proc >/dev/null; cat /proc/swaps; \
                      cd /proc/sys/vm && cat swappiness; echo 44 >swappiness; cat swappiness; cat /proc/meminfo";

struct Recorded {
    scratch: Scratch,
    file: String,
}

impl Recorded {
    fn new(carrier: &str) -> Self {
        let scratch = Scratch::new();
        let file = text_of(&scratch.join("calls.record"));
        let backend = if is_ptrace() { "ptrace" } else { "notify" };
        let policy =
            ["--set", "vm.swappiness=33", "--uname-release", "4.1.2", "--hide", "/proc/swaps", "--set"];
        let options = ["record", "-o", &file, "--carrier", carrier, "--backend", backend];
        let words =
            [&[sysemu_program()], &options[..], &policy, &["vm.text=secret", "--", "sh", "-c", SCRIPT]];
        let outcome = Run::new(&words.concat()).variable("VARIABLE_OF_THE_PROGRAM", "value").go();
        assert_eq!(outcome.status, 0, "{}", outcome.stderr);
        assert!(outcome.stdout.starts_with("33\n4.1.2\n33\n"), "{}", outcome.stdout);
        assert!(outcome.stderr.contains("calls recorded"), "{}", outcome.stderr);
        assert!(!outcome.stderr.contains("could not be recorded"), "{}", outcome.stderr);
        Recorded { scratch, file }
    }

    fn record(&self) -> Record {
        Record::read(self.file.as_ref()).expect("a good record")
    }

    /// Replays a changed copy.
    fn changed(&self, change: impl FnOnce(String) -> String) -> Outcome {
        let text = fs::read_to_string(&self.file).expect("recorded");
        let copy = self.scratch.write("changed.record", &change(text));
        Run::new(&[sysemu_program(), "replay", &copy]).go()
    }
}

#[test]
fn calls_are_served_again_without_the_program_and_without_a_look_outside() {
    for carrier in ["auto", "memfd"] {
        let recorded = Recorded::new(carrier);
        let record = recorded.record();
        assert!(record.calls.len() > 20, "{}", record.calls.len());
        for name in ["openat", "uname", "chdir", "getdents64"] {
            assert!(record.calls.iter().any(|call| call.call == name), "{name}");
        }
        let mut replayer = Replayer::new(&record.header).expect("an emulator");
        let before = spent();
        // The other way round: no call needs what another one left behind.
        for call in record.calls.iter().rev() {
            let played = replayer.serve(call);
            assert!(played.is_as_recorded(call), "{call:?}\n{played:?}");
        }
        assert!(
            record
                .calls
                .iter()
                .any(|call| call.outcome.iter().any(|act| act.starts_with("return descriptor")))
        );
        // The one descriptor that all others are stand-ins of.
        assert!((spent() - before).entries <= 1, "{:?}", spent() - before);
    }
}

#[test]
fn a_record_holds_no_more_memory_than_was_asked_for() {
    let recorded = Recorded::new("memfd");
    let text = fs::read_to_string(&recorded.file).expect("recorded");
    assert!(!text.contains("VARIABLE_OF_THE_PROGRAM"));
}

#[test]
fn differences_are_printed_with_their_line_and_make_the_status_1() {
    let recorded = Recorded::new("memfd");
    let same = recorded.changed(|text| text);
    assert_eq!((same.status, same.stdout.lines().count()), (0, 1), "{}", same.stdout);
    let outcome = recorded.changed(|text| text.replacen(r#"value = \"33\""#, r#"value = \"34\""#, 1));
    assert_eq!(outcome.status, 1, "{}", outcome.stdout);
    assert!(outcome.stdout.contains("openat /proc/sys/vm/swappiness"), "{}", outcome.stdout);
    assert!(
        outcome.stdout.contains("recorded: open file /proc/sys/vm/swappiness 0x0 33"),
        "{}",
        outcome.stdout
    );
    assert!(
        outcome.stdout.contains("now:      open file /proc/sys/vm/swappiness 0x0 34"),
        "{}",
        outcome.stdout
    );
}

#[test]
fn a_question_that_the_record_has_no_answer_for_is_a_difference() {
    let recorded = Recorded::new("memfd");
    let outcome = recorded.changed(|text| text.replace("\"uname\":", "\"nothing\":"));
    assert_eq!(outcome.status, 1, "{}", outcome.stdout);
    assert!(outcome.stdout.contains("not in the record: uname"), "{}", outcome.stdout);
}

#[test]
fn a_damaged_record_is_refused_with_its_line() {
    let recorded = Recorded::new("memfd");
    type Change = fn(String) -> String;
    let cases: [(Change, &str); 5] = [
        (|_| "junk\n".into(), "line 1"),
        (|text| text.replacen("\"sysemu-record\":1", "\"sysemu-record\":99", 1), "line 1: format 99"),
        (|text| text.replacen("\"tid\"", "\"tib\"", 1), "line 2: unknown field"),
        (|text| text[..text.len() - 10].to_owned(), "in the middle of a line"),
        (|text| text.replacen("\"abi\":\"x86_64\"", "\"abi\":\"vax\"", 1), "line 2: unknown ABI"),
    ];
    for (change, expected) in cases {
        let outcome = recorded.changed(change);
        assert_eq!((outcome.status, outcome.stdout.as_str()), (125, ""), "{expected}");
        assert!(outcome.stderr.contains(expected), "{expected}: {}", outcome.stderr);
    }
    let missing = Run::new(&[sysemu_program(), "replay", "/nonexistent"]).go();
    assert!(missing.status == 125 && missing.stderr.contains("/nonexistent"), "{}", missing.stderr);
}

#[test]
fn the_smallest_call_that_differs_is_left_with_what_it_needs() {
    let recorded = Recorded::new("memfd");
    let mut record = recorded.record();
    assert_eq!(reduce(&record).expect("an emulator"), None);
    record.header.policy = record.header.policy.replacen("value = \"33\"", "value = \"34\"", 1);
    let before = Replayer::new(&record.header).expect("an emulator").serve(&record.calls[0]);
    let reduced = reduce(&record).expect("an emulator").expect("a difference");
    assert_eq!(reduced.calls.len(), 1);
    let call = &reduced.calls[0];
    assert!(call.outcome.iter().any(|act| act.contains("/proc/sys/vm/swappiness 0x")), "{call:?}");
    assert!(!reduced.header.policy.contains("vm.text"), "{}", reduced.header.policy);
    assert!(reduced.header.policy.contains("vm.swappiness"), "{}", reduced.header.policy);
    let played = Replayer::new(&reduced.header).expect("an emulator").serve(call);
    assert!(!played.is_as_recorded(call) && played.unknown.is_empty(), "{played:?}");
    assert!(before.asked.len() > 1, "{before:?}");
    assert_eq!(played.asked.len(), call.facts.len(), "facts that nobody asks for were left");
}

#[test]
fn the_committed_record_is_served_as_it_was_recorded() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/records/calls.record");
    let record = Record::read(file.as_ref()).expect("a good record");
    let mut replayer = Replayer::new(&record.header).expect("an emulator");
    for (index, call) in record.calls.iter().enumerate() {
        let played = replayer.serve(call);
        let hint = "look at the difference; if it is meant, run scripts/record-fixture";
        assert!(played.is_as_recorded(call), "line {}: {played:?}\n{hint}", index + 2);
    }
    assert!(record.calls.len() > 60);
}

#[test]
fn without_a_policy_there_is_nothing_to_record() {
    let scratch = Scratch::new();
    let file = text_of(&scratch.join("calls.record"));
    let outcome = Run::new(&[sysemu_program(), "record", "--no-auto", "-o", &file, "--", "echo", "ran"]).go();
    assert_eq!((outcome.status, outcome.stdout.as_str()), (125, ""));
    assert!(outcome.stderr.contains("nothing to record"), "{}", outcome.stderr);
    let outcome =
        Run::new(&[sysemu_program(), "record", "--set", "vm.a=1", "-o", "/nonexistent/x", "--", "true"]).go();
    assert_eq!(outcome.status, 125);
    assert!(outcome.stderr.contains("cannot record to /nonexistent/x"), "{}", outcome.stderr);
}
