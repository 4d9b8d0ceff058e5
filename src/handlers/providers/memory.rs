//! Memory: /proc/meminfo, the node's meminfo, /proc/vmstat (proc_meminfo(5), proc_vmstat(5)).

use std::fmt::Write;

use bytes::Bytes;

use crate::emulator::errno::Errno;
use crate::emulator::provider::{Cx, Providers};

pub(super) fn register(providers: &mut Providers) {
    providers.register("meminfo", "/proc/meminfo, agreeing with the machine's memory", meminfo);
    providers.register("node-meminfo", "meminfo of memory node 0", node_meminfo);
    providers.register("vmstat", "/proc/vmstat, agreeing with meminfo", vmstat);
    providers.register("swaps", "/proc/swaps: the heading alone", |_| {
        Ok("Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n".into())
    });
}

/// Fields that a host without /proc/meminfo is given, in KiB and per mille of the whole.
const SYNTHETIC: [(&str, u64); 14] = [
    ("MemTotal", 1000),
    ("MemFree", 600),
    ("MemAvailable", 800),
    ("Buffers", 10),
    ("Cached", 200),
    ("SwapCached", 0),
    ("Active", 150),
    ("Inactive", 150),
    ("SwapTotal", 0),
    ("SwapFree", 0),
    ("Dirty", 0),
    ("Shmem", 5),
    ("Slab", 20),
    ("CommitLimit", 500),
];

/// Fields that are not amounts of the machine's memory and so keep the host's numbers.
const UNSCALED: [&str; 4] = ["VmallocTotal", "VmallocUsed", "VmallocChunk", "Hugepagesize"];

/// One field: its name, the amount, and whether it is in KiB (and not a count).
type Field = (String, u64, bool);

fn fields(cx: &Cx<'_>) -> Vec<Field> {
    let total = cx.machine.memory / 1024;
    let host = cx.host.read("/proc/meminfo").unwrap_or_default();
    let host = String::from_utf8_lossy(&host);
    let parse = |line: &str| -> Option<Field> {
        let (name, rest) = line.split_once(':')?;
        let rest = rest.trim();
        let (number, is_amount) = match rest.strip_suffix(" kB") {
            Some(number) => (number, true),
            None => (rest, false),
        };
        Some((name.to_owned(), number.trim().parse().ok()?, is_amount))
    };
    let parsed: Vec<Field> = host.lines().filter_map(parse).collect();
    let host_total = parsed.iter().find(|(name, ..)| name == "MemTotal").map_or(0, |(_, amount, _)| *amount);
    if host_total == 0 {
        return SYNTHETIC
            .iter()
            .map(|(name, share)| ((*name).to_owned(), total / 1000 * share, true))
            .map(exact(total))
            .collect();
    }
    if !cx.machine.memory_given {
        return parsed;
    }
    // Everything in proportion keeps every relation between fields.
    let scale = |amount: u64| {
        u64::try_from(u128::from(amount) * u128::from(total) / u128::from(host_total)).unwrap_or(total)
    };
    let scaled = parsed.into_iter().map(|(name, amount, is_amount)| {
        let keeps = !is_amount || UNSCALED.contains(&name.as_str()) || name.starts_with("DirectMap");
        let amount = if keeps { amount } else { scale(amount) };
        (name, amount, is_amount)
    });
    scaled.map(exact(total)).collect()
}

/// The total is exact, whatever rounding did.
fn exact(total: u64) -> impl Fn(Field) -> Field {
    move |(name, amount, is_amount)| {
        let amount = if name == "MemTotal" { total } else { amount };
        (name, amount, is_amount)
    }
}

fn meminfo(cx: &Cx<'_>) -> Result<Bytes, Errno> {
    let mut text = String::new();
    for (name, amount, is_amount) in fields(cx) {
        let unit = if is_amount { " kB" } else { "" };
        let _ = writeln!(text, "{:<16}{amount:>8}{unit}", format!("{name}:"));
    }
    Ok(text.into())
}

/// Fields of a node's meminfo that /proc/meminfo has too.
const NODE: [&str; 17] = [
    "MemTotal",
    "MemFree",
    "MemUsed",
    "SwapCached",
    "Active",
    "Inactive",
    "Active(anon)",
    "Inactive(anon)",
    "Active(file)",
    "Inactive(file)",
    "Unevictable",
    "Mlocked",
    "Dirty",
    "Writeback",
    "Shmem",
    "Slab",
    "HugePages_Total",
];

