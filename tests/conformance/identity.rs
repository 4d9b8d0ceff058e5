//! By what programs know a procfs: its root directory has the inode number 1, by every call. Not so in gVisor before 2026,
//! where a policy says it (`[[stat]]`).

use crate::Case;
use crate::common::Run;
use crate::common::gvisor::Version::V2022;
use crate::table::Tally;
use crate::world::{Place, World};

pub fn cases() -> Vec<Case> {
    vec![Case::root("identity/root_of_procfs", root_of_procfs)]
}

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
