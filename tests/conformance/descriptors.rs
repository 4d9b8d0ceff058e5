//! What an open virtual file is, however one gets at its descriptor: through the links to it, in a child, after execve(2),
//! sent to another process, duplicated; and what its directory is. In every world against the real file on bare Linux.

use std::collections::BTreeSet;

use crate::Case;
use crate::common::gvisor::Version::{V2022, V2024};
use crate::common::{Run, guest};
use crate::table::Tally;
use crate::world::{Place, World};

/// A real file that belongs to a namespace, so that writing it harms nobody, and one that only a policy knows.
const FILES: [&str; 2] = ["/proc/sys/net/core/somaxconn", "/proc/sys/net/sysemu/something"];

/// A line that differs, by how it starts, where, and why.
struct Declared {
    line: &'static str,
    holds: fn(World, Carrier) -> bool,
    reason: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Carrier {
    Fuse,
    Memfd,
}

fn everywhere(_: World, _: Carrier) -> bool {
    true
}

fn with_memfds(_: World, carrier: Carrier) -> bool {
    carrier == Carrier::Memfd
}

/// Where write(2) on a memfd is not seen.
fn unseen(world: World, carrier: Carrier) -> bool {
    carrier == Carrier::Memfd && world == World::Notify
}

const DECLARED: &[Declared] = &[
    Declared { line: "lseek", holds: everywhere, reason: "O_PATH on a virtual file can be read" },
    Declared {
        line: "fdinfo",
        holds: |world, _| matches!(world, World::Gvisor(V2022 | V2024)),
        reason: "gVisor tells no position before 2026",
    },
    Declared { line: "fstat", holds: with_memfds, reason: "no name leads to a memfd" },
    Declared { line: "fstatat of nothing", holds: with_memfds, reason: "no name leads to a memfd" },
    Declared {
        line: "directory",
        holds: with_memfds,
        reason: "the stand-in for a directory has been removed",
    },
    Declared {
        line: "O_PATH directory",
        holds: with_memfds,
        reason: "the stand-in for a directory has been removed",
    },
    Declared {
        line: "then the first one",
        holds: unseen,
        reason: "what is written to a memfd is taken up when the file is opened next",
    },
    Declared { line: "O_RDWR", holds: unseen, reason: "write(2) on a memfd takes everything" },
    Declared { line: "the writer", holds: with_memfds, reason: "a writer's memfd is its own" },
];

pub fn cases() -> Vec<Case> {
    let fuse = Case::root("descriptors/from_fuse", |world| compare(world, Carrier::Fuse));
    vec![
        Case { worlds: |world| matches!(world, World::Notify | World::Ptrace), ..fuse },
        Case::root("descriptors/from_memfds", |world| compare(world, Carrier::Memfd)),
    ]
}

fn compare(world: World, carrier: Carrier) -> Tally {
    let guest = guest("descriptors");
    let bare = Run::new(&["unshare", "-n", &guest, FILES[0], "4096"]);
    let bare = World::Linux.bare(&bare).good();
    let row = |path: &str| {
        let key = path["/proc/sys/".len()..].replace('/', ".");
        format!("[[sysctl]]\nkey = \"{key}\"\nvalue = \"4096\"\ntype = \"int\"\nscope = \"net\"\n")
    };
    let place = Place::new(world);
    let policy = place.write("p.toml", &format!("schema = 1\n{}{}", row(FILES[0]), row(FILES[1])));
    let name = if carrier == Carrier::Fuse { "fuse" } else { "memfd" };
    let declared: Vec<&Declared> = DECLARED.iter().filter(|one| (one.holds)(world, carrier)).collect();
    let mut missing: BTreeSet<&str> = declared.iter().map(|one| one.line).collect();
    let mut tally = Tally::default();
    let mut wrong = Vec::new();
    for path in FILES {
        let run = Run::new(&[&guest, path, "4096"]);
        let shown = world.run(&run, &["-p", &policy, "--carrier", name]).good();
        // As if it had the real one's name.
        let shown = shown.replace("sysemu/something", "core/somaxconn").replace("net/sysemu", "net/core");
        assert_eq!(bare.lines().count(), shown.lines().count(), "{bare}\n{shown}");
        for (bare, shown) in bare.lines().zip(shown.lines()) {
            tally.compared += 1;
            if bare == shown {
                continue;
            }
            let line = bare.split(':').next().unwrap_or("");
            match declared.iter().find(|one| one.line == line) {
                Some(one) => {
                    missing.remove(line);
                    tally.different.push((format!("{path}: {shown}"), one.reason));
                }
                None => wrong.push(format!("{path}\n  - {bare}\n  + {shown}")),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(missing.is_empty(), "declared, but not different: {missing:?}");
    tally
}
