//! Runs the rows of `spellings.rs`.
//!
//! A row is a line for the guest `paths`, what bare Linux answers, and whether sysemu answers from the virtual tree.
//! Each group runs bare (against the table), under sysemu, and once more under sysemu with a directory that exists
//! only virtually in the place of `kernel`. Inside gVisor a result may also be what gVisor itself answers, and
//! [`NATIVE`] says why it does.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use crate::Case;
use crate::common::gvisor::Version::{self, V2022, V2024, V2026};
use crate::common::{Build, Run, guest_as};
use crate::spellings::groups;
use crate::table::Tally;
use crate::world::{Place, World};

/// Who answers a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The virtual tree: where bare Linux reads the real file, the virtual one is read.
    Tree,
    /// As on bare Linux, to the letter.
    Linux,
}

pub type Row = (&'static str, &'static str, By);

/// Whether a group is repeated with a directory that exists only virtually.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Twin {
    Also,
    /// Not possible: the kernel itself would have to mount or enter what it does not have.
    Without,
}

/// Rows that are one script.
#[derive(Clone, Copy)]
pub struct Group {
    pub name: &'static str,
    pub twin: Twin,
    pub rows: &'static [Row],
    /// How the guest is compiled.
    pub build: Build,
}

/// The virtual text of `kernel.msgmax` and of the file that exists only virtually.
const VALUE: &str = "77777";

const OPTIONS: [&str; 4] = ["--set", "kernel.msgmax=77777", "--file", "/proc/sys/sysemu_t/msgmax=77777\n"];

/// A declared difference: versions, a part of the result, and the reason.
type Difference = (&'static [Version], &'static str, &'static str);

/// Where gVisor's own kernel does not do as Linux, and its result is the same under sysemu.
const NATIVE: &[Difference] = &[
    (DEBIAN, "openat2=ENOSYS", "gVisor has openat2(2) since 2026"),
    (DEBIAN, ": open2 ", "gVisor has openat2(2) since 2026"),
    (DEBIAN, "detached_mounts: ", "gVisor has mounts that are attached nowhere since 2026"),
    (&[V2026], "all s sys/", "procfs of gVisor has no subset=pid"),
    (&[V2026], "CACHED ../", "RESOLVE_CACHED of gVisor looks for names that it does not remember"),
    (ALL, "''", "an empty path of gVisor's readlink(2) is EINVAL"),
    (ALL, "=EPERM, on Linux ENOENT", "gVisor finds out first that nothing can be made in procfs (EPERM)"),
    (ALL, "TMPFILE", "gVisor's O_TMPFILE of a directory of procfs is EISDIR"),
    (ALL, "NOFOLLOW|DIRECTORY", "gVisor follows a last link under O_NOFOLLOW|O_DIRECTORY"),
    (ALL, "/nnnnnnnn", "gVisor's procfs has a limit for names (ENAMETOOLONG)"),
    (ALL, "@/private/link", "gVisor has no setfsuid(2)"),
    (&[V2022], "chroot_with_proc_inside: ", "gVisor has recursive bind mounts since 2024"),
    (&[V2022], "statfs=ENOSYS", "gVisor's procfs has statfs(2) since 2024"),
    (&[V2022], "statfs /proc/sys", "gVisor's procfs has statfs(2) since 2024"),
    (&[V2022], "/proc/sys/fs/../", "gVisor has /proc/sys/fs since 2024"),
    (
        &[V2022],
        "open . CREAT /proc/sys/kernel =>",
        "O_CREAT of an existing directory opens it in gVisor of 2022",
    ),
    (&[V2022], "REC|PRIVATE", "gVisor has mount propagation since 2024"),
];

/// Where what gVisor's own kernel does keeps sysemu from doing as Linux.
const OWN: &[Difference] = &[
    (
        ALL,
        "NOFOLLOW|DIRECTORY @/dir => =ENOENT",
        "gVisor follows a last link under O_NOFOLLOW|O_DIRECTORY by itself",
    ),
    (
        &[V2022],
        "a_new_pid_namespace: all",
        "one mount namespace for all: the /proc of a pid namespace is also what the supervisor then sees",
    ),
];

const ALL: &[Version] = &[V2022, V2024, V2026];
/// Debian's.
const DEBIAN: &[Version] = &[V2022, V2024];

pub fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = groups()
        .into_iter()
        .map(|group| {
            let case = Case::root(&format!("resolution/{}", group.name), move |world| check(world, group));
            Case { worlds: |_| true, ..case }
        })
        .collect();
    cases.push(Case::root("resolution/ordinary_files_below_a_root_that_is_no_mount", ordinary_files));
    cases
}

