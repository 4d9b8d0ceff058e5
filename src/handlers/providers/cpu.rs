//! CPUs: /proc/cpuinfo, lists and masks of sysfs (Documentation/ABI/stable/sysfs-devices-system-cpu).

use bytes::Bytes;

use crate::emulator::errno::Errno;
use crate::emulator::provider::{Cx, Providers};

pub(super) fn register(providers: &mut Providers) {
    providers.register("cpuinfo", "/proc/cpuinfo with one block for each CPU", cpuinfo);
    providers.register("cpu-list", "all CPUs as a list, such as 0-3", |cx| Ok(list(cx.machine.cpus)));
    providers.register("cpu-offline", "CPUs beyond those of the machine: none", |_| Ok("\n".into()));
    providers.register("cpu-kernel-max", "largest CPU number that the kernel could use", kernel_max);
    providers.register("cpu-mask", "all CPUs as a hexadecimal mask", |cx| {
        Ok(mask(cx.machine.cpus, 0..cx.machine.cpus))
    });
    providers.register("cpu-own-mask", "the CPU that the path names, as a hexadecimal mask", |cx| {
        let cpu = cpu_of(cx.path).ok_or(Errno::EIO)?;
        Ok(mask(cx.machine.cpus, cpu..cpu + 1))
    });
}

fn list(cpus: u32) -> Bytes {
    match cpus {
        1 => "0\n".into(),
        cpus => format!("0-{}\n", cpus - 1).into(),
    }
}

/// A bitmap as the kernel prints it: words of 32 bits, most significant first; the first word has as many
/// digits as its bits need.
fn mask(cpus: u32, set: std::ops::Range<u32>) -> Bytes {
    let words = cpus.div_ceil(32);
    let mut text = String::new();
    for word in (0..words).rev() {
        let bits =
            (0..32).filter(|bit| set.contains(&(word * 32 + bit))).fold(0u32, |bits, bit| bits | 1 << bit);
        let digits = if word == words - 1 { (cpus - word * 32).div_ceil(4) as usize } else { 8 };
        text.push_str(&format!("{bits:0digits$x}"));
        text.push(if word == 0 { '\n' } else { ',' });
    }
    text.into()
}

/// The number in the last `cpuN` component of a path.
fn cpu_of(path: &str) -> Option<u32> {
    path.split('/').rev().find_map(|name| name.strip_prefix("cpu")?.parse().ok())
}

fn kernel_max(cx: &Cx<'_>) -> Result<Bytes, Errno> {
    let host = cx.host.read("/sys/devices/system/cpu/kernel_max").ok();
    let host: Option<u32> = host.and_then(|text| String::from_utf8(text).ok()?.trim().parse().ok());
    Ok(format!("{}\n", host.unwrap_or(63).max(cx.machine.cpus - 1)).into())
}

/// The host's blocks, repeated and renumbered as often as needed.
fn cpuinfo(cx: &Cx<'_>) -> Result<Bytes, Errno> {
    let host = cx.host.read("/proc/cpuinfo").unwrap_or_default();
    let host = String::from_utf8_lossy(&host);
    let blocks: Vec<&str> = host.split("\n\n").filter(|block| block.contains("processor")).collect();
    let cpus = cx.machine.cpus;
    let mut text = String::new();
    for cpu in 0..cpus {
        let template = match blocks.is_empty() {
            true => SYNTHETIC,
            false => blocks[cpu as usize % blocks.len()],
        };
        for line in template.trim_matches('\n').lines() {
            let key = line.split(':').next().unwrap_or("").trim_end();
            match key {
                "processor" | "core id" | "apicid" | "initial apicid" => push(&mut text, line, cpu),
                "siblings" | "cpu cores" => push(&mut text, line, cpus),
                "physical id" => push(&mut text, line, 0),
                _ => text.push_str(line),
            }
            text.push('\n');
        }
        text.push('\n');
    }
    Ok(text.into())
}

/// The line with another value.
fn push(text: &mut String, line: &str, value: u32) {
    let colon = line.find(':').map_or(line.len(), |at| at + 1);
    text.push_str(&line[..colon]);
    text.push_str(&format!(" {value}"));
}

/// What is shown where the host shows nothing.
const SYNTHETIC: &str = "\
processor\t: 0
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 85
model name\t: sysemu vCPU
stepping\t: 7
cpu MHz\t\t: 2400.000
cache size\t: 16384 KB
physical id\t: 0
siblings\t: 1
core id\t\t: 0
cpu cores\t: 1
apicid\t\t: 0
initial apicid\t: 0
fpu\t\t: yes
fpu_exception\t: yes
cpuid level\t: 13
wp\t\t: yes
flags\t\t: fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 ht syscall nx lm constant_tsc rep_good nopl xtopology cpuid pni ssse3 cx16 sse4_1 sse4_2 popcnt lahf_lm
bogomips\t: 4800.00
clflush size\t: 64
cache_alignment\t: 64
address sizes\t: 46 bits physical, 48 bits virtual
";

#[cfg(test)]
mod tests {
    use super::super::testing::{FakeHost, show};
    use super::*;

    #[test]
    fn masks_are_printed_as_the_kernel_does() {
        for (cpus, set, text) in [
            (1, 0..1, "1\n"),
            (2, 0..2, "3\n"),
            (2, 1..2, "2\n"),
            (8, 0..8, "ff\n"),
            (33, 0..33, "1,ffffffff\n"),
            (40, 3..4, "00,00000008\n"),
        ] {
            assert_eq!(mask(cpus, set.clone()), Bytes::from(text), "{cpus} {set:?}");
        }
        assert_eq!(cpu_of("/sys/devices/system/cpu/cpu12/topology/core_cpus"), Some(12));
    }

    #[test]
    fn cpuinfo_has_a_block_for_each_cpu_on_any_host() {
        let host = FakeHost(
            [(
                "/proc/cpuinfo",
                "processor\t: 0\ncore id\t\t: 5\nmodel name\t: X\n\nprocessor\t: 1\nmodel name\t: X\n\n",
            )]
            .into(),
        );
        for host in [host, FakeHost::default()] {
            let text = show(&host, "cpuinfo", "/proc/cpuinfo").expect("shown");
            let processors: Vec<&str> = text.lines().filter(|line| line.starts_with("processor")).collect();
            assert_eq!(processors, ["processor\t: 0", "processor\t: 1", "processor\t: 2"]);
            assert!(text.ends_with("\n\n"));
        }
    }

    #[test]
    fn lists_name_the_last_cpu() {
        assert_eq!(show(&FakeHost::default(), "cpu-list", "/x").as_deref(), Ok("0-2\n"));
        assert_eq!(list(1), Bytes::from("0\n"));
    }
}
