//! The keeper: waits for the server, and ends the tree when the server died.

use super::{OWN_FAILURE, tree};
use crate::emulator::sys::wait::{self, Change};

/// Runs until the server ended; gives this process's own exit status.
pub(super) fn run(server: i32) -> i32 {
    release_standard_descriptors();
    release_standard_error();
    leave_directory();
    match wait::wait_for(server) {
        Ok(Change::Exited(0)) => return 0,
        Ok(_) => tree::kill_all(),
        Err(_) => {}
    }
    OWN_FAILURE
}

/// Whoever reads the program's standard error must see its end when only daemons are left.
pub(super) fn release_standard_error() {
    if let Ok(null) = std::fs::File::options().write(true).open("/dev/null") {
        let _ = nix::unistd::dup2_stderr(&null);
    }
}

/// The file system that sysemu was started in must not stay in use when only daemons are left.
pub(super) fn leave_directory() {
    let _ = nix::unistd::chdir("/");
}

/// Who reads the program's output from a pipe must see its end when the program is done with it.
pub(super) fn release_standard_descriptors() {
    if let Ok(null) = std::fs::File::options().read(true).write(true).open("/dev/null") {
        let _ = nix::unistd::dup2_stdin(&null);
        let _ = nix::unistd::dup2_stdout(&null);
    }
}
