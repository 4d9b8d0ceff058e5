//! What is run as a load, or read by one, on bare Linux and inside gVisor alike.

/// Options for `load` and `opens`: the file and the release that they look at.
pub const OPTIONS: &[&str] = &["--set", "vm.swappiness=7", "--uname-release", "5.15.0-load"];

/// The arguments of the guest `load` that say what is right under [`OPTIONS`].
pub const LOAD: &[&str] = &["/proc/sys/vm/swappiness", "7", "5.15.0-load"];

/// The arguments of the guest `opens` that say what is right under [`OPTIONS`].
pub const OPENS: &[&str] = &["/proc/sys/vm/swappiness", "7", "/etc/passwd"];

/// What the guest `kubelet` prints under the policy `k3s`.
pub const KUBELET: &str = "\
vm/overcommit_memory 1 <nil> <nil> true
vm/panic_on_oom 0 <nil> <nil> true
kernel/panic 10 <nil> <nil> true
kernel/panic_on_oops 1 <nil> <nil> true
kernel/keys/root_maxkeys 1000000 <nil> <nil> true
kernel/keys/root_maxbytes 25000000 <nil> <nil> true
/dev/kmsg <nil>
closed <nil>
/proc/swaps <nil> 1 [Filename Type Size Used Priority]
/sys/module/overlay <nil> true
/sys/module/nf_conntrack <nil> true
/sys/module/br_netfilter <nil> true
/sys/module/iptable_nat <nil> true
/sys/module/iptable_filter <nil> true
stat /sys/module/none: no such file or directory true
/sys/module <nil> 5
/proc/version <nil> Linux version 4.19.0
uname <nil> Linux 4.19.0 x86_64
";

/// How often the load is run: fifty times with `SYSEMU_LONG=1`.
pub fn rounds(short: usize) -> usize {
    if super::is_long() { 50 } else { short }
}

/// Checks what `load` printed: that no result was wrong, and that all parts of it were there in each round.
#[track_caller]
pub fn assert_loaded(printed: &str, rounds: usize) {
    assert_eq!(printed.lines().count(), rounds, "{printed}");
    for line in printed.lines() {
        let numbers: Vec<u32> =
            line.split(' ').skip(1).step_by(2).map(|word| word.parse().expect("a number")).collect();
        let [looks, children, signals, errors] = numbers[..] else { panic!("{printed}") };
        assert!(looks >= 16 * 63 && signals >= 5, "{printed}");
        assert_eq!((children, errors), (48, 0), "{printed}");
    }
}
