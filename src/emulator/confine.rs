//! Confining the supervisor itself: once the program runs, the supervisor never needs to become another
//! program, trace one, or change the kernel; should a tracee lead it astray, these fail.

use std::collections::BTreeMap;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, apply_filter_all_threads};

/// Calls that the supervisor never makes after the program was started.
const NEVER: &[libc::c_long] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_bpf,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_unshare,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_acct,
    libc::SYS_quotactl,
];

/// Whether the supervisor has to trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tracing {
    /// Its backend lives on ptrace(2).
    Needed,
    /// Not once the program runs.
    Never,
}

/// Why the supervisor could not be confined.
#[derive(Debug, thiserror::Error)]
pub enum ConfineError {
    /// seccompiler does not know this architecture.
    #[error("no filter for this architecture: {0}")]
    Architecture(seccompiler::BackendError),
    /// The filter could not be made or installed.
    #[error(transparent)]
    Filter(#[from] seccompiler::Error),
}

fn program(tracing: Tracing) -> Result<BpfProgram, ConfineError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(ConfineError::Architecture)?;
    let rules: BTreeMap<i64, Vec<_>> = NEVER
        .iter()
        .filter(|nr| tracing == Tracing::Never || **nr != libc::SYS_ptrace)
        .map(|nr| (*nr, Vec::new()))
        .collect();
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EPERM.cast_unsigned()),
        arch,
    )
    .map_err(seccompiler::Error::Backend)?;
    Ok(BpfProgram::try_from(filter).map_err(seccompiler::Error::Backend)?)
}

/// Confines all threads of this process, for good. It gets no_new_privs.
///
/// # Errors
/// See [`ConfineError`]; nothing has changed then.
pub fn confine_process(tracing: Tracing) -> Result<(), ConfineError> {
    Ok(apply_filter_all_threads(&program(tracing)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_compiles() {
        let len = |tracing| program(tracing).expect("compiles").len();
        assert!(len(Tracing::Needed) < len(Tracing::Never));
    }
}
