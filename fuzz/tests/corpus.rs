//! Replays the corpus of each target, and a fixed pseudo-random stretch of inputs, on stable.

use std::fs;

fn replay(name: &str, target: fn(&[u8])) {
    let folder = format!("{}/../fixtures/corpus/{name}", env!("CARGO_MANIFEST_DIR"));
    let mut files = 0;
    for entry in fs::read_dir(&folder).expect("a corpus") {
        target(&fs::read(entry.expect("an entry").path()).expect("a file"));
        files += 1;
    }
    assert!(files > 0, "{folder} is empty");
}

/// A linear congruential generator: the same inputs on each run.
fn random(target: fn(&[u8]), runs: u32) {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    for _ in 0..runs {
        let len = usize::from(next()) % 24;
        let data: Vec<u8> = (0..len).map(|_| next()).collect();
        target(&data);
    }
}

#[test]
fn policy_parse() {
    replay("policy_parse", sysemu_fuzz::policy_parse);
    random(sysemu_fuzz::policy_parse, 2000);
}

#[test]
fn sysctl_write() {
    replay("sysctl_write", sysemu_fuzz::sysctl_write);
    random(sysemu_fuzz::sysctl_write, 20000);
}

#[test]
fn path_resolve() {
    replay("path_resolve", sysemu_fuzz::path_resolve);
    random(sysemu_fuzz::path_resolve, 20000);
}

#[test]
fn notification_decode() {
    replay("notification_decode", sysemu_fuzz::notification_decode);
    random(sysemu_fuzz::notification_decode, 20000);
}
