//! /proc/stat and /proc/loadavg (proc_stat(5), proc_loadavg(5)): the host's own where they are good, else
//! computed from the time since the start, so that sums are positive and idle time grows.

use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use crate::emulator::errno::Errno;
use crate::emulator::provider::{Cx, Providers};

pub(super) fn register(providers: &mut Providers) {
    providers.register("stat", "/proc/stat with a line for each CPU and rising idle time", stat);
    providers.register("loadavg", "/proc/loadavg; computed where the host shows only zeros", loadavg);
}

/// Ticks of /proc/stat in a second (sysconf(_SC_CLK_TCK)).
const TICKS: f64 = 100.0;

/// Fields of a cpu line.
const FIELDS: usize = 10;

fn uptime(cx: &Cx<'_>) -> f64 {
    let text = cx.host.read("/proc/uptime").unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    text.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(1.0)
}

fn numbers(line: &str) -> Vec<u64> {
    line.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect()
}

fn stat(cx: &Cx<'_>) -> Result<Bytes, Errno> {
    let host = cx.host.read("/proc/stat").unwrap_or_default();
    let host = String::from_utf8_lossy(&host);
    let is_cpu = |line: &&str| line.starts_with("cpu") && !line.starts_with("cpu ");
    let real: Vec<Vec<u64>> = host.lines().filter(is_cpu).map(numbers).collect();
    let is_good = real.iter().any(|cpu| cpu.iter().sum::<u64>() > 0);
    if is_good && !cx.machine.cpus_given {
        return Ok(host.into_owned().into());
    }
    let cpus: Vec<Vec<u64>> = (0..cx.machine.cpus as usize)
        .map(|cpu| match is_good {
            true => real[cpu % real.len()].clone(),
            false => {
                let ticks = (uptime(cx) * TICKS) as u64;
                // user, nice, system, idle: a machine that has little to do.
                let mut fields =
                    vec![ticks / 50 + 1, 0, ticks / 100 + 1, ticks - ticks / 50 - ticks / 100 + 1];
                fields.resize(FIELDS, 0);
                fields
            }
        })
        .collect();
    let mut text = String::from("cpu ");
    for field in 0..FIELDS {
        let sum: u64 = cpus.iter().map(|cpu| cpu.get(field).copied().unwrap_or(0)).sum();
        let _ = write!(text, " {sum}");
    }
    text.push('\n');
    for (number, cpu) in cpus.iter().enumerate() {
        let _ = write!(text, "cpu{number}");
        for field in 0..FIELDS {
            let _ = write!(text, " {}", cpu.get(field).copied().unwrap_or(0));
        }
        text.push('\n');
    }
    let rest: Vec<&str> = host.lines().filter(|line| !line.starts_with("cpu")).collect();
    if is_good {
        rest.iter().for_each(|line| {
            let _ = writeln!(text, "{line}");
        });
    } else {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let boot = (now - uptime(cx)) as u64;
        let _ = write!(
            text,
            "intr 1 0\nctxt 1\nbtime {boot}\nprocesses 1\nprocs_running 1\nprocs_blocked 0\nsoftirq 1 0 0 0 0 0 0 0 0 0 0\n"
        );
    }
    Ok(text.into())
}

fn loadavg(cx: &Cx<'_>) -> Result<Bytes, Errno> {
    let host = cx.host.read("/proc/loadavg").unwrap_or_default();
    let text = String::from_utf8_lossy(&host);
    let has_processes = text.split_whitespace().nth(4).is_some_and(|last| last != "0");
    if has_processes { Ok(host.into()) } else { Ok("0.01 0.02 0.00 1/2 1\n".into()) }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{FakeHost, show};

    fn sum(text: &str) -> u64 {
        super::numbers(text.lines().next().expect("line")).iter().sum()
    }

    #[test]
    fn zeros_are_replaced_and_cpus_counted() {
        let zeros = FakeHost(
            [
                ("/proc/stat", "cpu  0 0 0 0 0 0 0 0 0 0\ncpu0 0 0 0 0 0 0 0 0 0 0\nbtime 0\n"),
                ("/proc/uptime", "100.5 0.0\n"),
            ]
            .into(),
        );
        let good = FakeHost([("/proc/stat", "cpu  5 0 0 9\ncpu0 5 0 0 9\nintr 3\nbtime 77\n")].into());
        for host in [zeros, good, FakeHost::default()] {
            let text = show(&host, "stat", "/proc/stat").expect("shown");
            assert!(sum(&text) > 0, "{text}");
            assert_eq!(
                text.lines().filter(|line| line.starts_with("cpu") && !line.starts_with("cpu ")).count(),
                3
            );
            assert!(text.contains("\nbtime "));
        }
    }

    #[test]
    fn load_of_zeros_is_replaced() {
        let zeros = FakeHost([("/proc/loadavg", "0.00 0.00 0.00 0/0 0\n")].into());
        assert_eq!(show(&zeros, "loadavg", "/x").as_deref(), Ok("0.01 0.02 0.00 1/2 1\n"));
        let good = FakeHost([("/proc/loadavg", "1.00 0.00 0.00 1/5 77\n")].into());
        assert_eq!(show(&good, "loadavg", "/x").as_deref(), Ok("1.00 0.00 0.00 1/5 77\n"));
    }
}
