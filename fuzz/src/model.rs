//! A small model of path resolution: a few real and virtual names, followed by plain rules.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::OnceLock;

use sysemu::Supervisor;
use sysemu::emulator::resolve::{Final, Found, Query};
use sysemu::emulator::sys::file;
use sysemu::policy::Loader;

use crate::path::{own_tid, path_of};

/// What is at a path of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Node {
    Dir,
    File,
    Link(&'static str),
    Hidden,
}
use Node::{Dir, File, Hidden, Link};

/// What is really there.
const REAL: [(&str, Node); 10] = [
    ("/a", Dir),
    ("/a/b", Dir),
    ("/a/b/f", File),
    ("/a/f", File),
    ("/a/hidden", File),
    ("/a/up", Link("..")),
    ("/a/abs", Link("/a/b")),
    ("/a/out", Link("../../../../../proc/sys/kernel")),
    ("/l", Link("a/b")),
    ("/loop", Link("a/../loop")),
];

/// What rows put over it.
const ROWS: [(&str, Node); 7] = [
    ("/a/v", File),
    ("/a/f", File),
    ("/a/hidden", Hidden),
    ("/a/vl", Link("../vd/x")),
    ("/vd/x", File),
    ("/vd/l", Link("/a/b")),
    ("/vd/far", Link("../../../etc")),
];

const PIECES: [&str; 20] = [
    "a", "b", "f", "v", "hidden", "up", "abs", "out", "l", "loop", "vl", "vd", "x", "far", "..", ".", "",
    "none", "proc", "etc",
];

struct World {
    folder: PathBuf,
    root: OwnedFd,
    supervisor: Supervisor,
    nodes: BTreeMap<String, (Node, bool)>,
}

fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let folder = std::env::temp_dir().join(format!("sysemu-fuzz-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).expect("a folder");
        let mut nodes = BTreeMap::from([(String::new(), (Dir, false))]);
        for (path, node) in REAL {
            let at = folder.join(&path[1..]);
            match node {
                Dir => fs::create_dir(&at),
                File => fs::write(&at, "real"),
                Link(target) => symlink(target, &at),
                Hidden => Ok(()),
            }
            .expect("made");
            nodes.insert(path.to_owned(), (node, false));
        }
        let root = folder.to_str().expect("text");
        let mut text = String::from("schema = 1\n");
        for (path, node) in ROWS {
            let row = match node {
                File => format!("[[file]]\npath = \"{root}{path}\"\ncontent = \"virtual\"\n"),
                Link(target) => format!("[[link]]\npath = \"{root}{path}\"\ntarget = \"{target}\"\n"),
                Hidden => format!("[[absent]]\npath = \"{root}{path}\"\n"),
                Dir => continue,
            };
            text.push_str(&row);
            nodes.insert(path.to_owned(), (node, true));
        }
        nodes.insert("/vd".into(), (Dir, true));
        let policy = Loader::new().text("model", text).load().expect("a good policy");
        let supervisor = Supervisor::builder().policy(policy).build().expect("a supervisor");
        let path = file::c_path(root.as_bytes()).expect("no NUL");
        let root = file::open(None, &path, libc::O_PATH | libc::O_DIRECTORY).expect("the folder");
        World { folder, root, supervisor, nodes }
    })
}

/// Removes the folder of the model. For tests, which end; a fuzzer is killed.
pub fn clean_up() {
    let _ = fs::remove_dir_all(&world().folder);
}

/// Where a path leads below the root of the model: the path there and whether it is virtual, or an errno.
fn follow(world: &World, text: &str, last: Final) -> Result<(String, bool), i32> {
    let mut at = String::new();
    let mut todo: Vec<String> = text.split('/').rev().map(str::to_owned).collect();
    let mut wants_directory = text.ends_with('/') || text.ends_with("/.") || text == ".";
    wants_directory |= text == ".." || text.ends_with("/..");
    let mut links = 0;
    while let Some(name) = todo.pop() {
        let is_last = !todo.iter().any(|name| !name.is_empty() && name != ".");
        match name.as_str() {
            "" | "." => continue,
            ".." => {
                at.truncate(at.rfind('/').unwrap_or(0));
                continue;
            }
            _ => {}
        }
        let next = format!("{at}/{name}");
        match world.nodes.get(&next) {
            None | Some((Hidden, _)) => return Err(libc::ENOENT),
            Some((Dir, _)) => at = next,
            Some((File, _)) if !is_last || wants_directory => return Err(libc::ENOTDIR),
            Some((File, is_virtual)) => return Ok((next, *is_virtual)),
            Some((Link(_), is_virtual)) if is_last && !wants_directory && last == Final::NoFollow => {
                return Ok((next, *is_virtual));
            }
            Some((Link(target), _)) => {
                links += 1;
                if links > 40 {
                    return Err(libc::ELOOP);
                }
                if target.starts_with('/') {
                    at.clear();
                }
                if is_last && target.ends_with("..") {
                    wants_directory = true;
                }
                todo.extend(target.split('/').rev().map(str::to_owned));
            }
        }
    }
    let is_virtual = world.nodes.get(&at).is_some_and(|(_, is_virtual)| *is_virtual);
    Ok((at, is_virtual))
}

/// Resolves a path below a directory that it must not leave (RESOLVE_IN_ROOT), and compares with the model.
pub fn path_in_root(flags: u8, rest: &[u8]) {
    let world = world();
    let Some((text, last)) = path_of(flags, rest, &PIECES) else { return };
    let query = Query {
        tid: own_tid(),
        dirfd: world.root.as_raw_fd(),
        path: text.as_bytes(),
        last,
        resolve: libc::RESOLVE_IN_ROOT,
    };
    let root = world.folder.to_str().expect("text");
    let found = world.supervisor.engine().emulator.resolver.resolve_fully(&query);
    let found = found.unwrap_or_else(|failure| panic!("{text}: {failure:?}"));
    let key = match &found {
        Found::Virtual(object) => Some((object.key.to_string(), true)),
        Found::OnBehalf(real) | Found::Kernel(Some(real)) => real.key.clone().map(|key| (key, false)),
        Found::Kernel(None) | Found::Refused(_) => None,
    };
    if let Some((key, _)) = &key {
        assert!(*key == root || key.starts_with(&format!("{root}/")), "{text} escapes to {key}");
    }
    match (follow(world, &text, last), key, &found) {
        (Ok((path, is_virtual)), Some(found), _) => {
            assert_eq!((format!("{root}{path}"), is_virtual), found, "{text}")
        }
        (Err(errno), None, Found::Refused(refused)) => assert_eq!(errno, refused.raw(), "{text}"),
        // The kernel finds the error by itself, and nothing virtual is on the way.
        (Err(_), None, Found::Kernel(None)) => {}
        (expected, _, found) => panic!("{text}: {found:?}, expected {expected:?}"),
    }
}
