//! uname(2), and the older i386 calls that fill shorter structures; sethostname(2), setdomainname(2).

use super::trap_if;
use crate::emulator::abi::{COMPAT_MACHINE, layout};
use crate::emulator::failure::{Failure, OrFault};
use crate::emulator::provider::UnameView;
use crate::emulator::reply::Reply;
use crate::emulator::syscall::{Activation, Call, Syscall};
use crate::emulator::write::UtsName;
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
        Syscall::new("sethostname", names_are_virtual, |call| set_name(call, UtsName::Host)),
        Syscall::new("setdomainname", names_are_virtual, |call| set_name(call, UtsName::Domain)),
    ]
}

/// The calls matter where uname(2) or the files do not show the kernel's names by themselves.
fn names_are_virtual(policy: &Policy) -> Activation {
    let is_file = |path: &str| [UtsName::Host, UtsName::Domain].iter().any(|which| which.path() == path);
    let given = policy.uname.nodename.is_some() || policy.uname.domainname.is_some();
    trap_if(given || policy.rows.iter().any(|row| is_file(&row.path)))
}

/// Longest name (__NEW_UTS_LEN).
const MAX_NAME: usize = 64;

/// The supervisor sets the name on behalf of the caller, so that whoever polls the file is woken after the change and
/// not before. Whatever is wrong with the call, the kernel says so.
fn set_name(call: &Call<'_>, which: UtsName) -> Result<Reply, Failure> {
    let Ok(len @ 0..=MAX_NAME) = usize::try_from(call.int(1)) else { return Ok(Reply::Continue) };
    let mut name = [0; MAX_NAME];
    if !matches!(call.read(call.args[0], &mut name[..len]), Ok(got) if got == len) {
        return Ok(Reply::Continue);
    }
    match call.emulator.store.set_uts_name(call.tid, which, &name[..len]) {
        Ok(Ok(())) => Ok(Reply::success()),
        Ok(Err(errno)) => {
            tracing::debug!(%errno, "a name is set by the program itself");
            Ok(Reply::Continue)
        }
        Err(_) => Ok(Reply::Continue),
    }
}

/// Bytes of one field of `struct oldold_utsname`.
const OLDEST_FIELD: usize = 9;

fn uname(call: &Call<'_>, fields: usize, width: usize) -> Result<Reply, Failure> {
    let view = view(call)?;
    let all = [&view.sysname, &view.nodename, &view.release, &view.version, &view.machine, &view.domainname];
    Ok(Reply::stored(call.args[0], layout::utsname(&all.map(String::as_str)[..fields], width)))
}

fn view(call: &Call<'_>) -> Result<UnameView, Failure> {
    let views = &call.emulator.resolver.views;
    call.emulator.carrier.look(call.tid);
    let view = call.emulator.store.uname(call.tid).or_gone("ask for the names of a task")?;
    Ok(under_personality(view, views.personality(call.tid).or_gone("read the personality of a task")?))
}

/// The execution domain's part of a personality (personality(2), `linux/personality.h`).
const PER_MASK: i32 = 0xff;
/// A 32-bit machine.
const PER_LINUX32: i32 = 8;
/// A release that begins with 2.6.
const UNAME26: i32 = 0x002_0000;

/// What personality(2) makes of the fields, those of the policy included. Programs check it: setarch(8) gives
/// up when the machine stays as it was. Linux: kernel/sys.c, override_architecture() and override_release().
fn under_personality(mut view: UnameView, personality: i32) -> UnameView {
    if personality & PER_MASK == PER_LINUX32 {
        view.machine = COMPAT_MACHINE.into();
    }
    if personality & UNAME26 != 0 {
        let release = &view.release;
        let mut dots = 0;
        let end = release.find(|c: char| {
            dots += usize::from(c == '.');
            dots == 3 || !(c == '.' || c.is_ascii_digit())
        });
        let (version, rest) = release.split_at(end.unwrap_or(release.len()));
        let patch_level = version.split('.').nth(1).and_then(|number| number.parse().ok()).unwrap_or(0u32);
        view.release = format!("2.6.{}{rest}", patch_level.saturating_add(60));
    }
    view
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_personality_changes_machine_and_release() {
        let shown = |release: &str, personality| {
            let view =
                UnameView { release: release.into(), machine: "x86_64".into(), ..UnameView::default() };
            let view = under_personality(view, personality);
            format!("{} {}", view.release, view.machine)
        };
        assert_eq!(shown("6.18.44-a.b", 0), "6.18.44-a.b x86_64");
        assert_eq!(shown("6.18.44-a.b", PER_LINUX32), "6.18.44-a.b i686");
        assert_eq!(shown("6.18.44-a.b", UNAME26), "2.6.78-a.b x86_64");
        assert_eq!(shown("6.1.0.7", UNAME26 | PER_LINUX32), "2.6.61.7 i686");
        assert_eq!(shown("strange", UNAME26), "2.6.60strange x86_64");
        assert_eq!(shown("", UNAME26), "2.6.60 x86_64");
    }
}
