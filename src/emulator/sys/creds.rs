//! Looking at the file system with somebody else's rights: setfsuid(2), setfsgid(2), setgroups(2) for the
//! calling thread only, or what takes their place where they are missing.

use std::cell::Cell;

use super::{OsResult, check, count, tape};

/// The identity that decides file permissions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FsIdentity {
    /// File system user id.
    pub uid: u32,
    /// File system group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

fn set_groups(groups: &[u32]) -> OsResult<()> {
    // SAFETY: the raw call changes this thread only (glibc's wrapper would change all); the list is live.
    check(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) }).map(drop)
}

/// setfsuid(2) and setfsgid(2) report no failure; the caller compares by a second call.
fn set_fs_ids(uid: u32, gid: u32) -> bool {
    let invalid = u32::MAX;
    count();
    // SAFETY: no memory is passed; affects this thread only.
    unsafe { libc::syscall(libc::SYS_setfsgid, gid) };
    count();
    // SAFETY: as above.
    unsafe { libc::syscall(libc::SYS_setfsuid, uid) };
    count();
    // SAFETY: as above; an invalid id changes nothing and reads the current one.
    let now = unsafe { libc::syscall(libc::SYS_setfsuid, invalid) };
    now == i64::from(uid)
}

/// The same by the effective ids, for kernels without setfsuid(2) (gVisor). Back to root it has to be the user first,
/// away from it the group, because only root may change both.
fn set_effective_ids(uid: u32, gid: u32) -> OsResult<()> {
    let keep = u32::MAX;
    let set = |call: libc::c_long, id: u32| {
        // SAFETY: no memory is passed; the raw call affects this thread only.
        check(unsafe { libc::syscall(call, keep, id, keep) }).map(drop)
    };
    if uid == 0 {
        set(libc::SYS_setresuid, uid)?;
        return set(libc::SYS_setresgid, gid);
    }
    set(libc::SYS_setresgid, gid)?;
    set(libc::SYS_setresuid, uid)
}

/// Runs `look` with the file system identity `who` on the calling thread, then restores `own`.
///
/// Leaving uid 0 also clears the file system capabilities (CAP_DAC_OVERRIDE and so on) from the thread's
/// effective set for the time, so that `look` is refused what `who` would be refused.
///
/// # Errors
/// EPERM: this process may not take other identities.
pub fn with_identity<T>(own: &FsIdentity, who: &FsIdentity, look: impl FnOnce() -> T) -> OsResult<T> {
    let look = Cell::new(Some(look));
    let take = || look.take().map(|look| look());
    let result = tape::around(
        || format!("identity {} {} {:?}", who.uid, who.gid, who.groups),
        || enter(own, who, take),
        take,
    );
    result.and_then(|looked| looked.ok_or(nix::errno::Errno::EIO))
}

fn enter<T>(own: &FsIdentity, who: &FsIdentity, look: impl FnOnce() -> T) -> OsResult<T> {
    set_groups(&who.groups)?;
    let result = if set_fs_ids(who.uid, who.gid) {
        let result = look();
        set_fs_ids(own.uid, own.gid);
        Ok(result)
    } else {
        set_fs_ids(own.uid, own.gid);
        let result = set_effective_ids(who.uid, who.gid).map(|()| look());
        set_effective_ids(own.uid, own.gid)?;
        result
    };
    set_groups(&own.groups)?;
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn effective_ids_are_taken_and_given_back() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let shut = std::env::temp_dir().join(format!("sysemu-shut-{}", std::process::id()));
        std::fs::write(&shut, "x").expect("written");
        std::fs::set_permissions(&shut, std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .expect("its own");
        let open = || std::fs::File::open(&shut).map_err(|error| error.kind());
        // In a thread of its own, since what is changed is the thread's.
        std::thread::scope(|scope| {
            scope.spawn(|| {
                set_effective_ids(65534, 65534).expect("root may");
                assert_eq!(open().err(), Some(std::io::ErrorKind::PermissionDenied));
                set_effective_ids(0, 0).expect("it still is root");
                assert!(open().is_ok());
            });
        });
        std::fs::remove_file(&shut).expect("written above");
    }
}