/// One call of a row and what it gave.
type Results = Vec<(String, String)>;

/// A line that many calls share, taken apart.
fn results(text: &str) -> Results {
    let pairs: Results = text
        .split(' ')
        .filter_map(|word| word.split_once('='))
        .map(|(call, value)| (call.to_owned(), value.to_owned()))
        .collect();
    if pairs.is_empty() { vec![(String::new(), text.to_owned())] } else { pairs }
}

/// What one call gives, where the table has a word for all: an errno, or `found real` or `found virtual`.
fn expected(row: &Row, whole: &str, call: &str) -> String {
    if !row.0.starts_with("all ") {
        return whole.to_owned();
    }
    let Some(content) = whole.strip_prefix("found ") else { return whole.to_owned() };
    match call {
        "openat" | "openat2" | "open" => content,
        "opath" | "faccessat" | "faccessat2" | "access" => "ok",
        "readlink" | "readlinkat" => "EINVAL",
        "statfs" => "proc",
        _ => "file",
    }
    .to_owned()
}

fn run_script(world: World, script: &str, build: Build, options: Option<&[&str]>) -> Vec<(String, Results)> {
    let place = Place::new(world);
    place.make(PREPARE);
    let directory = place.path();
    let script = script.replace('@', &directory);
    let run = Run::new(&[&guest_as("paths", build), VALUE]).input(&script).directory(Path::new("/"));
    let outcome = match options {
        Some(options) => world.run(&run, options),
        None => world.bare(&run),
    };
    assert_eq!(outcome.status, 0, "{}\n{}", outcome.stdout, outcome.stderr);
    let split = |line: &str| {
        let (left, right) = line.split_once(" => ").unwrap_or((line, "(nothing)"));
        (left.replace(&directory, "@"), results(&right.replace(&directory, "@")))
    };
    outcome.stdout.lines().map(split).collect()
}

/// Whether a result is what gVisor itself gives, but for what the file holds and its mode and size.
fn is_same(value: &str, native: &str) -> bool {
    value == native.replace("real", "virtual")
        || value == native
        || (value.starts_with("file ") && native.starts_with("file "))
}

/// The comparison of one group in one world.
struct Comparison {
    world: World,
    group: Group,
    tally: Tally,
    failures: String,
}

impl Comparison {
    /// Compares a run with the table, or with `kernel` where gVisor's own kernel does otherwise.
    fn compare(
        &mut self,
        what: &str,
        got: &[(String, Results)],
        adapt: &dyn Fn(&Row, &str) -> String,
        kernel: Option<&[(String, Results)]>,
    ) {
        assert_eq!(got.len(), self.group.rows.len(), "{what}: the guest stopped early: {:?}", got.last());
        for (index, (row, (line, results))) in self.group.rows.iter().zip(got).enumerate() {
            let whole = adapt(row, row.1);
            for (at, (call, value)) in results.iter().enumerate() {
                let wanted = expected(row, &whole, call);
                self.tally.compared += 1;
                if *value == wanted {
                    continue;
                }
                let name = self.group.name;
                let result = format!("{name}: {line} => {call}={value}, on Linux {wanted}");
                let native =
                    kernel.and_then(|kernel| kernel[index].1.get(at)).map(|(_, value)| adapt(row, value));
                let as_native = native.as_ref().is_some_and(|native| is_same(value, native));
                match self.reason(&result, as_native) {
                    Some(reason) => self.tally.different.push((format!("{line} => {call}={value}"), reason)),
                    None => drop(writeln!(self.failures, "{what}: {result}, bare here {native:?}")),
                }
            }
        }
    }

    /// Why a result is no fault, if it is none.
    fn reason(&self, result: &str, as_native: bool) -> Option<&'static str> {
        let World::Gvisor(version) = self.world else { return None };
        let native = NATIVE.iter().filter(|_| as_native);
        let found = native.chain(OWN).find(|rule| rule.0.contains(&version) && result.contains(rule.1))?;
        met().insert((version, found.1));
        Some(found.2)
    }
}

