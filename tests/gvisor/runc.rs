//! Stock runc sets sysctls of containers that gVisor does not have, through the hardened walk of its newer versions too.
//! `tests/runc.rs` does the same on Linux.
//!
//! Not in gVisor of 2022, where runc starts no container: it had no devices controller (`policies::runc`).

use libtest_mimic::Trial;

use crate::common::gvisor::{Sandbox, Setup, Version};
use crate::common::runc::{BAD_VALUE, Runc, TWO_CONTAINERS, two_containers};
use crate::common::{Outcome, skip};
use crate::policies::CGROUPS;
use crate::{trial, versions};

pub fn cases() -> Vec<Trial> {
    let mut trials = versions("root_of_procfs", root_of_procfs);
    for setup in Setup::versions().into_iter().filter(|setup| setup.version != Version::V2022) {
        for runc in Runc::ALL {
            let name = format!("runc_sysctls::{runc:?}::{}", setup.name()).to_lowercase();
            trials.push(trial(name.clone(), move || match runc.ready() {
                Ok(()) => sysctls(setup, runc),
                Err(reason) => skip(&name, &reason),
            }));
        }
    }
    trials
}

fn wrapped(setup: Setup, script: &str) -> Outcome {
    let words = ["sysemu", "--no-auto", "-p", "gvisor", "--", "bash", "-c", script];
    Sandbox::new(setup).command(&words).limit(120).go()
}

/// gVisor's tmpfs does not know the options with which runc hides directories.
const UNMASKED: &str = "spec[\"linux\"][\"maskedPaths\"] = []";

fn sysctls(setup: Setup, runc: Runc) {
    let script = format!("{CGROUPS}\n{}", runc.script(UNMASKED, &format!("{TWO_CONTAINERS}{BAD_VALUE}")));
    let outcome = wrapped(setup, &script);
    let wanted = format!("{}status 1\n1024\nstatus 0\n", two_containers("1024"));
    let rest = outcome.stdout.split_once('\n').map(|(_, rest)| rest);
    assert_eq!(rest, Some(wanted.as_str()), "{}", outcome.stderr);
    assert!(outcome.stdout.starts_with(runc.version()), "{}", outcome.stdout);
    assert!(outcome.stderr.contains("invalid argument"), "{}", outcome.stderr);
    // What the policy is for: the files are not there otherwise.
    let bare = Sandbox::new(setup).command(&["cat", "/proc/sys/net/ipv4/ping_group_range"]).go();
    assert_eq!(bare.status, 1, "{bare:?}");
}

/// Prints what each call tells of the root directories of procfs, by path and by descriptor, and whether anything else
/// has that number. The last buffer of a call is where its result goes.
const INODES: &str = r#"
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
stat, fstat, lstat, newfstatat, statx, at_fdcwd, empty, basic = 4, 5, 6, 262, 332, -100, 0x1000, 0x7ff
def inode(call, *args):
    buf = (ctypes.c_uint64 * 32)()
    args = [buf if arg is None else arg for arg in args]
    if libc.syscall(call, *args) != 0:
        return os.strerror(ctypes.get_errno())
    return buf[4] if call == statx else buf[1]
def every_way(path):
    fd = os.open(path, os.O_PATH)
    name = path.encode()
    found = [inode(stat, name, None), inode(lstat, name, None) if path[-1] != '.' else inode(stat, name, None)]
    found += [inode(newfstatat, at_fdcwd, name, None, 0), inode(statx, at_fdcwd, name, 0, basic, None)]
    for fd in fd, os.dup(fd):
        found += [inode(fstat, fd, None), inode(newfstatat, fd, b'', None, empty)]
        found += [inode(statx, fd, b'', empty, basic, None)]
    return set(found)
for path in '/proc', '/tmp/p', '/proc/', '/proc/self/..', '..', '/tmp/link/.', '/proc/self/root/proc':
    print(path, every_way(path))
os.chdir('/proc')
print(inode(newfstatat, at_fdcwd, b'', None, empty), inode(newfstatat, at_fdcwd, b'.', None, 0), os.stat('/proc').st_nlink > 1)
for path in '/proc/sys', '/proc/self/', '/tmp/d', '/proc/meminfo', '/dev/null':
    print(path, every_way(path) == {os.stat(path).st_ino}, os.stat(path).st_ino != 1)
"#;

/// The root directory of each procfs is inode 1 by every call, and nothing else is.
fn root_of_procfs(setup: Setup) {
    let script = format!(
        "mkdir -p /tmp/p /tmp/d; mount -t proc none /tmp/p; ln -s /proc /tmp/link; cd /tmp/p/sys
python3 - <<'E'\n{INODES}E
busybox ls -ai /proc | head -n 1 | tr -s ' '; busybox stat -c %i /proc; unshare -pf --mount-proc busybox stat -c %i /proc
mkdir -p /tmp/r/bin /tmp/r/proc; cp /bin/busybox /tmp/r/bin; mount -t proc none /tmp/r/proc; chroot /tmp/r /bin/busybox stat -c %i proc"
    );
    let roots = ["/proc", "/tmp/p", "/proc/", "/proc/self/..", "..", "/tmp/link/.", "/proc/self/root/proc"];
    let mut wanted: String = roots.iter().map(|path| format!("{path} {{1}}\n")).collect();
    wanted += "1 1 True\n/proc/sys True True\n/proc/self/ True True\n/tmp/d True True\n/proc/meminfo True True\n\
               /dev/null True True\n 1 .\n1\n1\n1\n";
    let outcome = wrapped(setup, &script);
    assert_eq!((outcome.stdout.as_str(), outcome.status), (wanted.as_str(), 0), "{}", outcome.stderr);
}
