//! getcwd(2), chdir(2), fchdir(2).

use std::os::fd::AsFd;
use std::sync::Arc;

use super::for_paths;
use crate::emulator::context::Who;
use crate::emulator::errno::Errno;
use crate::emulator::failure::{Failure, OrFault};
use crate::emulator::reply::{Out, Reply};
use crate::emulator::resolve::{Final, Found};
use crate::emulator::sys::file;
use crate::emulator::syscall::{Call, Syscall};

/// The rows of this family.
pub fn rows() -> Vec<Syscall> {
    vec![
        Syscall::new("getcwd", for_paths, getcwd),
        Syscall::new("chdir", for_paths, chdir),
        Syscall::new("fchdir", for_paths, fchdir),
    ]
}

fn getcwd(call: &Call<'_>) -> Result<Reply, Failure> {
    let Some(mut text) = directory(call, call.tid)? else { return Ok(Reply::Continue) };
    text.push(0);
    let size = usize::try_from(call.args[1]).unwrap_or(usize::MAX);
    if text.len() > size {
        return Err(Errno::ERANGE.into());
    }
    // The kernel's length counts the NUL.
    Ok(Reply::Value { value: text.len() as i64, out: Some(Out { addr: call.args[0], bytes: text }) })
}

/// Where a task stands, if the kernel would say otherwise.
///
/// # Errors
/// The task is gone, or may not be looked at.
fn directory(call: &Call<'_>, tid: u32) -> Result<Option<Vec<u8>>, Failure> {
    let resolver = &call.emulator.resolver;
    let task = resolver.views.task(tid).or_gone("read the identity of a task")?;
    let key = match resolver.cwds.get(&resolver.views, &task) {
        Some(key) => key,
        None => {
            // After fchdir(2) to a descriptor of ours the kernel stands in the carrier.
            let cwd = resolver.views.open_of(tid, "cwd").or_gone("open the working directory of a task")?;
            let stat = file::stat_fd(cwd.as_fd()).or_fault("look at the working directory of a task")?;
            match resolver.identify(&stat) {
                Some(key) => key,
                None => return Ok(None),
            }
        }
    };
    Ok(Some(if key.is_empty() { b"/".to_vec() } else { key.as_bytes().to_vec() }))
}

fn chdir(call: &Call<'_>) -> Result<Reply, Failure> {
    let path = call.path(0)?;
    let resolver = &call.emulator.resolver;
    let stand = |key: Option<Arc<str>>| -> Result<(), Failure> {
        let task = resolver.views.task(call.tid).or_gone("read the identity of a task")?;
        resolver.cwds.set(&resolver.views, &task, key);
        Ok(())
    };
    match call.resolve(libc::AT_FDCWD, &path, Final::Follow)? {
        Found::Kernel(_) => {
            // Kept for the case that the kernel refuses.
            if !resolver.cwds.is_empty() && leads_to_directory(call, &path)? {
                stand(None)?;
            }
            Ok(Reply::Continue)
        }
        Found::Refused(errno) => Err(errno.into()),
        Found::OnBehalf(real) => {
            if !real.stat.is(libc::S_IFDIR) {
                return Err(Errno::ENOTDIR.into());
            }
            let look = || {
                file::access(Some(real.fd.as_fd()), c"", libc::X_OK, libc::AT_EMPTY_PATH | libc::AT_EACCESS)
            };
            resolver.with_rights_of(call.tid, look)?.map_err(|errno| Errno::from_raw(errno as i32))?;
            let key = real.key.as_deref().ok_or(Errno::EACCES)?;
            stand(Some(key.into()))?;
            Ok(Reply::success())
        }
        Found::Virtual(object) if object.is_dir() => {
            call.emulator.permit(call.tid, &object, 1, Who::Effective)?;
            stand(Some(object.key.clone()))?;
            Ok(Reply::success())
        }
        Found::Virtual(_) => Err(Errno::ENOTDIR.into()),
    }
}

fn leads_to_directory(call: &Call<'_>, path: &[u8]) -> Result<bool, Failure> {
    let query = crate::emulator::resolve::Query {
        tid: call.tid,
        dirfd: libc::AT_FDCWD,
        path,
        last: Final::Follow,
        resolve: 0,
    };
    let found = call.emulator.resolver.resolve_fully(&query)?;
    Ok(matches!(found, Found::Kernel(Some(real)) if real.stat.is(libc::S_IFDIR)))
}

fn fchdir(call: &Call<'_>) -> Result<Reply, Failure> {
    let resolver = &call.emulator.resolver;
    if !resolver.cwds.is_empty() && resolver.descriptor(call.tid, call.int(0)).is_ok() {
        let task = resolver.views.task(call.tid).or_gone("read the identity of a task")?;
        resolver.cwds.set(&resolver.views, &task, None);
    }
    Ok(Reply::Continue)
}
