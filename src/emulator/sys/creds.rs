//! Looking at the file system with somebody else's rights: setfsuid(2), setfsgid(2), setgroups(2) for the
//! calling thread only.

use super::{OsResult, check, count};

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

/// Runs `look` with the file system identity `who` on the calling thread, then restores `own`.
///
/// Leaving uid 0 also clears the file system capabilities (CAP_DAC_OVERRIDE and so on) from the thread's
/// effective set for the time, so that `look` is refused what `who` would be refused.
///
/// # Errors
/// EPERM: this process may not take other identities.
pub fn with_identity<T>(own: &FsIdentity, who: &FsIdentity, look: impl FnOnce() -> T) -> OsResult<T> {
    set_groups(&who.groups)?;
    let taken = set_fs_ids(who.uid, who.gid);
    let result = taken.then(look);
    set_fs_ids(own.uid, own.gid);
    set_groups(&own.groups)?;
    result.ok_or(nix::errno::Errno::EPERM)
}
