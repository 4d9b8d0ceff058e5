//! Stock runc sets sysctls of containers that gVisor does not have, through the hardened walk of its newer versions too.
//! `tests/runc.rs` does the same on Linux.
//!
//! Not in gVisor of 2022, where runc starts no container: it had no devices controller (`policies::runc`).

use libtest_mimic::Trial;

use crate::common::gvisor::{Sandbox, Setup, Version};
use crate::common::runc::{BAD_VALUE, Runc, TWO_CONTAINERS, two_containers};
use crate::common::{Outcome, skip};
use crate::policies::CGROUPS;
use crate::trial;

pub fn cases() -> Vec<Trial> {
    let mut trials = Vec::new();
    for setup in Setup::versions().into_iter().filter(|setup| setup.version != Version::V2022) {
        for runc in Runc::ALL {
            let name = format!("runc_sysctls::{runc:?}::{}", setup.name()).to_lowercase();
            trials.push(trial(name.clone(), move || match runc.ready() {
                Ok(()) => sysctls(setup, runc),
                Err(reason) => skip(&name, &reason),
            }));
        }
        trials.push(trial(format!("root_of_procfs::{}", setup.name()), move || root_of_procfs(setup)));
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

/// The root directory of each procfs is inode 1 by every call, and nothing else is.
fn root_of_procfs(setup: Setup) {
    let script = r#"
mkdir -p /tmp/p /tmp/d; mount -t proc none /tmp/p; ln -s /proc /tmp/link; cd /tmp/p/sys
python3 - <<'E'
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def inode(call, *args):
    buf = (ctypes.c_uint64 * 32)()
    assert libc.syscall(call, *args[:-1], buf, *args[-1]) == 0, os.strerror(ctypes.get_errno())
    return buf[4] if call == 332 else buf[1]
stat, fstat, lstat, newfstatat, statx, at_fdcwd, empty, basic = 4, 5, 6, 262, 332, -100, 0x1000, 0x7ff
def every_way(path):
    fd = os.open(path, os.O_PATH)
    again = os.dup(fd)
    found = [inode(call, path.encode(), ()) for call in (stat, lstat)]
    found += [inode(newfstatat, at_fdcwd, path.encode(), (0,)), inode(statx, at_fdcwd, path.encode(), 0, basic, ())]
    for fd in fd, again:
        found += [inode(fstat, fd, ()), inode(newfstatat, fd, b'', (empty,)), inode(statx, fd, b'', empty, basic, ())]
        found += [inode(newfstatat, fd, b'.', (0,))]
    return set(found)
for path in '/proc', '/tmp/p', '/proc/', '/proc/self/..', '..', '/tmp/link/.', '/proc/self/root/proc':
    print(path, every_way(path))
print(next(entry for entry in os.scandir('/proc/self') if entry.name == 'status').inode() != 1)
os.chdir('/proc')
print(inode(newfstatat, at_fdcwd, b'', (empty,)), inode(newfstatat, at_fdcwd, b'.', (0,)), os.lstat('.').st_nlink > 1)
for path in '/proc/sys', '/proc/self', '/tmp/d', '/proc/meminfo', '/dev/null':
    print(path, every_way(path) == {os.stat(path).st_ino}, os.stat(path).st_ino != 1)
print(os.fstat(os.open('/tmp', os.O_TMPFILE | os.O_RDWR)).st_ino != 1)
