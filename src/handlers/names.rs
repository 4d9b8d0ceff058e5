//! Names that `*` rows stand for: the network interfaces of the task, below the directories that have an
//! entry for each interface.

use std::sync::Arc;

use crate::emulator::provider::Host;
use crate::emulator::resolve::Names;

/// Directories with an entry for each interface, and the entries they have besides.
const PER_INTERFACE: [(&str, &[&str]); 4] = [
    ("/proc/sys/net/ipv4/conf", &["all", "default"]),
    ("/proc/sys/net/ipv6/conf", &["all", "default"]),
    ("/proc/sys/net/ipv4/neigh", &["default"]),
    ("/proc/sys/net/ipv6/neigh", &["default"]),
];

/// The interfaces of the task's network namespace.
pub struct Interfaces {
    /// The host's files.
    pub host: Arc<dyn Host>,
}

impl Names for Interfaces {
    fn list(&self, tid: u32, directory: &str) -> Vec<String> {
        let Some((_, fixed)) = PER_INTERFACE.iter().find(|(known, _)| *known == directory) else {
            return Vec::new();
        };
        let table = self.host.read(&format!("/proc/{tid}/net/dev")).unwrap_or_default();
        let mut names: Vec<String> = fixed.iter().map(|name| (*name).to_owned()).collect();
        names.extend(interfaces(&String::from_utf8_lossy(&table)));
        names
    }
}

/// The first column of `/proc/net/dev` (proc_pid_net(5)), without the two heading lines.
fn interfaces(table: &str) -> impl Iterator<Item = String> + '_ {
    table.lines().skip(2).filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_names_from_the_table() {
        let table = "Inter-|   Receive\n face |bytes\n    lo: 1 2 3\n  eth0: 4 5\nbr-1:0\n";
        assert_eq!(interfaces(table).collect::<Vec<_>>(), ["lo", "eth0", "br-1"]);
    }
}
