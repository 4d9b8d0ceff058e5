//! Which namespace a value belongs to, and who may touch the sysctls of one.
//!
//! Linux: fs/proc/proc_sysctl.c (`sysctl_perm`, `test_perm`) and the hooks of each kind: net/sysctl_net.c,
//! ipc/ipc_sysctl.c, kernel/ucount.c, kernel/pid.c.

use std::os::fd::{AsFd, OwnedFd};

use super::context::Who;
use super::errno::Errno;
use super::failure::{Failure, OrFault};
use super::object::{Object, ObjectKind};
use super::resolve::task::Status;
use super::resolve::view::Views;
use super::sys::{OsResult, file, process, tape};
use crate::policy::{Scope, What};

/// A namespace, for as long as the machine runs where the kernel tells such a number (Linux 6.18); before that
/// the number of a namespace that ended can be that of a new one.
pub type ScopeId = u64;

/// The scope of values that are the same everywhere.
pub const GLOBAL: ScopeId = 0;

const CAP_DAC_OVERRIDE: u32 = 1;
const CAP_DAC_READ_SEARCH: u32 = 2;
const CAP_NET_ADMIN: u32 = 12;
/// CAP_SYS_ADMIN (capabilities(7)).
pub const CAP_SYS_ADMIN: u32 = 21;
const CAP_SYS_RESOURCE: u32 = 24;

/// User namespaces can be nested this deep.
const MAX_NESTING: usize = 33;

/// The link below `/proc/TID/ns` of a kind of namespace; `None` when there is nothing to tell apart.
pub fn link(scope: Scope) -> Option<&'static str> {
    match scope {
        Scope::Global => None,
        Scope::Net => Some("net"),
        Scope::Uts => Some("uts"),
        Scope::Ipc => Some("ipc"),
        Scope::User => Some("user"),
        Scope::Pid => Some("pid"),
    }
}

/// The namespace of a task that values of this scope belong to.
///
/// # Errors
/// As [`Views::open_of`].
pub fn of(views: &Views, tid: u32, scope: Scope) -> OsResult<ScopeId> {
    let Some(kind) = link(scope) else { return Ok(GLOBAL) };
    let path = file::c_path(format!("{tid}/ns/{kind}").as_bytes())?;
    // struct nsfs_file_handle begins with a number that is never used again.
    match file::handle(Some(views.proc()), &path) {
        Ok(handle) if handle.len() >= 16 => {
            Ok(u64::from_ne_bytes(handle[..8].try_into().expect("eight bytes")))
        }
        _ => views.namespace(tid, kind),
    }
}

/// Whether a task has a capability in the user namespace that owns its namespace of this kind (`ns_capable`).
///
/// # Errors
/// As [`Views::open_of`].
pub fn is_capable(views: &Views, tid: u32, status: &Status, scope: Scope, capability: u32) -> OsResult<bool> {
    if !status.has_capability(capability) {
        return Ok(false);
    }
    let own = views.namespace(tid, "user")?;
    let mut at = match scope {
        Scope::Global => return Ok(own == views.namespace(tape::own_process(), "user")?),
        Scope::User => return Ok(true),
        _ => match owner(views, tid, scope) {
            Ok(owner) => owner,
            // gVisor has no such question; it lets nobody but root of the sandbox have namespaces.
            Err(_) => return Ok(own == views.namespace(tape::own_process(), "user")?),
        },
    };
    for _ in 0..MAX_NESTING {
        if file::stat_fd(at.as_fd())?.ino == own {
            return Ok(true);
        }
        match process::parent_of_namespace(at.as_fd()) {
            Ok(parent) => at = parent,
            Err(_) => return Ok(false),
        }
    }
    Ok(false)
}

/// The user namespace that owns the task's namespace of this kind.
fn owner(views: &Views, tid: u32, scope: Scope) -> OsResult<OwnedFd> {
    let kind = link(scope).unwrap_or("user");
    process::owner_of_namespace(views.open_namespace(tid, kind)?.as_fd())
}

