//! The format as a table: every table of a policy file with its keys. Checks, hints, the JSON Schema and the
//! reference in `policies/README.md` all derive from it.

/// The type of a key's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A string.
    Text,
    /// A string out of a fixed set.
    OneOf(&'static [&'static str]),
    /// A whole number that is not negative.
    Number,
    /// A number, or a string with a suffix K, M, G or T (powers of 1024).
    Size,
    /// `true` or `false`.
    Flag,
    /// A pair of whole numbers, or of strings for values over 2^63.
    Range,
    /// A list of strings.
    Texts,
    /// Octal permission bits as a string.
    Mode,
    /// A name or a `0x` number as a string.
    Magic,
}

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// The type of its value.
    pub kind: Kind,
    /// Whether it must be there.
    pub required: bool,
    /// What it means.
    pub doc: &'static str,
}

/// One table.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    /// Its name; empty for the top of the file.
    pub name: &'static str,
    /// Whether it is an array of tables (`[[name]]`).
    pub is_array: bool,
    /// What it is for.
    pub doc: &'static str,
    /// Its keys.
    pub keys: &'static [Key],
}

impl Section {
    /// The key of this name.
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }

    /// How the table is written in a file.
    pub fn heading(&self) -> String {
        match (self.name, self.is_array) {
            ("", _) => "top of the file".into(),
            (name, true) => format!("[[{name}]]"),
            (name, false) => format!("[{name}]"),
        }
    }
}

const fn key(name: &'static str, kind: Kind, doc: &'static str) -> Key {
    Key { name, kind, required: false, doc }
}

const fn required(name: &'static str, kind: Kind, doc: &'static str) -> Key {
    Key { name, kind, required: true, doc }
}

/// Names of codecs.
pub const TYPES: &[&str] = &["int", "uint", "ulong", "bool", "string", "int-list", "ulong-list"];
/// Names of scopes.
pub const SCOPES: &[&str] = &["global", "net", "uts", "ipc", "user", "pid"];
/// Names of write rules.
pub const WRITES: &[&str] = &["keep", "ignore", "deny", "forward"];
/// Root directories of file systems that rows reach by kind.
pub const ROOTS: &[&str] = &["/proc", "/sys"];
/// Names of conditions.
pub const WHENS: &[&str] = &["always", "missing"];

const TYPE: Key = key("type", Kind::OneOf(TYPES), "how the value is parsed and printed");
const LEN: Key = key("len", Kind::Number, "values of a list, or bytes a string can hold (4095)");
const RANGE: Key = key("range", Kind::Range, "smallest and largest value; for lists, of each value");
const MODE: Key = key("mode", Kind::Mode, "permission bits");
const SCOPE: Key = key("scope", Kind::OneOf(SCOPES), "the namespace that a value belongs to (global)");
const WRITE: Key = key(
    "write",
    Kind::OneOf(WRITES),
    "what a write does: keep it, ignore it, deny it as a read-only mount does (EROFS), or forward it to the real \
     file and keep it when that fails (sysctl: keep, file: deny)",
);
const CHOICES: Key = key("choices", Kind::Texts, "the only values that can be written");
const OTHERWISE: Key = key(
    "otherwise",
    Kind::OneOf(&["EINVAL", "ENOENT"]),
    "the errno for a value that is none of the choices (EINVAL)",
);
const REVERSED: Key = key(
    "reversed",
    Kind::Text,
    "a pair whose first is greater: refuse (EINVAL), or the values that are kept instead",
);
const NOT_BELOW: Key = key(
    "not_below",
    Kind::Text,
    "the file whose first value is the least that the first one can be (EINVAL)",
);
const NOT_ABOVE: Key =
    key("not_above", Kind::Text, "the file whose first value is the most that the first one can be (EINVAL)");
const ALSO: Key = key("also", Kind::Texts, "files that a write gives the same value; `*` stands for all");
const ZEROES: Key = key("zeroes", Kind::Texts, "files that a write sets to 0");
const ZEROES_ON_CHANGE: Key =
    key("zeroes_on_change", Kind::Texts, "files that a write of another value than before sets to 0");
const FOLLOWS: Key =
    key("follows", Kind::Text, "the file whose written value shows here until this one is written");
