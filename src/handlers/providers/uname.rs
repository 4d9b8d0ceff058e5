//! Files that show the fields of uname(2).

use bytes::Bytes;

use crate::emulator::errno::Errno;
use crate::emulator::provider::{Cx, Providers};

pub(super) fn register(providers: &mut Providers) {
    let line = |text: &str| -> Result<Bytes, Errno> { Ok(format!("{text}\n").into()) };
    providers.register("uname-sysname", "sysname of uname(2)", move |cx| line(&cx.uname.sysname));
    providers.register("uname-nodename", "nodename of uname(2)", move |cx| line(&cx.uname.nodename));
    providers.register("uname-release", "release of uname(2)", move |cx| line(&cx.uname.release));
    providers.register("uname-version", "version of uname(2)", move |cx| line(&cx.uname.version));
    providers.register("uname-machine", "machine of uname(2)", move |cx| line(&cx.uname.machine));
    providers.register("uname-domainname", "domainname of uname(2)", move |cx| line(&cx.uname.domainname));
    providers.register("proc-version", "/proc/version, agreeing with uname(2)", proc_version);
}

/// Keeps what the host's line says about who built the kernel.
fn proc_version(cx: &Cx<'_>) -> Result<Bytes, Errno> {
    let host = cx.host.read("/proc/version").unwrap_or_default();
    let host = String::from_utf8_lossy(&host);
    let builder = host.find('(').zip(host.rfind(')')).and_then(|(start, end)| host.get(start..=end));
    let builder = builder.unwrap_or("(sysemu@localhost)");
    let uname = cx.uname;
    Ok(format!("{} version {} {builder} {}\n", uname.sysname, uname.release, uname.version).into())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{FakeHost, show};

    #[test]
    fn version_agrees_with_uname() {
        let host = FakeHost([("/proc/version", "Linux version 4.4.0 (x@y) (gcc) #1 old\n")].into());
        assert_eq!(
            show(&host, "proc-version", "/proc/version").as_deref(),
            Ok("Linux version 6.1.0 (x@y) (gcc) #1 SMP\n")
        );
        let line = show(&FakeHost::default(), "proc-version", "/proc/version").expect("shown");
        assert_eq!(line.split(' ').nth(2), Some("6.1.0"));
        assert_eq!(show(&host, "uname-release", "/x").as_deref(), Ok("6.1.0\n"));
    }
}
