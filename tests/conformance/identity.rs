//! By what programs know a procfs and what it holds: the inode number of its root directory, and its links.

use crate::Case;
use crate::common::Run;
use crate::common::gvisor::Version::V2022;
use crate::table::Tally;
use crate::world::{Place, World};

pub fn cases() -> Vec<Case> {
    let links = Case::root("identity/links_in_a_pid_namespace", links);
    vec![
        Case::root("identity/root_of_procfs", root_of_procfs),
        // In 2022 the procfs of a pid namespace is also what the supervisor then sees.
        Case { worlds: |world| !matches!(world, World::Linux | World::Gvisor(V2022)), ..links },
    ]
}

/// Where processes have other numbers than for the supervisor, links of procfs tell of the same files.
fn links(world: World) -> Tally {
    let script = "dir=/proc/sys/$1; exec 5<$dir/msgmax 6<$dir; readlink /proc/self/fd/5 /proc/$$/fd/6; cd $dir; \
                  readlink /proc/self/cwd /proc/$$/cwd; sh -c 'readlink /proc/$PPID/fd/5 /proc/$PPID/cwd'; cat /proc/$$/cwd/msgmax; \
                  cd /; readlink /proc/self/cwd; (cd /proc/self/fd/6 && readlink /proc/self/cwd)";
    let namespaces = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "bash", "-c", script, "bash"];
    let run = |world: World, name, options: &[&str]| {
        world.run(&Run::new(&[&namespaces[..], &[name]].concat()), options).good()
    };
    let msgmax = World::Linux.bare(&Run::new(&["cat", "/proc/sys/kernel/msgmax"])).good();
    let bare = run(World::Linux, "kernel", &[]);
    assert!(bare.starts_with("/proc/sys/kernel/msgmax\n/proc/sys/kernel\n/proc/sys/kernel\n"), "{bare}");
    let (one, other) = (format!("kernel.msgmax={msgmax}"), format!("sysemu_t.msgmax={msgmax}"));
    let mut compared = 0;
    for carrier in ["auto", "memfd"] {
        let options = ["--set", one.trim_end(), "--set", other.trim_end(), "--carrier", carrier];
        for name in ["kernel", "sysemu_t"] {
            let shown = run(world, name, &options).replace(name, "kernel");
            assert_eq!(shown, bare, "{carrier} {name}");
            compared += bare.lines().count();
        }
    }
    Tally { compared, different: Vec::new() }
}

/// The root directory of a procfs has the inode number 1, by every call. Not so in gVisor before 2026, where a policy says
/// it (`[[stat]]`).
fn root_of_procfs(world: World) -> Tally {
    let guest = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/guests/inodes.py");
    // In 2022 the procfs of a pid namespace is also what the supervisor then sees.
    let namespaces: &[&str] = match world {
        World::Gvisor(V2022) => &["unshare", "--mount", "--propagation", "unchanged"],
        _ => &["unshare", "--mount", "--pid", "--fork", "--mount-proc"],
    };
    let run = |world: World, inode: &str, options: &[&str]| {
        let place = Place::new(world);
        let script = "mkdir proc; mount -t proc none proc; exec python3 \"$@\" \"$PWD\"";
        let script = format!("cd {} && {script}", place.path());
        let words = [namespaces, &["sh", "-c", &script, "sh", guest, inode]].concat();
        world.run(&Run::new(&words), options).good()
    };
    let bare = run(World::Linux, "1", &[]);
    assert!(bare.starts_with("/proc N\n") && bare.contains("/proc/sys 1 True\n"), "{bare}");
    // The second number is nowhere the real one, so that nothing is as it is by itself.
    for inode in ["1", "7777"] {
        let place = Place::new(world);
        let policy = format!("schema = 1\n[[stat]]\npath = \"/proc\"\ninode = {inode}\n");
        let policy = place.write("p.toml", &policy);
        assert_eq!(run(world, inode, &["-p", &policy]), bare, "{inode}");
    }
    Tally { compared: 2 * bare.lines().count(), different: Vec::new() }
}