const EXCEPT: Key = key(
    "except",
    Kind::Texts,
    "path components of files that do not follow, such as all, where `*` stands for many",
);
const ROUND_UP: Key = key("round_up", Kind::Number, "numbers are kept as multiples of this, rounded up");
const ROUND_DOWN: Key =
    key("round_down", Kind::Number, "numbers are kept as multiples of this, rounded down");
const NEEDS: Key = key(
    "needs",
    Kind::OneOf(super::rules::CAPABILITY_NAMES),
    "the capability without which writing fails with EPERM",
);
const POLL: Key = key("poll", Kind::Flag, "whether a change wakes poll(2) with POLLPRI and POLLERR (false)");
const WHEN: Key = key(
    "when",
    Kind::OneOf(WHENS),
    "always, or missing: only where the real object is absent or cannot be read (always)",
);
const DOC: Key = key("doc", Kind::Text, "what it is for");
const SOURCE: Key = key("source", Kind::Text, "where the demand or the value comes from");
const PROVIDER: Key = key("provider", Kind::Text, "name of the provider that computes the content");
const PATH: Key = required(
    "path",
    Kind::Text,
    "absolute path; `*` matches any one component, `{cpu}` and `{node}` stand for each CPU and memory node",
);

/// Keys of every row that describes a file.
const CONTENT_KEYS: [Key; 23] = [
    TYPE,
    LEN,
    RANGE,
    MODE,
    SCOPE,
    WRITE,
    CHOICES,
    OTHERWISE,
    REVERSED,
    NOT_BELOW,
    NOT_ABOVE,
    ALSO,
    ZEROES,
    ZEROES_ON_CHANGE,
    FOLLOWS,
    EXCEPT,
    ROUND_UP,
    ROUND_DOWN,
    NEEDS,
    POLL,
    WHEN,
    DOC,
    SOURCE,
];

const SYSCTL_KEYS: [Key; 3 + CONTENT_KEYS.len()] = with_content_keys([
    required(
        "key",
        Kind::Text,
        "name as sysctl(8) spells it, with `.` or `/`; `*` matches any one component",
    ),
    key("value", Kind::Text, "its value"),
    PROVIDER,
]);

const FILE_KEYS: [Key; 4 + CONTENT_KEYS.len()] = with_content_keys([
    PATH,
    key("content", Kind::Text, "its bytes"),
    PROVIDER,
    key("like", Kind::Text, "path of a real file that is given instead, such as /dev/null"),
]);

const fn with_content_keys<const OWN: usize, const ALL: usize>(own: [Key; OWN]) -> [Key; ALL] {
    let mut keys = [DOC; ALL];
    let mut at = 0;
    while at < ALL {
        keys[at] = if at < OWN { own[at] } else { CONTENT_KEYS[at - OWN] };
        at += 1;
    }
    keys
}

