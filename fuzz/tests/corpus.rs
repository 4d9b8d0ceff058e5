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
fn random(target: fn(&[u8]), runs: u32, longest: usize) {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    for _ in 0..runs {
        let len = usize::from(next()) % longest;
        let data: Vec<u8> = (0..len).map(|_| next()).collect();
        target(&data);
    }
}

#[test]
fn policy_parse() {
    replay("policy_parse", sysemu_fuzz::policy_parse);
    random(sysemu_fuzz::policy_parse, 2000, 24);
}

#[test]
fn path_resolve() {
    replay("path_resolve", sysemu_fuzz::path_resolve);
    random(sysemu_fuzz::path_resolve, 20000, 24);
    sysemu_fuzz::clean_up();
}

#[test]
fn sysctl_store() {
    replay("sysctl_store", sysemu_fuzz::sysctl_store);
    random(sysemu_fuzz::sysctl_store, 20000, 24);
}

#[test]
fn decode() {
    replay("decode", sysemu_fuzz::decode);
    random(sysemu_fuzz::decode, 5000, 160);
}

#[test]
fn tree_ops() {
    replay("tree_ops", sysemu_fuzz::tree_ops);
    random(sysemu_fuzz::tree_ops, 5000, 200);
}

#[test]
fn filter_eval() {
    replay("filter_eval", sysemu_fuzz::filter_eval);
    random(sysemu_fuzz::filter_eval, 300, 40);
}

#[test]
fn encode() {
    replay("encode", sysemu_fuzz::encode);
    random(sysemu_fuzz::encode, 20000, 200);
}
