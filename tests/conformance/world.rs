//! Where cases run: bare Linux, each backend on it, and each version of gVisor.

use std::cell::RefCell;
use std::collections::HashMap;

use crate::common::gvisor::{Setup, Version, built, ready};
use crate::common::session::Session;
use crate::common::{Outcome, Run, Scratch, sysemu_program, text_of};

/// A kernel and what stands between it and programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum World {
    /// Nothing: what the other worlds are compared with.
    Linux,
    /// sysemu with user notification.
    Notify,
    /// sysemu with ptrace(2).
    Ptrace,
    /// sysemu inside gVisor.
    Gvisor(Version),
}

impl World {
    /// All of them, in the order of the table.
    pub const ALL: [World; 6] = [
        World::Linux,
        World::Notify,
        World::Ptrace,
        World::Gvisor(Version::V2022),
        World::Gvisor(Version::V2024),
        World::Gvisor(Version::V2026),
    ];

    /// Its name in the table and in the names of cases.
    pub fn name(self) -> &'static str {
        match self {
            World::Linux => "linux",
            World::Notify => "notify",
            World::Ptrace => "ptrace",
            World::Gvisor(Version::V2022) => "gvisor-2022",
            World::Gvisor(Version::V2024) => "gvisor-2024",
            World::Gvisor(Version::V2026) => "gvisor-2026",
        }
    }

    /// Whether it is gVisor.
    pub fn is_gvisor(self) -> bool {
        matches!(self, World::Gvisor(_))
    }

    /// Whether virtual files are opened by the programs themselves.
    pub fn is_ptrace(self) -> bool {
        !matches!(self, World::Linux | World::Notify)
    }

    /// Whether it can be had here.
    ///
    /// # Errors
    /// What the machine lacks, as the reason of a skip.
    pub fn ready(self) -> Result<(), String> {
        match self {
            World::Linux | World::Notify | World::Ptrace => Ok(()),
            World::Gvisor(Version::V2026) => built(),
            World::Gvisor(_) => ready(),
        }
    }

    /// Makes sure that nothing an earlier program did can disturb what comes.
    pub fn begin(self) {
        let World::Gvisor(version) = self else { return };
        SANDBOXES.with_borrow_mut(|sandboxes| {
            if sandboxes.get(&version).is_some_and(|kept| kept.is_disturbed) {
                sandboxes.remove(&version);
            }
        });
    }

    /// The words that put a program under sysemu with these options; none in [`World::Linux`].
    pub fn sysemu(self, options: &[&str]) -> Vec<String> {
        let backend: &[&str] = match self {
            World::Linux => return Vec::new(),
            World::Notify => &["--backend", "notify"],
            World::Ptrace => &["--backend", "ptrace"],
            // There it is found by trying.
            World::Gvisor(_) => &[],
        };
        let words = [&[sysemu_program(), "--no-auto"], backend, options, &["--"]].concat();
        words.into_iter().map(str::to_owned).collect()
    }

    /// What a program does on the kernel of this world, with nothing between.
    #[track_caller]
    pub fn bare(self, run: &Run) -> Outcome {
        match self {
            World::Gvisor(version) => inside(version, run).unwrap_or_else(|reason| panic!("{reason}")),
            _ => run.go(),
        }
    }

    /// What a program does in this world.
    #[track_caller]
    pub fn run(self, run: &Run, options: &[&str]) -> Outcome {
        self.bare(&run.after(&self.sysemu(options)))
    }
}

/// A directory of a case's own in a world.
pub struct Place {
    world: World,
    /// What a sandbox has at this path is not what the machine has there.
    scratch: Scratch,
}

impl Place {
    /// An empty one that everyone may enter.
    #[track_caller]
    pub fn new(world: World) -> Self {
        world.begin();
        let place = Place { world, scratch: Scratch::new() };
        place.make("true");
        place
    }

    /// Its path.
    pub fn path(&self) -> String {
        text_of(self.scratch.path())
    }

    /// Runs a shell script in it, with nothing between.
    #[track_caller]
    pub fn make(&self, script: &str) {
        let path = self.path();
        self.world.bare(&Run::shell(&format!("set -e; mkdir -p {path}; cd {path}; {script}"))).good();
    }

    /// Writes a file in it and gives its path.
    #[track_caller]
    pub fn write(&self, name: &str, text: &str) -> String {
        let path = format!("{}/{name}", self.path());
        self.world.bare(&Run::new(&["tee", &path]).input(text)).good();
        path
    }
}

/// A sandbox, and whether something was run in it that can disturb others.
struct Kept {
    session: Session,
    is_disturbed: bool,
}

thread_local! {
    /// Those of a thread that runs cases, which end with it.
    static SANDBOXES: RefCell<HashMap<Version, Kept>> = RefCell::default();
}

/// Runs a program in the sandbox of a version.
fn inside(version: Version, run: &Run) -> Result<Outcome, String> {
    let setup = if version == Version::V2022 { Setup::OLDEST } else { Setup { version, ..Setup::NEWEST } };
    SANDBOXES.with_borrow_mut(|sandboxes| {
        let start = || Kept { session: Session::new(setup), is_disturbed: false };
        let kept = sandboxes.entry(version).or_insert_with(start);
        let outcome = kept.session.go(run);
        if outcome.is_err() {
            sandboxes.remove(&version);
        } else if version == Version::V2022 && mounts(run) {
            kept.is_disturbed = true;
        }
        outcome
    })
}

/// Whether a program mounts: in 2022 all have the same mount namespace, so that it does so for everybody.
fn mounts(run: &Run) -> bool {
    let mut texts = run.words().chain([run.text()]);
    texts.any(|text| ["unshare", "mount"].iter().any(|word| text.contains(word)))
}
