//! The merged policy: what remains after parsing, includes, overrides and the command line.
//!
//! Nothing here knows TOML. The emulator reads these types only.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::emulator::codec::Codec;

/// Where a row was written: a file (or `command line`), 1-based line and column.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// File name as the user would type it, `built-in:NAME`, or `command line`.
    pub file: Arc<str>,
    /// 1-based line; 0 when the source has no lines (command line).
    pub line: u32,
    /// 1-based column in characters; 0 when the source has no lines.
    pub column: u32,
}

impl Origin {
    /// An origin without a line, such as `command line`.
    pub fn synthetic(name: &str) -> Self {
        Origin { file: name.into(), line: 0, column: 0 }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.file),
            line => write!(f, "{}:{line}", self.file),
        }
    }
}

/// A value together with the place it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sourced<T> {
    /// The value.
    pub value: T,
    /// Where it was written.
    pub origin: Origin,
}

/// The fields of uname(2) that the policy replaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uname {
    /// `sysname`, also `/proc/sys/kernel/ostype`.
    pub sysname: Option<Sourced<String>>,
    /// `nodename`, also `/proc/sys/kernel/hostname`.
    pub nodename: Option<Sourced<String>>,
    /// `release`, also `/proc/sys/kernel/osrelease` and `/proc/version`.
    pub release: Option<Sourced<String>>,
    /// `version`, also `/proc/sys/kernel/version` and `/proc/version`.
    pub version: Option<Sourced<String>>,
    /// `machine`, also `/proc/sys/kernel/arch`.
    pub machine: Option<Sourced<String>>,
    /// `domainname`, also `/proc/sys/kernel/domainname`.
    pub domainname: Option<Sourced<String>>,
    /// Whether the files named above follow. `false`: only uname(2) itself is answered.
    pub files: bool,
}

impl Uname {
    /// Whether any field is replaced.
    pub fn is_given(&self) -> bool {
        let Uname { sysname, nodename, release, version, machine, domainname, files: _ } = self;
        [sysname, nodename, release, version, machine, domainname].into_iter().any(Option::is_some)
    }
}

/// What providers compute from; `None` means the host's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// Number of CPUs, 1 to 8192.
    pub cpus: Option<Sourced<u32>>,
    /// Bytes of memory, a multiple of 4096, at least 4 MiB.
    pub memory: Option<Sourced<u64>>,
}

/// Which namespace a value belongs to. See namespaces(7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// One value for the whole tree.
    #[default]
    Global,
    /// One value for each network namespace.
    Net,
    /// One value for each UTS namespace.
    Uts,
    /// One value for each IPC namespace.
    Ipc,
    /// One value for each user namespace.
    User,
    /// One value for each pid namespace.
    Pid,
}

/// What a write by the tracee does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum WriteRule {
    /// Validated and kept in the virtual tree.
    #[default]
    Keep,
    /// Validated, accepted and dropped.
    Ignore,
    /// Opening for writing is refused as on a read-only mount: EROFS, after the permission check.
    Deny,
    /// Tried on the real file, kept in the virtual tree when that cannot be done.
    Forward,
}

/// What becomes of a pair of numbers whose first is greater than the second.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reversed {
    /// EINVAL.
    Refuse,
    /// These are kept instead, as one line.
    Becomes(String),
}

/// How numbers become multiples of one, as the kernel's ticks make them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// To the next multiple that is not less.
    Up(u32),
    /// To the last multiple that is not greater.
    Down(u32),
}

/// What writes have to obey beyond type and range. Other files are named by their paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteRules {
    /// The only values that can be set, each without the final newline; any when empty.
    pub choices: Vec<String>,
    /// The errno for other values is ENOENT (and not EINVAL).
    pub other_is_enoent: bool,
    /// What becomes of a reversed pair; `None`: nothing is looked at.
    pub reversed: Option<Reversed>,
    /// The first value must not be below that of this file.
    pub not_below: Option<String>,
    /// The first value must not be above that of this file.
    pub not_above: Option<String>,
    /// Files that get the same value; a `*` component stands for all that exist.
    pub also: Vec<String>,
    /// Files that a write sets to 0.
    pub zeroes: Vec<String>,
    /// Files that a write of another value than before sets to 0.
    pub zeroes_on_change: Vec<String>,
    /// The file whose written value shows until this one is written.
    pub follows: Option<String>,
    /// Path components of files that do not follow, where the row stands for many.
    pub except: Vec<String>,
    /// Numbers are kept as multiples of one.
    pub rounding: Option<Rounding>,
    /// The capability that a writer needs in the user namespace that owns the scope's namespace.
    pub needs: Option<u32>,
    /// Changes wake poll(2) with POLLPRI and POLLERR.
    pub poll: bool,
}

impl WriteRules {
    /// Whether a value is only taken as a whole: the kernel's handlers with such rules work on a copy, so that values
    /// before a bad one are not applied.
    pub fn is_whole(&self) -> bool {
        self.reversed.is_some()
            || self.not_below.is_some()
            || self.not_above.is_some()
            || !self.choices.is_empty()
    }
}

