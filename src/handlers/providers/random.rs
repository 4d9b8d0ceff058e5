//! Identifiers: boot id, uuid, machine id, last pid (random(4), machine-id(5), pid_namespaces(7)).

use std::sync::OnceLock;

use bytes::Bytes;

use crate::emulator::errno::Errno;
use crate::emulator::provider::{Cx, Providers};
use crate::emulator::sys::tape;

pub(super) fn register(providers: &mut Providers) {
    providers.register("uuid", "a new random UUID at each open", |_| line(uuid()));
    providers.register(
        "boot-id",
        "a UUID that stays the same during a run; the host's where it has one",
        boot_id,
    );
    providers.register("machine-id", "32 hexadecimal digits that stay the same during a run", machine_id);
    providers.register("ns-last-pid", "the number of the latest process", last_pid);
}

fn line(text: Result<String, Errno>) -> Result<Bytes, Errno> {
    Ok(format!("{}\n", text?).into())
}

fn random() -> Result<[u8; 16], Errno> {
    let ask = || {
        let mut bytes = [0u8; 16];
        let mut source = std::fs::File::open("/dev/urandom").ok()?;
        std::io::Read::read_exact(&mut source, &mut bytes).ok()?;
        Some(bytes)
    };
    tape::fact(|| "random".to_owned(), ask).ok_or(Errno::EIO)
}

/// A version 4 UUID (RFC 9562).
fn uuid() -> Result<String, Errno> {
    let mut bytes = random()?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]))
}

fn boot_id(cx: &Cx<'_>) -> Result<Bytes, Errno> {
    static ID: OnceLock<Option<String>> = OnceLock::new();
    if let Ok(host) = cx.host.read("/proc/sys/kernel/random/boot_id")
        && host.len() == 37
    {
        return Ok(host.into());
    }
    line(ID.get_or_init(|| uuid().ok()).clone().ok_or(Errno::EIO))
}

fn machine_id(cx: &Cx<'_>) -> Result<Bytes, Errno> {
    static ID: OnceLock<Option<String>> = OnceLock::new();
    if let Ok(host) = cx.host.read("/etc/machine-id")
        && host.len() == 33
    {
        return Ok(host.into());
    }
    line(ID.get_or_init(|| Some(uuid().ok()?.replace('-', ""))).clone().ok_or(Errno::EIO))
}

fn last_pid(cx: &Cx<'_>) -> Result<Bytes, Errno> {
    if let Ok(host) = cx.host.read("/proc/sys/kernel/ns_last_pid") {
        return Ok(host.into());
    }
    let load = cx.host.read("/proc/loadavg").unwrap_or_default();
    let load = String::from_utf8_lossy(&load);
    let last: u32 = load.split_whitespace().nth(4).and_then(|last| last.parse().ok()).unwrap_or(cx.tid);
    Ok(format!("{}\n", last.max(cx.tid)).into())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{FakeHost, show};

    #[test]
    fn uuids_differ_and_ids_stay() {
        let host = FakeHost::default();
        let get = |name| show(&host, name, "/x").expect("shown");
        assert_ne!(get("uuid"), get("uuid"));
        assert_eq!(get("uuid").len(), 37);
        assert_eq!(get("boot-id"), get("boot-id"));
        assert_eq!(get("machine-id"), get("machine-id"));
        assert_eq!(get("machine-id").len(), 33);
    }
}
