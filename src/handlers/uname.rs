//! uname(2), and the older i386 calls that fill shorter structures.

use super::trap_if;
use crate::emulator::abi::layout;
use crate::emulator::failure::{Failure, OrFault};
use crate::emulator::host;
use crate::emulator::provider::UnameView;
use crate::emulator::reply::Reply;
use crate::emulator::syscall::{Activation, Call, Syscall};
use crate::policy::Policy;

fn active(policy: &Policy) -> Activation {
    trap_if(policy.uname.is_given())
}

/// The rows of this family.
pub fn rows() -> Vec<Syscall> {
    vec![
        Syscall::new("uname", active, |call| uname(call, 6, layout::UTSNAME_FIELD)),
        Syscall::new("olduname", active, |call| uname(call, 5, layout::UTSNAME_FIELD)),
        Syscall::new("oldolduname", active, |call| uname(call, 5, OLDEST_FIELD)),
    ]
}

/// Bytes of one field of `struct oldold_utsname`.
const OLDEST_FIELD: usize = 9;

fn uname(call: &Call<'_>, fields: usize, width: usize) -> Result<Reply, Failure> {
    let view = view(call)?;
    let all = [&view.sysname, &view.nodename, &view.release, &view.version, &view.machine, &view.domainname];
    Ok(Reply::stored(call.args[0], layout::utsname(&all.map(String::as_str)[..fields], width)))
}

/// Fields that the policy does not give are those of the caller's own UTS namespace, as they are now.
fn view(call: &Call<'_>) -> Result<UnameView, Failure> {
    let given = &call.emulator.uname;
    let views = &call.emulator.resolver.views;
    let names = if views.shares_uts(call.tid).or_gone("look at the namespace of a task")? {
        nix::sys::utsname::uname().or_fault("ask for the own uname")?
    } else {
        let namespace = views.open_namespace(call.tid, "uts").or_gone("open the namespace of a task")?;
        host::uname_in(namespace).or_fault("enter the UTS namespace of a task")?
    };
    Ok(host::uname_over(given, &names))
}