/// When a row applies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum When {
    /// Always: the virtual object replaces a real one.
    #[default]
    Always,
    /// Only where the real object is absent or cannot be read.
    Missing,
}

/// Where the bytes of a file come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Fixed bytes, exactly as read(2) gives them (codecs have already been applied: final newline included).
    Fixed(Bytes),
    /// Computed at each open by the named provider.
    Provider(String),
    /// The tracee gets the real object at this path (such as `/dev/null`) instead.
    Like(String),
}

/// What a row puts at its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A regular file. A `[[sysctl]]` row is a file below `/proc/sys` with a codec.
    File {
        /// Its bytes.
        content: Content,
        /// How its text is parsed and printed; `None` for free text.
        codec: Option<Codec>,
        /// Which namespace its value belongs to.
        scope: Scope,
        /// What a write does.
        write: WriteRule,
        /// What writes have to obey.
        rules: Arc<WriteRules>,
    },
    /// A directory, merged with the real one when there is one.
    Dir,
    /// A symbolic link with this text.
    Link {
        /// The link text, as readlink(2) gives it.
        target: String,
    },
    /// Nothing: hides a real object everywhere.
    Absent,
}

impl What {
    /// A file with free text and one value for the whole tree, which nobody can write.
    pub fn file(content: Content) -> Self {
        let (scope, write) = (Scope::default(), WriteRule::Deny);
        What::File { content, codec: None, scope, write, rules: Arc::default() }
    }
}

/// One object of the virtual tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Absolute path without `.`, `..`, `//` or a final slash. A component that is exactly `*` matches any
    /// one component that exists there. `{cpu}` and `{node}` have been expanded already.
    pub path: String,
    /// What is there.
    pub what: What,
    /// Permission bits, `0..=0o7777`.
    pub mode: u16,
    /// When the row applies.
    pub when: When,
    /// What it is for.
    pub doc: String,
    /// Provenance of the demand or of the value.
    pub source: String,
    /// Where it was written.
    pub origin: Origin,
}

impl Row {
    /// A row that always applies, without a description; its provenance is where it was written.
    pub fn new(path: impl Into<String>, what: What, mode: u16, origin: Origin) -> Self {
        let (when, doc, source) = (When::default(), String::new(), origin.to_string());
        Row { path: path.into(), what, mode, when, doc, source, origin }
    }
}

/// What stat(2) and its relatives report of the root directory of every file system of a kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatRow {
    /// `/proc` or `/sys`.
    pub path: String,
    /// The inode number.
    pub inode: u64,
    /// Where it was written.
    pub origin: Origin,
}

/// What a `[[statfs]]` row selects by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum StatfsMatch {
    /// Everything at and below this absolute path.
    Path(String),
    /// Every file system that reports this `f_type`.
    Type(u64),
}

/// A replacement for what statfs(2) and fstatfs(2) report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatfsRow {
    /// What it applies to.
    pub from: StatfsMatch,
    /// The reported `f_type`.
    pub f_type: u64,
    /// Replaces `f_blocks` (in units of the real block size).
    pub blocks: Option<u64>,
    /// Replaces `f_bfree` and `f_bavail`.
    pub bfree: Option<u64>,
    /// Replaces `f_files`.
    pub files: Option<u64>,
    /// Replaces `f_ffree`.
    pub ffree: Option<u64>,
    /// Sets or clears ST_RDONLY in `f_flags`.
    pub readonly: Option<bool>,
    /// Where it was written.
    pub origin: Origin,
}

/// How fsopen(2), fsmount(2) and open_tree(2) are treated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MountApi {
    /// Let through; objects reached through the new mounts are still answered from the virtual tree.
    #[default]
    Emulate,
    /// Answered with ENOSYS, so that programs fall back to mount(2) and paths.
    Enosys,
}

/// How a call is answered when the supervisor itself fails while serving it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFault {
    /// The kernel runs the call unchanged.
    #[default]
    Continue,
    /// The call fails with EIO.
    Eio,
}

/// Switches of the `[options]` table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Lets io_uring_setup(2) through. Off by default: operations submitted through a ring bypass seccomp.
    pub io_uring: bool,
    /// The new mount API.
    pub mount_api: MountApi,
    /// Supervisor faults.
    pub on_fault: OnFault,
}

/// A merged policy, ready for the emulator.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Names of the policies that took part, in the order given, for logs.
    pub names: Vec<String>,
    /// uname(2).
    pub uname: Uname,
    /// The machine.
    pub machine: Machine,
    /// Switches.
    pub options: Options,
    /// The tree, in order of rising precedence: a later row wins over an earlier one that matches the same
    /// path (through `*`). Two rows with the same pattern have been merged into the later one.
    pub rows: Vec<Row>,
    /// stat(2) of root directories, one for each path.
    pub stat: Vec<StatRow>,
    /// statfs(2), in order of rising precedence.
    pub statfs: Vec<StatfsRow>,
}

impl Policy {
    /// Whether the policy changes nothing, so that nothing needs to be trapped.
    pub fn is_empty(&self) -> bool {
        !self.uname.is_given()
            && self.machine == Machine::default()
            && self.rows.is_empty()
            && self.stat.is_empty()
            && self.statfs.is_empty()
    }
}
