//! What the policy `gvisor` makes of a sandbox, for programs and inside containers.

use std::collections::BTreeSet;

use libtest_mimic::Trial;
use toml::Value;

use crate::common::gvisor::{Sandbox, Setup, Version};
use crate::{trial, versions};

pub fn cases() -> Vec<Trial> {
    let mut trials = versions("machine", machine);
    trials.extend(versions("catalogue", catalogue));
    trials.extend(versions("capabilities", capabilities));
    trials.extend(versions("file_system_types", file_system_types));
    trials.extend(versions("mounts_inside_procfs", mounts_inside_procfs));
    trials.extend(versions("runc", runc));
    trials.push(trial("daemons".to_owned(), daemons));
    trials
}

/// A script under the policy `gvisor` and more options.
fn wrapped(setup: Setup, options: &[&str], script: &str) -> Sandbox {
    let words = [&["sysemu", "--no-auto", "-p", "gvisor"], options, &["--", "bash", "-c", script]].concat();
    Sandbox::new(setup).with("fixtures/policies/machine.toml").command(&words).limit(180)
}

#[track_caller]
fn shows(sandbox: &Sandbox, wanted: &str) {
    let outcome = sandbox.go();
    assert_eq!((outcome.stdout.as_str(), outcome.status), (wanted, 0), "{}", outcome.stderr);
}

/// A machine of four CPUs and 3 GiB.
fn machine(setup: Setup) {
    let script = "nproc; lscpu | grep -E '^CPU.s.|^On-line|^L1d|^NUMA' | tr -s ' '
free -b | awk '/^Mem/ {print $2}'; vmstat | tail -n 1 | wc -w
node -p 'o = require(\"os\"); [o.release(), o.totalmem(), o.cpus().length].join()'
python3 -c 'import os; print(os.cpu_count(), os.uname().release)'; numactl -H | sed -n 1,2p
lstopo-no-graphics --of console | head -n 1; lstopo-no-graphics --of console | grep -c PU
top -bn1 | head -n 1 | cut -c 1-3; busybox ls /proc/sys/kernel | grep -cx osrelease; cat /proc/sys/kernel/osrelease";
    let wanted = "4\nCPU(s): 4\nOn-line CPU(s) list: 0-3\nL1d cache: 128 KiB (4 instances)\nNUMA node(s): 1\n\
                  NUMA node0 CPU(s): 0-3\n3221225472\n17\n5.15.0,3221225472,4\n4 5.15.0\navailable: 1 nodes (0)\n\
                  node 0 cpus: 0 1 2 3\nMachine (3072MB total) + Package L#0\n4\ntop\n1\n5.15.0\n";
    shows(&wrapped(setup, &["-p", "./machine.toml", "--uname-release", "5.15.0"], script), wanted);
}

/// sysctl(8) lists every key of the catalogue that can be read, and complains of nothing.
fn catalogue(setup: Setup) {
    let outcome = wrapped(setup, &[], "sysctl -a").go();
    assert_eq!((outcome.stderr.as_str(), outcome.status), ("", 0));
    let listed: BTreeSet<&str> =
        outcome.stdout.lines().filter_map(|line| line.split_once(" = ")).map(|(key, _)| key).collect();
    let keys = catalogue_keys();
    assert!(keys.len() > 500, "{}", keys.len());
    let missing = keys.iter().filter(|key| !listed.contains(key.as_str()));
    let missing: Vec<String> = missing.map(|key| format!("/proc/sys/{}", key.replace('.', "/"))).collect();
    // What gVisor itself has empty has no line to print.
    let words: Vec<&str> = ["wc", "-c"].into_iter().chain(missing.iter().map(String::as_str)).collect();
    let sizes = Sandbox::new(setup).command(&words).go();
    assert!(
        missing.len() <= 3 && sizes.good().lines().all(|line| line.trim().starts_with("0 ")),
        "{missing:?}"
    );
}

/// The keys of single files of the policies `linux` and `gvisor` that their owner can read.
fn catalogue_keys() -> Vec<String> {
    let policies = [include_str!("../../policies/linux.toml"), include_str!("../../policies/gvisor.toml")];
    let mut keys = Vec::new();
    for text in policies {
        let policy: toml::Table = toml::from_str(text).expect("a policy");
        let rows = policy.get("sysctl").and_then(Value::as_array).into_iter().flatten();
        keys.extend(rows.filter_map(|row| {
            let text = |name| row.get(name).and_then(Value::as_str);
            let mode = u32::from_str_radix(text("mode").unwrap_or("0644"), 8).expect("octal");
            let key = text("key").expect("it is required");
            (mode & 0o400 != 0 && !key.contains('*')).then(|| key.to_owned())
        }));
    }
    keys
}

/// The last capability is the one that prctl(2) knows there, and the tools that read it agree.
fn capabilities(setup: Setup) {
    let script = "cat /proc/sys/kernel/cap_last_cap; setpriv --list-caps | tail -n 1; setpriv --dump 2>/dev/null | head -n 1
capsh --print | head -n 1 | cut -c 1-9; setpriv --bounding-set=-sys_admin true && echo dropped
python3 -c 'import ctypes; p = ctypes.CDLL(None).prctl; print(max(n for n in range(64) if p(23, n) >= 0))'";
    let (last, name) = match setup.version {
        Version::V2022 => (37, "audit_read"),
        Version::V2024 | Version::V2026 => (40, "checkpoint_restore"),
    };
    let wanted = format!("{last}\n{name}\nuid: 0\nCurrent: \ndropped\n{last}\n");
    shows(&wrapped(setup, &[], script), &wanted);
}

