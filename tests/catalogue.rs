//! The built-in catalogue of sysctls against the kernel that runs the test.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use sysemu::policy::{Loader, Policy, Row, What};

fn linux() -> Policy {
    Loader::new().policy("linux").load().expect("the built-in policy is good")
}

/// Rows whose file this kernel has, with its mode and text.
fn present(policy: &Policy) -> Vec<(&Row, u32, String)> {
    let look = |row: &Row| {
        let mode = fs::metadata(&row.path).ok()?.permissions().mode() & 0o777;
        let text = fs::read_to_string(&row.path).ok()?;
        Some((mode, text))
    };
    let rows = policy.rows.iter().filter(|row| !row.path.contains('*'));
    rows.filter_map(|row| look(row).map(|(mode, text)| (row, mode, text))).collect()
}

#[test]
fn types_take_the_kernels_own_values_byte_for_byte() {
    let policy = linux();
    let present = present(&policy);
    assert!(present.len() > 300, "only {} rows exist here", present.len());
    let mut wrong = Vec::new();
    for (row, _, text) in &present {
        let What::File { codec: Some(codec), .. } = &row.what else {
            wrong.push(format!("{}: no type", row.path));
            continue;
        };
        match codec.canonical(text) {
            Ok(shown) if shown == *text => {}
            other => wrong.push(format!("{} ({codec:?}): {text:?} gives {other:?}", row.path)),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn modes_are_the_kernels() {
    let policy = linux();
    let wrong: Vec<String> = present(&policy)
        .iter()
        .filter(|(row, mode, _)| u32::from(row.mode) != *mode)
        .map(|(row, mode, _)| format!("{}: {:04o}, the kernel has {mode:04o}", row.path, row.mode))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_required_key_is_there() {
    let policy = linux();
    let required = include_str!("../fixtures/catalogue/required-keys.txt");
    let known: Vec<&str> = policy.rows.iter().map(|row| row.path.as_str()).collect();
    let has = |key: &str| {
        let path = format!("/proc/sys/{key}");
        known.contains(&path.as_str()) || known.contains(&path.replace("/default/", "/*/").as_str())
    };
    let missing: Vec<&str> = required.lines().filter(|line| !line.starts_with('#') && !has(line)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn given_numbers_win_over_rows_for_missing_files() {
    for (name, path) in [("k3s", "/proc/sys/kernel/osrelease"), ("gvisor", "/proc/sys/kernel/osrelease")] {
        let policy = Loader::new().policy(name).load().expect("good");
        let row = policy.rows.iter().rev().find(|row| row.path == path).expect("there");
        assert_eq!(row.when, sysemu::policy::When::Always, "{name} {path}: {}", row.origin);
    }
}

#[test]
fn rows_for_one_interface_win_over_rows_for_all() {
    let policy = Loader::new().policy("k3s").load().expect("good");
    let tree = sysemu::emulator::tree::Tree::build(&policy, std::path::Path::new("/sys"));
    let entry = tree.entry(&tree.at("/proc/sys/net/ipv4/conf/all/route_localnet"));
    let sysemu::emulator::tree::Entry::File(row) = entry else { panic!("{entry:?}") };
    assert_eq!(row.path, "/proc/sys/net/ipv4/conf/all/route_localnet");
}

#[test]
fn the_catalogue_is_that_of_any_linux() {
    let policy = linux();
    let odd: Vec<&str> =
        policy.rows.iter().map(|row| row.path.as_str()).filter(|path| path.contains("private")).collect();
    assert!(odd.is_empty(), "{odd:?}");
}

#[test]
fn every_row_says_what_for_and_where_from() {
    for (name, _) in sysemu::policy::builtin::NAMED {
        let policy = Loader::new().policy(*name).load().expect("good");
        let bare: Vec<&str> = policy
            .rows
            .iter()
            .filter(|row| row.doc.is_empty() || row.source.is_empty())
            .map(|row| row.path.as_str())
            .collect();
        assert!(bare.is_empty(), "{name}: {bare:?}");
    }
}

#[test]
fn files_that_mean_something_by_being_absent_stay_absent() {
    for (name, _) in sysemu::policy::builtin::NAMED {
        let policy = Loader::new().policy(*name).load().expect("good");
        for path in [
            "/proc/sys/kernel/unprivileged_userns_clone",
            "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
            "/proc/sys/crypto/fips_enabled",
            "/proc/sys/fs/may_detach_mounts",
            "/proc/vz",
            "/sys/kernel/security/apparmor",
        ] {
            assert!(policy.rows.iter().all(|row| row.path != path), "{name} adds {path}");
        }
    }
}