/// The user and group, as the supervisor numbers them, that are root in the user namespace that owns the task's
/// namespace of this kind; `None` when nobody is, or when it is a namespace that the task is not in.
fn root_of(views: &Views, tid: u32, scope: Scope) -> OsResult<Option<(u32, u32)>> {
    let supervisors = views.namespace(tape::own_process(), "user")?;
    let owner = match owner(views, tid, scope) {
        Ok(owner) => file::stat_fd(owner.as_fd())?.ino,
        Err(_) => supervisors,
    };
    if owner == supervisors {
        return Ok(Some((0, 0)));
    }
    if owner != views.namespace(tid, "user")? {
        return Ok(None);
    }
    let root = |map: &str| {
        map.lines().find_map(|line| {
            let mut numbers = line.split_ascii_whitespace().map(str::parse::<u32>);
            match (numbers.next(), numbers.next()) {
                (Some(Ok(0)), Some(Ok(outside))) => Some(outside),
                _ => None,
            }
        })
    };
    Ok(root(&views.read_of(tid, "uid_map")?).zip(root(&views.read_of(tid, "gid_map")?)))
}

/// Whether a task may do `want` (bits of R_OK, W_OK, X_OK) to an object.
///
/// # Errors
/// EACCES as the kernel; failures to read the task's credentials.
pub fn permit(views: &Views, tid: u32, object: &Object, want: u32, who: Who) -> Result<(), Failure> {
    let mode = object.mode();
    let classes = [mode >> 6, mode >> 3, mode];
    let is_sysctl = object.key.starts_with("/proc/sys/");
    if classes.iter().all(|class| class & want == want) {
        return Ok(());
    }
    if is_sysctl && classes.iter().all(|class| class & want != want) {
        return Err(Errno::EACCES.into());
    }
    let status = views.status(tid).or_gone("read the credentials of a task")?;
    let permitted = if is_sysctl {
        let scope = match &object.kind {
            ObjectKind::File(row) => match row.what {
                What::File { scope, .. } => scope,
                _ => Scope::Global,
            },
            _ => Scope::Global,
        };
        permits_sysctl(views, tid, &status, scope, classes, want)?
    } else {
        permits_file(views, tid, object, &status, classes, want, who)
    };
    if permitted { Ok(()) } else { Err(Errno::EACCES.into()) }
}

/// The effective ids count, also for access(2), which changes those for the file system only.
fn permits_sysctl(
    views: &Views,
    tid: u32,
    status: &Status,
    scope: Scope,
    classes: [u32; 3],
    want: u32,
) -> Result<bool, Failure> {
    let class_for = |(root, group): (u32, u32)| {
        let in_group = status.gid[1] == group || status.groups.contains(&group);
        if status.uid[1] == root {
            classes[0]
        } else if in_group {
            classes[1]
        } else {
            classes[2]
        }
    };
    let gone = "look at the namespaces of a task";
    let capable = |capability| is_capable(views, tid, status, scope, capability).or_gone(gone);
    let class = match scope {
        Scope::Global | Scope::Uts => class_for((0, 0)),
        Scope::Net if class_for((0, 0)) & want != want && capable(CAP_NET_ADMIN)? => classes[0],
        Scope::Net => class_for((0, 0)),
        Scope::User if capable(CAP_SYS_RESOURCE)? => classes[0],
        Scope::User => classes[2],
        Scope::Pid if capable(CAP_SYS_ADMIN)? => classes[0],
        Scope::Ipc | Scope::Pid => match root_of(views, tid, scope).or_gone(gone)? {
            Some(root) => class_for(root),
            None => classes[2],
        },
    };
    Ok(class & want == want)
}

/// Linux: fs/namei.c, generic_permission(). Capabilities of another user namespace do not reach root's files.
fn permits_file(
    views: &Views,
    tid: u32,
    object: &Object,
    status: &Status,
    classes: [u32; 3],
    want: u32,
    who: Who,
) -> bool {
    let (uid, gid) = match who {
        Who::Effective => (status.uid[3], status.gid[3]),
        Who::Real => (status.uid[0], status.gid[0]),
    };
    // Virtual objects belong to root in the initial user namespace.
    let class = match (uid, gid == 0 || status.groups.contains(&0)) {
        (0, _) => classes[0],
        (_, true) => classes[1],
        (_, false) => classes[2],
    };
    let has =
        |capability| status.has_capability(capability) && views.shares_user_namespace(tid).unwrap_or(false);
    let any_execute = object.mode() & 0o111 != 0 || object.is_dir();
    let only_looks = want == 4 || (object.is_dir() && want & 2 == 0);
    class & want == want
        || (has(CAP_DAC_OVERRIDE) && (want & 1 == 0 || any_execute))
        || (has(CAP_DAC_READ_SEARCH) && only_looks)
}