/// The format.
pub const SECTIONS: &[Section] = &[
    Section {
        name: "",
        is_array: false,
        doc: "what the policy is",
        keys: &[
            required("schema", Kind::Number, "version of the format: 1"),
            key("name", Kind::Text, "name of the policy (the file's name)"),
            key("doc", Kind::Text, "what it is for"),
            key("include", Kind::Texts, "policies that this one builds on; its own rows win over theirs"),
        ],
    },
    Section {
        name: "uname",
        is_array: false,
        doc: "fields of uname(2); the files that show the same follow",
        keys: &[
            key("sysname", Kind::Text, "also /proc/sys/kernel/ostype"),
            key("nodename", Kind::Text, "also /proc/sys/kernel/hostname"),
            key("release", Kind::Text, "also /proc/sys/kernel/osrelease and /proc/version"),
            key("version", Kind::Text, "also /proc/sys/kernel/version and /proc/version"),
            key("machine", Kind::Text, "also /proc/sys/kernel/arch"),
            key("domainname", Kind::Text, "also /proc/sys/kernel/domainname"),
            key("files", Kind::Flag, "whether the files follow (true); false traps nothing but uname(2)"),
        ],
    },
    Section {
        name: "machine",
        is_array: false,
        doc: "what providers compute from; the host's own by default",
        keys: &[
            key(
                "cpus",
                Kind::Number,
                "number of CPUs: cpuinfo, topology, stat and sched_getaffinity(2) agree",
            ),
            key("memory", Kind::Size, "bytes of memory: meminfo, sysinfo(2) and the node's meminfo agree"),
        ],
    },
    Section {
        name: "options",
        is_array: false,
        doc: "switches",
        keys: &[
            key(
                "io_uring",
                Kind::OneOf(&["off", "allow"]),
                "whether io_uring_setup(2) works (off): rings bypass the filter",
            ),
            key(
                "mount_api",
                Kind::OneOf(&["emulate", "enosys"]),
                "fsopen(2), open_tree(2) and the like (emulate)",
            ),
            key(
                "on_fault",
                Kind::OneOf(&["continue", "eio"]),
                "the answer when the supervisor itself fails (continue)",
            ),
        ],
    },
    Section { name: "sysctl", is_array: true, doc: "a file below /proc/sys with a type", keys: &SYSCTL_KEYS },
    Section { name: "file", is_array: true, doc: "a file", keys: &FILE_KEYS },
    Section { name: "dir", is_array: true, doc: "a directory", keys: &[PATH, MODE, WHEN, DOC, SOURCE] },
    Section {
        name: "link",
        is_array: true,
        doc: "a symbolic link",
        keys: &[PATH, required("target", Kind::Text, "the text of the link"), WHEN, DOC, SOURCE],
    },
    Section {
        name: "absent",
        is_array: true,
        doc: "hides a path everywhere: open, stat, access, listing",
        keys: &[PATH, DOC, SOURCE],
    },
    Section {
        name: "stat",
        is_array: true,
        doc: "what stat(2), fstat(2) and statx(2) report of the root directory of every procfs or sysfs",
        keys: &[
            required(
                "path",
                Kind::OneOf(ROOTS),
                "which: /proc stands for every procfs, /sys for every sysfs",
            ),
            required("inode", Kind::Number, "its inode number; traps nothing where the real one is the same"),
            DOC,
            SOURCE,
        ],
    },
    Section {
        name: "statfs",
        is_array: true,
        doc: "what statfs(2) and fstatfs(2) report",
        keys: &[
            key("path", Kind::Text, "everything at and below this path"),
            key("from", Kind::Magic, "every file system that reports this type"),
            required("type", Kind::Magic, "the type reported instead: a name or a 0x number"),
            key("blocks", Kind::Number, "blocks in all"),
            key("bfree", Kind::Number, "free blocks"),
            key("files", Kind::Number, "inodes in all"),
            key("ffree", Kind::Number, "free inodes"),
            key("readonly", Kind::Flag, "whether ST_RDONLY is set"),
            DOC,
            SOURCE,
        ],
    },
];

/// The table of this name.
pub fn section(name: &str) -> Option<&'static Section> {
    SECTIONS.iter().find(|section| section.name == name)
}

/// File system types by name: the numbers of linux/magic.h and statfs(2).
pub const MAGICS: &[(&str, u64)] = &[
    ("9p", 0x0102_1997),
    ("bpf", 0xcafe_4a11),
    ("btrfs", 0x9123_683e),
    ("cgroup", 0x0027_e0eb),
    ("cgroup2", 0x6367_7270),
    ("debugfs", 0x6462_6720),
    ("devpts", 0x1cd1),
    ("erofs", 0xe0f5_e1e2),
    ("ext4", 0xef53),
    ("fuse", 0x6573_5546),
    ("hugetlbfs", 0x9584_58f6),
    ("mqueue", 0x1980_0202),
    ("nfs", 0x6969),
    ("nsfs", 0x6e73_6673),
    ("overlay", 0x794c_7630),
    ("proc", 0x9fa0),
    ("ramfs", 0x8584_58f6),
    ("securityfs", 0x7363_6673),
    ("selinuxfs", 0xf97c_ff8c),
    ("smb2", 0xfe53_4d42),
    ("squashfs", 0x7371_7368),
    ("sysfs", 0x6265_6572),
    ("tmpfs", 0x0102_1994),
    ("tracefs", 0x7472_6163),
    ("xfs", 0x5846_5342),
    ("zfs", 0x2fc1_2fc1),
];

/// A file system type by name or `0x` number.
pub fn magic(text: &str) -> Option<u64> {
    if let Some(digits) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        return u64::from_str_radix(digits, 16).ok();
    }
    MAGICS.iter().find(|(name, _)| *name == text).map(|(_, magic)| *magic)
}