/// Most of gVisor's procfs had no answer to statfs(2) in 2022.
fn file_system_types(setup: Setup) {
    let script = "for path in /proc /proc/sys /proc/sys/kernel/panic /proc/sys/net/core /proc/self /proc/cpuinfo /proc/stat \
/sys /sys/module/overlay /sys/devices/system/node; do stat -f -c '%n %T' $path; done";
    let wanted = "/proc proc\n/proc/sys proc\n/proc/sys/kernel/panic proc\n/proc/sys/net/core proc\n/proc/self proc\n\
                  /proc/cpuinfo proc\n/proc/stat proc\n/sys sysfs\n/sys/module/overlay sysfs\n\
                  /sys/devices/system/node sysfs\n";
    shows(&wrapped(setup, &[], script), wanted);
}

/// Directories of a procfs mounted over themselves, as containers have them: statx(2) tells no mounts there, and all are
/// on one device.
fn mounts_inside_procfs(setup: Setup) {
    let script = "cd /tmp; mkdir -p r/proc r/bin; cp /bin/busybox r/bin; unshare -m --propagation unchanged bash -ec '
look() { \"$@\" /bin/busybox cat /proc/sys/kernel/osrelease /proc/sys/vm/swappiness; }
mount --bind /proc/sys /proc/sys; look env; mount -t proc none r/proc; look chroot r
for d in sys/net self sys; do mount --bind r/proc/$d r/proc/$d; done; look chroot r; cd r/proc/sys/vm; cat swappiness ../kernel/osrelease'";
    let wanted = "5.15.0\n60\n5.15.0\n60\n5.15.0\n60\n60\n5.15.0\n";
    shows(&wrapped(setup, &["--uname-release", "5.15.0"], script), wanted);
}

/// Mounts the controllers that runc asks for, as the sandbox does not.
pub const CGROUPS: &str = "mount -t tmpfs none /sys/fs/cgroup
for c in cpu cpuacct cpuset devices memory pids; do mkdir /sys/fs/cgroup/$c; mount -t cgroup -o $c none /sys/fs/cgroup/$c; done
mkdir /sys/fs/cgroup/systemd; mount -t cgroup -o none,name=systemd none /sys/fs/cgroup/systemd; cd /tmp";

/// Debian's runc with its default bundle. In 2022 gVisor had no devices controller, without which runc starts nothing.
fn runc(setup: Setup) {
    let script = format!(
        "{CGROUPS}
runc --version | head -n 1 | cut -c 1-12; mkdir -p b/rootfs/bin; cp /bin/busybox b/rootfs/bin/; cd b; runc spec; echo spec $?
python3 - <<'E'
import json
spec = json.load(open('config.json'))
look = 'cat /proc/sys/kernel/osrelease /proc/sys/vm/swappiness; cd /proc/sys/kernel; cat pid_max; test -r /proc/sys/fs/file-max; echo $?'
spec['process'].update(terminal=False, args=['/bin/busybox', 'sh', '-c', 'PATH=/bin; busybox uname -r; ' + look.replace('cat', '/bin/busybox cat')])
json.dump(spec, open('config.json', 'w'))
E
runc run one; echo run $?"
    );
    let options = ["--uname-release", "5.15.0", "--set", "kernel.pid_max=77777"];
    let outcome = wrapped(setup, &options, &script).go();
    let begin = "runc version\nspec 0\n";
    if setup.version != Version::V2022 {
        assert_eq!(
            outcome.stdout,
            format!("{begin}5.15.0\n5.15.0\n60\n77777\n0\nrun 0\n"),
            "{}",
            outcome.stderr
        );
        return;
    }
    assert_eq!(outcome.stdout, format!("{begin}run 1\n"), "{}", outcome.stderr);
    for stderr in [outcome.stderr, Sandbox::new(setup).command(&["bash", "-c", &script]).go().stderr] {
        assert!(stderr.contains("mount: /sys/fs/cgroup/devices: "), "{stderr}");
        assert!(stderr.contains("mountpoint for devices not found"), "{stderr}");
    }
}

/// containerd and dockerd start and say what the policies do. The older gVisor has no controllers for them, see `runc`.
fn daemons() {
    let setup = Setup::NEWEST;
    let script = format!(
        "{CGROUPS}
mount -t tmpfs none /run; mkdir -p /var/lib/own; mount -t tmpfs none /var/lib/own
printf 'version = 2\\nroot = \"/var/lib/own/c\"\\nstate = \"/run/c\"\\n[grpc]\\naddress = \"/run/c.sock\"\\n' >c.toml
containerd -c c.toml >c.log 2>&1 & c=$!
for i in $(seq 200); do [ -S /run/c.sock ] && break; sleep 0.1; done
ctr -a /run/c.sock version | grep -c Version: || tail c.log >&2
ctr -a /run/c.sock plugins ls | grep -E 'io.containerd.grpc.v1 +cri ' | grep -o 'ok *$' | tr -d ' '
dockerd --data-root /var/lib/own/d --exec-root /run/e --pidfile /run/d.pid -H unix:///run/d.sock --containerd /run/c.sock \
    --storage-driver vfs --iptables=false --ip6tables=false --bridge=none >d.log 2>&1 & d=$!
for i in $(seq 200); do [ -S /run/d.sock ] && docker -H unix:///run/d.sock info >/dev/null 2>&1 && break; sleep 0.1; done
docker -H unix:///run/d.sock info -f '{{{{.KernelVersion}}}} {{{{.NCPU}}}} {{{{.MemTotal}}}} {{{{.CgroupVersion}}}} {{{{.Driver}}}}' || tail d.log >&2
kill $d; wait $d; kill $c; wait $c; echo over"
    );
    let options = ["-p", "containerd", "-p", "./machine.toml", "--uname-release", "5.15.0"];
    shows(&wrapped(setup, &options, &script), "2\nok\n5.15.0 4 3221225472 1 vfs\nover\n");
}
