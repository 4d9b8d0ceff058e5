//! What the versions of gVisor do not have, and backends therefore cannot use. A case that fails here says that gVisor
//! has changed, not that sysemu is wrong.

use libtest_mimic::Trial;

use crate::common::gvisor::{Sandbox, Setup, Version};
use crate::common::{Build, guest_as};
use crate::versions;

pub fn cases() -> Vec<Trial> {
    versions("facts", facts)
}

fn facts(setup: Setup) {
    let printed =
        Sandbox::new(setup).with(guest_as("sandbox", Build::Static)).command(&["sandbox-static"]).go();
    // AT_NO_AUTOMOUNT is what ls(1) passes: in 2022 it fails on every path, not only below /proc/sys.
    let (release, memory, no_automount) = match setup.version {
        Version::V2022 => ("4.4.0", "ENOSYS", "EINVAL"),
        Version::V2024 => ("4.4.0", "ok", "ok"),
        Version::V2026 => ("4.19.0-gvisor", "ok", "ok"),
    };
    let wanted = format!(
        "release {release}\nlistener EINVAL\nprocess_vm_readv {memory}\nstatx ok\nstatx AT_NO_AUTOMOUNT {no_automount}\n"
    );
    assert_eq!(printed.good(), wanted);
}