type Met = HashSet<(Version, &'static str)>;

/// The differences that were met in this run.
fn met() -> MutexGuard<'static, Met> {
    static MET: LazyLock<Mutex<Met>> = LazyLock::new(Mutex::default);
    MET.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is declared for these worlds and was not met.
pub fn unmet(worlds: &[World]) -> Vec<String> {
    let met = met();
    let mut unmet = Vec::new();
    for (versions, part, reason) in NATIVE.iter().chain(OWN) {
        let here = versions.iter().filter(|version| worlds.contains(&World::Gvisor(**version)));
        let missed = here.filter(|version| !met.contains(&(**version, *part)));
        unmet.extend(missed.map(|version| format!("{}: {part}: {reason}", World::Gvisor(*version).name())));
    }
    unmet
}

fn check(world: World, group: Group) -> Tally {
    if world.is_gvisor() && group.build == Build::I386 {
        return cannot_execute(world, &guest_as("paths", group.build));
    }
    let script = |replace: &dyn Fn(&str) -> String| {
        group.rows.iter().fold(String::new(), |all, row| all + &replace(row.0) + "\n")
    };
    let plain = script(&str::to_owned);
    let run = |script: &str, options| run_script(world, script, group.build, options);
    let mut comparison = Comparison { world, group, tally: Tally::default(), failures: String::new() };
    if world == World::Linux {
        comparison.compare("bare", &run(&plain, None), &|_, text| text.to_owned(), None);
    } else {
        let kernel = world.is_gvisor().then(|| run(&plain, None));
        let adapt = |row: &Row, text: &str| match row.2 {
            By::Tree => text.replace("real", "virtual"),
            By::Linux => text.to_owned(),
        };
        comparison.compare("sysemu", &run(&plain, Some(&OPTIONS)), &adapt, kernel.as_deref());
        if group.twin == Twin::Also {
            let renamed = script(&|line| line.replace("kernel", "sysemu_t"));
            let adapt = |row: &Row, text: &str| adapt(row, text).replace("kernel", "sysemu_t");
            comparison.compare("only virtual", &run(&renamed, Some(&OPTIONS)), &adapt, kernel.as_deref());
        }
    }
    assert!(comparison.failures.is_empty(), "{}\n{}", group.name, comparison.failures);
    comparison.tally
}

fn cannot_execute(world: World, program: &str) -> Tally {
    for options in [None, Some(&OPTIONS[..])] {
        let run = Run::new(&[program, VALUE]);
        let outcome = options.map_or_else(|| world.bare(&run), |options| world.run(&run, options));
        // 2 is a shell's, which takes it for a script.
        assert!([2, 126].contains(&outcome.status), "{outcome:?}");
    }
    Tally::differs("the program cannot be executed (126)", "gVisor runs no i386 programs")
}

/// What scripts expect in their directory.
const PREPARE: &str = "
mkdir -p look/proc/sys/kernel look/proc/sys/sysemu_t root/proc p s deep/er; mkdir -m 700 private
for file in look/proc/sys/kernel/msgmax look/proc/sys/sysemu_t/msgmax plain f; do echo 'a file of the disk' >$file; done
ln -s /proc/sys/kernel/msgmax private/link";

fn ordinary_files(world: World) -> Tally {
    let place = Place::new(world);
    let root = place.path();
    place.make("mkdir etc bin; cp /bin/busybox bin; ln -s busybox bin/cat");
    let script = "cat /etc/only; cd /etc; cat only; cat ./only ../etc/only; cat /etc/.././etc/only; ls; cd /; cat etc/only; ls; \
                  cd /new; cat only; cat ../etc/only";
    let run = Run::new(&["chroot", &root, "/bin/busybox", "sh", "-c", script]);
    let options =
        ["--file", "/etc/only=here", "--file", "/new/only=there", "--file", "/proc/sys/kernel/only=no"];
    let wanted = "here\nhere\nhere\nhere\nhere\nonly\nhere\nbin\netc\nnew\nthere\nhere\n";
    assert_eq!(world.run(&run, &options).good(), wanted);
    Tally::one()
}
