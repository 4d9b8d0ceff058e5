//! Stock runc with containers that set the two sysctls of pods, for tests on Linux and inside gVisor.

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use super::gvisor::script;
use super::text_of;

/// Which runc.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runc {
    /// Debian 12's own, which writes `/proc/sys/...` by its path.
    Own,
    /// That of a newer Debian, which `scripts/runc-deps` unpacks into a root directory of its own: it writes through a
    /// procfs that it checks first, mounted nowhere where that can be had, and `thread-self/fd`.
    Newer,
    /// Built by `scripts/runc-newest` from its module; not to be had on every machine.
    Newest,
}

impl Runc {
    /// Those that every machine has to have.
    pub const DEBIAN: [Runc; 2] = [Runc::Own, Runc::Newer];

    /// Whether it can be had here: fetches or builds it when that was not done before.
    ///
    /// # Errors
    /// What the machine lacks, as the reason of a skip.
    pub fn ready(self) -> Result<(), String> {
        static NEWER: OnceLock<Result<(), String>> = OnceLock::new();
        static NEWEST: OnceLock<Result<(), String>> = OnceLock::new();
        match self {
            Runc::Own => match Command::new("runc").arg("--version").output() {
                Ok(_) => Ok(()),
                Err(error) => Err(format!("runc: {error}")),
            },
            Runc::Newer => NEWER.get_or_init(|| script("runc-deps")).clone(),
            Runc::Newest => NEWEST.get_or_init(|| script("runc-newest")).clone(),
        }
    }

    /// The begin of the first line of `runc --version`.
    pub fn version(self) -> &'static str {
        match self {
            Runc::Own => "runc version 1.1.",
            Runc::Newer => "runc version 1.3.",
            Runc::Newest => "runc version 1.5.",
        }
    }

    /// A script for bash, to be run as root in a mount namespace of its own.
    ///
    /// In `script`, `bundle NAME COMMAND [KEY=VALUE]...` makes a container that runs a command of busybox's shell and sets
    /// sysctls; `run NAME` runs it. `change`, in Python, does more to its configuration, which is called `spec`.
    pub fn script(self, change: &str, script: &str) -> String {
        let folder = text_of(&Path::new(env!("CARGO_MANIFEST_DIR")).join("target/runc"));
        let place = match self {
            Runc::Own => "root= program=runc".to_owned(),
            Runc::Newer => format!("root={folder}/forky program=/usr/sbin/runc"),
            Runc::Newest => format!("root= program={folder}/1.5.3/runc"),
        };
        format!("set -e\n{place}\n{}\nset +e\n{script}", PREPARE.replace("CHANGE", change))
    }
}

/// For bash. Bundles are in `$bundles`, which runc sees from its own root directory: this machine's, or `$root`.
const PREPARE: &str = r#"
bundles=$root/bundle
if [ -n "$root" ]; then
    mount --bind "$root" "$root"
    mount -t proc proc "$root/proc"
    mount --rbind /sys "$root/sys"
    mount --rbind /dev "$root/dev"
    mount -t tmpfs none "$root/run"
    mount -t tmpfs none "$bundles"
else
    mount -t tmpfs none /run
    bundles=/run/bundle
    mkdir "$bundles"
fi
runc() {
    if [ -n "$root" ]; then chroot "$root" "$program" "$@"; else command "$program" "$@"; fi
}
bundle() {
    mkdir -p "$bundles/$1/rootfs/bin"
    cp /bin/busybox "$bundles/$1/rootfs/bin/"
    runc spec -b "${bundles#"$root"}/$1"
    python3 -c '
import json, sys
path, command, *sysctls = sys.argv[1:]
spec = json.load(open(path))
spec["process"].update(terminal=False, args=["/bin/busybox", "sh", "-c", command])
spec["linux"]["sysctl"] = dict(text.split("=") for text in sysctls)
CHANGE
json.dump(spec, open(path, "w"))' "$bundles/$1/config.json" "$2" "${@:3}"
}
run() {
    # The name is that of a control group of the machine, too.
    runc run -b "${bundles#"$root"}/$1" "sysemu-test-$1-$$"
}
"#;

/// Two containers at the same time, one with values of its own. Prints the version, what both see, and what is outside.
pub const TWO_CONTAINERS: &str = r#"
runc --version | head -n 1
look='cd /proc/sys/net/ipv4; /bin/busybox cat ip_unprivileged_port_start ping_group_range'
bundle own "$look; read line; $look; echo over" net.ipv4.ip_unprivileged_port_start=80 "net.ipv4.ping_group_range=0 2147483647"
bundle other "$look"
mkfifo $bundles/go
run own <$bundles/go >$bundles/out & exec 3>$bundles/go
for i in $(seq 300); do [ "$(wc -l <$bundles/out)" = 2 ] && break; sleep 0.1; done
echo the other; run other; echo outside; cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/net/ipv4/ping_group_range
echo >&3; wait $!; echo "status $?"; cat $bundles/out
"#;

/// What [`TWO_CONTAINERS`] prints after the version, where the port is this one by default.
pub fn two_containers(port: &str) -> String {
    let (default, own) = (format!("{port}\n1\t0\n"), "80\n0\t2147483647\n");
    format!("the other\n{default}outside\n{default}status 0\n{own}{own}over\n")
}

/// A container with a value that is out of range, and one after it.
pub const BAD_VALUE: &str = r#"
bundle bad 'echo it runs' net.ipv4.ip_unprivileged_port_start=65536; run bad; echo "status $?"
bundle good '/bin/busybox cat /proc/sys/net/ipv4/ip_unprivileged_port_start'; run good; echo "status $?"
"#;
