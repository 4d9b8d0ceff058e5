//! The keeper: waits for the server, and ends the tree when the server died.

use nix::errno::Errno as OsErrno;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use super::{OWN_FAILURE, tree};

/// Runs until the server ended; gives this process's own exit status.
pub(super) fn run(server: i32) -> i32 {
    release_standard_descriptors();
    release_standard_error();
    leave_directory();
    loop {
        match waitpid(Pid::from_raw(server), None) {
            Ok(WaitStatus::Exited(_, 0)) => return 0,
            Err(OsErrno::EINTR) => {}
            Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) => {
                tree::kill_all();
                return OWN_FAILURE;
            }
            Ok(_) => {}
            Err(_) => return OWN_FAILURE,
        }
    }
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