fn node_meminfo(cx: &Cx<'_>) -> Result<Bytes, Errno> {
    let all = fields(cx);
    let amount = |wanted: &str| all.iter().find(|(name, ..)| name == wanted).map(|(_, amount, _)| *amount);
    let mut text = String::new();
    for name in NODE {
        let value = match name {
            "MemUsed" => {
                amount("MemTotal").zip(amount("MemFree")).map(|(total, free)| total.saturating_sub(free))
            }
            name => amount(name),
        };
        let unit = if name.starts_with("HugePages") { "" } else { " kB" };
        if let Some(value) = value {
            let _ = writeln!(text, "Node 0 {:<16}{value:>8}{unit}", format!("{name}:"));
        }
    }
    Ok(text.into())
}

/// Counters that programs look for, in pages, from fields in KiB.
const PAGES: [(&str, &str); 8] = [
    ("nr_free_pages", "MemFree"),
    ("nr_inactive_anon", "Inactive(anon)"),
    ("nr_active_anon", "Active(anon)"),
    ("nr_inactive_file", "Inactive(file)"),
    ("nr_active_file", "Active(file)"),
    ("nr_file_pages", "Cached"),
    ("nr_dirty", "Dirty"),
    ("nr_shmem", "Shmem"),
];

fn vmstat(cx: &Cx<'_>) -> Result<Bytes, Errno> {
    let all = fields(cx);
    let pages = |field: &str| all.iter().find(|(name, ..)| name == field).map_or(0, |(_, kib, _)| kib / 4);
    let host = cx.host.read("/proc/vmstat").unwrap_or_default();
    let host = String::from_utf8_lossy(&host);
    let mut text = String::new();
    for (counter, field) in PAGES {
        let _ = writeln!(text, "{counter} {}", pages(field));
    }
    let known = |name: &str| PAGES.iter().any(|(counter, _)| *counter == name);
    let rest: Vec<&str> =
        host.lines().filter(|line| line.split(' ').next().is_some_and(|name| !known(name))).collect();
    if rest.is_empty() {
        for name in
            ["pgpgin", "pgpgout", "pswpin", "pswpout", "pgalloc_normal", "pgfree", "pgfault", "pgmajfault"]
        {
            let _ = writeln!(text, "{name} 0");
        }
    }
    for line in rest {
        let _ = writeln!(text, "{line}");
    }
    Ok(text.into())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{FakeHost, show};

    fn amount(text: &str, field: &str) -> u64 {
        let line = text.lines().find(|line| line.starts_with(&format!("{field}:"))).expect(field);
        line.split_whitespace().nth(1).expect("number").parse().expect("number")
    }

    #[test]
    fn total_is_the_machines_and_relations_hold() {
        let host = FakeHost(
            [("/proc/meminfo", "MemTotal:       16000000 kB\nMemFree:        8000000 kB\nMemAvailable:   12000000 kB\nHugePages_Total:       3\nVmallocTotal:   34359738367 kB\n")].into(),
        );
        for host in [host, FakeHost::default()] {
            let text = show(&host, "meminfo", "/proc/meminfo").expect("shown");
            assert_eq!(amount(&text, "MemTotal"), 512 * 1024);
            assert!(amount(&text, "MemFree") <= amount(&text, "MemAvailable"));
            assert!(amount(&text, "MemAvailable") <= amount(&text, "MemTotal"));
            let node = show(&host, "node-meminfo", "/x").expect("shown");
            assert!(node.contains("Node 0 MemTotal:         524288 kB"), "{node}");
        }
    }

    #[test]
    fn counts_and_address_space_are_not_scaled() {
        let host = FakeHost(
            [("/proc/meminfo", "MemTotal: 100 kB\nHugePages_Total:       3\nVmallocTotal: 7 kB\n")].into(),
        );
        let text = show(&host, "meminfo", "/proc/meminfo").expect("shown");
        assert_eq!((amount(&text, "HugePages_Total"), amount(&text, "VmallocTotal")), (3, 7));
    }
}
