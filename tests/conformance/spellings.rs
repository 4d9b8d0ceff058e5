//! Every spelling of a path: which ones reach the virtual file, and which ones only look as if they did.
//!
//! The file is one that every kernel here has, gVisor's included, so that a look at the real one can be compared too.

use crate::common::Build;
use crate::resolution::By::{Linux, Tree};
use crate::resolution::{Group, Row, Twin};

/// Long enough a path for both checks of the length limit.
const PATH_MAX: usize = 4096;

/// All groups of rows.
pub fn groups() -> Vec<Group> {
    let all: [fn() -> Vec<Group>; 14] = [
        spellings_of_one_file,
        spellings_from_an_i386_program,
        look_alikes,
        start_directories,
        order_of_checks,
        links,
        magic_links,
        path_descriptors,
        openat2_resolve_flags,
        lengths,
        other_roots,
        other_mounts,
        detached_mounts,
        threads_and_namespaces,
    ];
    all.into_iter().flat_map(|groups| groups()).collect()
}

fn group(name: &'static str, twin: Twin, rows: &'static [Row]) -> Group {
    Group { name, twin, rows, build: Build::Dynamic }
}

const SPELLINGS: &[Row] = &[
    ("all . /proc/sys/kernel/msgmax", "found real", Tree),
    ("all . //proc//sys///kernel/./msgmax", "found real", Tree),
    ("all . /proc/../proc/sys/kernel/msgmax", "found real", Tree),
    ("all . /../proc/sys/kernel/msgmax", "found real", Tree),
    ("all . /../../../proc/sys/kernel/msgmax", "found real", Tree),
    ("all . /proc/self/root/proc/sys/kernel/msgmax", "found real", Tree),
    ("all . /proc/self/root/../proc/sys/kernel/msgmax", "found real", Tree),
    ("all . /proc/self/../sys/kernel/msgmax", "found real", Tree),
    ("all . /proc/1/../sys/kernel/msgmax", "found real", Tree),
    ("all . /proc/$P/task/$T/../../../sys/kernel/msgmax", "found real", Tree),
    ("all . /proc/thread-self/../../../sys/kernel/msgmax", "found real", Tree),
    ("all . /proc/self/task/../../sys/kernel/msgmax", "found real", Tree),
    ("all . /proc/self/ns/../../sys/kernel/msgmax", "found real", Tree),
    ("all . /proc/self/fd/../../sys/kernel/msgmax", "found real", Tree),
    ("all . /proc/sys/kernel/../kernel/msgmax", "found real", Tree),
    ("all . /proc/sys/fs/../kernel/msgmax", "found real", Tree),
    ("all . /proc/self/cwd/proc/sys/kernel/msgmax", "found real", Tree),
    ("all . proc/sys/kernel/msgmax", "found real", Tree),
    ("all . ./proc/./sys/kernel/msgmax", "found real", Tree),
    ("all . ../proc/sys/kernel/msgmax", "found real", Tree),
    ("stat . /proc/sys/kernel", "dir 555 size 0", Linux),
    ("stat . /proc/sys/kernel/", "dir 555 size 0", Linux),
    ("stat . /proc/sys/kernel/.", "dir 555 size 0", Linux),
    ("stat . /proc/sys/kernel/..", "dir 555 size 0", Linux),
    ("stat . /proc/sys/kernel/msgmax", "file 644 size 0", Linux),
    ("lstat . /proc/sys/kernel/msgmax", "file", Linux),
    ("access . R /proc/sys/kernel/msgmax", "ok", Linux),
    ("access . X /proc/sys/kernel/msgmax", "EACCES", Linux),
    ("access . F /proc/sys/kernel/msgmax", "ok", Linux),
    ("access2 . R EACCESS /proc/sys/kernel/msgmax", "ok", Linux),
    ("statfs /proc/sys/kernel", "proc", Linux),
    ("readlink . /proc/sys/kernel", "EINVAL", Linux),
];

fn spellings_of_one_file() -> Vec<Group> {
    vec![group("spellings_of_one_file", Twin::Also, SPELLINGS)]
}

fn spellings_from_an_i386_program() -> Vec<Group> {
    vec![Group { build: Build::I386, ..group("spellings_from_an_i386_program", Twin::Also, SPELLINGS) }]
}

fn look_alikes() -> Vec<Group> {
    vec![group(
        "look_alikes",
        Twin::Also,
        &[
            ("all . /proc/net/../sys/kernel/msgmax", "ENOENT", Linux),
            ("all . /proc/net/../../sys/kernel/msgmax", "found real", Tree),
            ("all . /dev/fd/../sys/kernel/msgmax", "ENOENT", Linux),
            ("all . /dev/fd/../../sys/kernel/msgmax", "found real", Tree),
            ("all . /proc/thread-self/../../sys/kernel/msgmax", "ENOENT", Linux),
            ("all . /proc/thread-self/../../../../sys/kernel/msgmax", "ENOENT", Linux),
            ("all . /proc/mounts/../sys/kernel/msgmax", "ENOTDIR", Linux),
            ("all . /proc/self/exe/../x", "ENOTDIR", Linux),
            ("all . /proc/sys/kernel/msgmax/", "ENOTDIR", Linux),
            ("all . /proc/sys/kernel/msgmax/.", "ENOTDIR", Linux),
            ("all . /proc/sys/kernel/msgmax/..", "ENOTDIR", Linux),
            ("all . /proc/sys/kernel/msgmax/x", "ENOTDIR", Linux),
            ("all . /proc/sys/kernel/msgmax/../msgmax", "ENOTDIR", Linux),
            ("all . /proc/SYS/kernel/msgmax", "ENOENT", Linux),
            ("all . /proc/sys/kernel/MSGMAX", "ENOENT", Linux),
            ("all . /proc/sys/kernel/msgma", "ENOENT", Linux),
            ("all . /proc/sys/kernel/msgmax2", "ENOENT", Linux),
            ("all . /proc/sys/kernelmsgmax", "ENOENT", Linux),
            ("all . /proc/sys/kernel.msgmax", "ENOENT", Linux),
            ("all . /proc/sys/none/../kernel/msgmax", "ENOENT", Linux),
            ("all . /sys/kernel/msgmax", "ENOENT", Linux),
            ("all . /proc2/sys/kernel/msgmax", "ENOENT", Linux),
            ("open . 0 @/look/proc/sys/kernel/msgmax", "real", Linux),
            ("stat . @/look/proc/sys/kernel/msgmax", "file 644 size 19", Linux),
            ("cd @/look", "ok", Linux),
            ("open . 0 proc/sys/kernel/msgmax", "real", Linux),
            ("stat . proc/sys/kernel/msgmax", "file 644 size 19", Linux),
            ("all . /proc/self/cwd/../proc/sys/kernel/msgmax", "ENOENT", Linux),
            ("open . 0 /proc/self/cwd/proc/sys/kernel/msgmax", "real", Linux),
            ("bind d PATH @/look/proc/sys", "ok", Linux),
            ("open d 0 kernel/msgmax", "real", Linux),
            ("cd /tmp", "ok", Linux),
            ("all . /proc/self/cwd/../proc/sys/kernel/msgmax", "found real", Tree),
        ],
    )]
}

fn start_directories() -> Vec<Group> {
    vec![group(
        "start_directories",
        Twin::Also,
        &[
            ("cd /proc/sys/kernel", "ok", Linux),
            ("all . msgmax", "found real", Tree),
            ("all . ./msgmax", "found real", Tree),
            ("all . ../kernel/msgmax", "found real", Tree),
            ("all . ../../sys/kernel/msgmax", "found real", Tree),
            ("all . ../../../proc/sys/kernel/msgmax", "found real", Tree),
            ("all . msgmax/", "ENOTDIR", Linux),
            ("all . nothing", "ENOENT", Linux),
            ("getcwd", "/proc/sys/kernel", Linux),
            ("readlink . /proc/self/cwd", "/proc/sys/kernel", Linux),
            ("all . /proc/self/cwd/msgmax", "found real", Tree),
            ("cd ..", "ok", Linux),
            ("getcwd", "/proc/sys", Linux),
            ("all . kernel/msgmax", "found real", Tree),
            ("cd /", "ok", Linux),
            ("bind d PATH|DIRECTORY /proc/sys", "ok", Linux),
            ("all d kernel/msgmax", "found real", Tree),
            ("all d kernel/./../kernel/msgmax", "found real", Tree),
            ("all d ../sys/kernel/msgmax", "found real", Tree),
            ("all d msgmax", "ENOENT", Linux),
            ("all d ''", "ENOENT", Linux),
            ("bind k DIRECTORY /proc/sys/kernel", "ok", Linux),
            ("all k msgmax", "found real", Tree),
            ("all k ../kernel/msgmax", "found real", Tree),
            ("bindat j k DIRECTORY ..", "ok", Linux),
            ("all j kernel/msgmax", "found real", Tree),
            ("fchdir k", "ok", Linux),
            ("all . msgmax", "found real", Tree),
            ("getcwd", "/proc/sys/kernel", Linux),
            ("cd /", "ok", Linux),
            ("bind r PATH /", "ok", Linux),
            ("all r proc/sys/kernel/msgmax", "found real", Tree),
            ("bind s PATH /proc/self", "ok", Linux),
            ("all s ../sys/kernel/msgmax", "found real", Tree),
            ("all s root/proc/sys/kernel/msgmax", "found real", Tree),
        ],
    )]
}

fn order_of_checks() -> Vec<Group> {
    vec![group(
        "order_of_checks",
        Twin::Also,
        &[
            ("all bad kernel/msgmax", "EBADF", Linux),
            ("all bad /proc/sys/kernel/msgmax", "found real", Tree),
            ("all . ''", "ENOENT", Linux),
            ("bind f RDONLY /proc/sys/kernel/msgmax", "ok", Linux),
            ("all f x", "ENOTDIR", Linux),
            ("all f ..", "ENOTDIR", Linux),
            ("all f ''", "ENOENT", Linux),
            ("all f /proc/sys/kernel/msgmax", "found real", Tree),
            ("open2 . 0x40000000000 0 /proc/sys/kernel/msgmax", "EINVAL", Linux),
            ("open2 . 0 0x1000 /proc/sys/kernel/msgmax", "EINVAL", Linux),
            ("open2 . 0 BENEATH|IN_ROOT /proc/sys/kernel/msgmax", "EINVAL", Linux),
            ("open . DIRECTORY /proc/sys/kernel/msgmax", "ENOTDIR", Linux),
            ("open . WRONLY /proc/sys/kernel", "EISDIR", Linux),
            ("open . DIRECT /proc/sys/kernel/msgmax", "EINVAL", Linux),
            ("open . NOATIME /proc/sys/kernel/msgmax", "real", Tree),
            ("open . NONBLOCK|APPEND /proc/sys/kernel/msgmax", "real", Tree),
            ("open . CREAT /proc/sys/kernel/msgmax", "real", Tree),
            ("open . CREAT|EXCL /proc/sys/kernel/msgmax", "EEXIST", Linux),
            ("open . CREAT /proc/sys/kernel/nothing", "ENOENT", Linux),
            ("open . CREAT /proc/sys/kernel", "EISDIR", Linux),
            ("open . DIRECTORY /proc/sys/kernel", "dir", Linux),
            ("open . 0 /proc/sys/kernel", "dir", Linux),
            ("open . RDWR|TMPFILE /proc/sys/kernel", "EACCES", Linux),
        ],
    )]
}

fn links() -> Vec<Group> {
    vec![group(
        "links",
        Twin::Also,
        &[
            ("symlink /proc/sys/kernel/msgmax @/abs", "ok", Linux),
            ("symlink ../../proc/sys/kernel/msgmax @/rel", "ok", Linux),
            ("symlink /proc/sys/kernel @/dir", "ok", Linux),
            ("symlink @/loop @/loop", "ok", Linux),
            ("symlink /proc/sys/kernel/nothing @/dangling", "ok", Linux),
            ("symlink /proc/sys/kernel/msgmax/ @/slash", "ok", Linux),
            ("open . 0 @/abs", "real", Tree),
            ("open . 0 @/rel", "real", Tree),
            ("open . 0 @/dir/msgmax", "real", Tree),
            ("open . 0 @/dir/../kernel/msgmax", "real", Tree),
            ("stat . @/abs", "file 644 size 0", Linux),
            ("lstat . @/abs", "link", Linux),
            ("lstat . @/dir", "link", Linux),
            ("lstat . @/dir/", "dir", Linux),
            ("access . R @/abs", "ok", Linux),
            ("readlink . @/abs", "/proc/sys/kernel/msgmax", Linux),
            ("open . 0 @/loop", "ELOOP", Linux),
            ("stat . @/loop", "ELOOP", Linux),
            ("open . 0 @/dangling", "ENOENT", Linux),
            ("open . CREAT @/dangling", "ENOENT", Linux),
            ("open . CREAT|EXCL @/dangling", "EEXIST", Linux),
            ("open . 0 @/slash", "ENOTDIR", Linux),
            ("stat . @/slash", "ENOTDIR", Linux),
            ("open . NOFOLLOW @/abs", "ELOOP", Linux),
            ("open . NOFOLLOW @/dir/msgmax", "real", Tree),
            ("open . NOFOLLOW|DIRECTORY @/dir", "ENOTDIR", Linux),
            ("open . NOFOLLOW|PATH @/abs", "link", Linux),
            ("open . CREAT|EXCL @/abs", "EEXIST", Linux),
            ("open2 . 0 NO_SYMLINKS @/abs", "ELOOP", Linux),
            ("open2 . 0 NO_SYMLINKS @/dir/msgmax", "ELOOP", Linux),
            ("open2 . 0 NO_MAGICLINKS @/abs", "real", Tree),
            ("chain 41 @/c /proc/sys/kernel/msgmax", "41", Linux),
            ("open . 0 @/c40", "real", Tree),
            ("open . 0 @/c41", "ELOOP", Linux),
            ("stat . @/c40", "file 644 size 0", Linux),
            ("stat . @/c41", "ELOOP", Linux),
        ],
    )]
}

fn magic_links() -> Vec<Group> {
    vec![group(
        "magic_links",
        Twin::Also,
        &[
            ("bind a RDONLY /proc/sys/kernel/msgmax", "ok", Linux),
            ("bind d RDONLY /proc/sys/kernel", "ok", Linux),
            ("open . 0 /proc/self/fd/$a", "real", Tree),
            ("open . 0 /proc/$P/fd/$a", "real", Tree),
            ("open . 0 /proc/thread-self/fd/$a", "real", Tree),
            ("open . 0 /proc/self/task/$T/fd/$a", "real", Tree),
            ("open . 0 /dev/fd/$a", "real", Tree),
            ("open . NOFOLLOW /proc/self/fd/$a", "ELOOP", Linux),
            ("open . NOFOLLOW|PATH /proc/self/fd/$a", "link", Linux),
            ("readlink . /proc/self/fd/$a", "/proc/sys/kernel/msgmax", Linux),
            ("readlink . /proc/self/fd/$d", "/proc/sys/kernel", Linux),
            ("all . /proc/self/fd/$d/msgmax", "found real", Tree),
            ("all . /proc/self/fd/$d/../kernel/msgmax", "found real", Tree),
            ("all . /proc/self/fd/$a/x", "ENOTDIR", Linux),
            ("stat . /proc/self/fd/$a", "file 644 size 0", Linux),
            ("lstat . /proc/self/fd/$a", "link", Linux),
            ("access . R /proc/self/fd/$a", "ok", Linux),
            ("statfs /proc/self/fd/$a", "proc", Linux),
            ("readlink . /proc/self", "$P", Linux),
            ("readlink . /proc/self/root", "/", Linux),
            ("open2 . 0 NO_MAGICLINKS /proc/self/fd/$a", "ELOOP", Linux),
            ("open2 . 0 NO_SYMLINKS /proc/self/fd/$a", "ELOOP", Linux),
            ("open2 . 0 NO_MAGICLINKS /proc/self/root/proc/sys/kernel/msgmax", "ELOOP", Linux),
            ("open2 . 0 NO_MAGICLINKS /proc/self/../sys/kernel/msgmax", "real", Tree),
            ("open2 . 0 NO_SYMLINKS /proc/self/../sys/kernel/msgmax", "ELOOP", Linux),
        ],
    )]
}

fn path_descriptors() -> Vec<Group> {
    vec![group(
        "path_descriptors",
        Twin::Without,
        &[
            // A descriptor of a virtual file opened with O_PATH can be read: declared in DESIGN.md.
            ("bind p PATH /proc/sys/kernel/msgmax", "ok", Linux),
            ("open . 0 /proc/self/fd/$p", "real", Tree),
            ("open . 0 /dev/fd/$p", "real", Tree),
            ("open . 0 /proc/thread-self/fd/$p", "real", Tree),
            ("stat . /proc/self/fd/$p", "file 644 size 0", Linux),
            ("readlink . /proc/self/fd/$p", "/proc/sys/kernel/msgmax", Linux),
            ("all p x", "ENOTDIR", Linux),
        ],
    )]
}

/// Path, its start directory, and bare Linux' answer for each of no flag, NO_XDEV, NO_MAGICLINKS,
/// NO_SYMLINKS, BENEATH, IN_ROOT, CACHED. `p` is /proc, `r` is /, `k` is /proc/sys.
const OPENAT2: &[(&str, &str, [&str; 7])] = &[
    (".", "/proc/sys/kernel/msgmax", ["real", "EXDEV", "real", "real", "EXDEV", "real", "EAGAIN"]),
    ("r", "proc/sys/kernel/msgmax", ["real", "EXDEV", "real", "real", "real", "real", "EAGAIN"]),
    ("p", "sys/kernel/msgmax", ["real", "real", "real", "real", "real", "real", "EAGAIN"]),
    ("k", "kernel/msgmax", ["real", "real", "real", "real", "real", "real", "EAGAIN"]),
    // With CACHED the answer depends on whether the kernel remembers that `/kernel` is missing.
    ("k", "/kernel/msgmax", ["ENOENT", "ENOENT", "ENOENT", "ENOENT", "EXDEV", "real", "-"]),
    (
        "p",
        "self/root/proc/sys/kernel/msgmax",
        ["real", "EXDEV", "ELOOP", "ELOOP", "EXDEV", "EXDEV", "EAGAIN"],
    ),
    ("p", "sys/../sys/kernel/msgmax", ["real", "real", "real", "real", "real", "real", "EAGAIN"]),
    ("p", "self/../sys/kernel/msgmax", ["real", "real", "real", "ELOOP", "real", "real", "EAGAIN"]),
    ("k", "../sys/kernel/msgmax", ["real", "real", "real", "real", "EXDEV", "ENOENT", "EAGAIN"]),
    ("k", "../kernel/msgmax", ["ENOENT", "ENOENT", "ENOENT", "ENOENT", "EXDEV", "real", "EAGAIN"]),
];

fn openat2_resolve_flags() -> Vec<Group> {
    const FLAGS: [&str; 7] = ["0", "NO_XDEV", "NO_MAGICLINKS", "NO_SYMLINKS", "BENEATH", "IN_ROOT", "CACHED"];
    let mut rows: Vec<Row> = vec![
        ("bind r PATH /", "ok", Linux),
        ("bind p PATH /proc", "ok", Linux),
        ("bind k PATH /proc/sys", "ok", Linux),
    ];
    for (start, path, results) in OPENAT2 {
        for (flag, result) in FLAGS.iter().zip(results).filter(|(_, result)| **result != "-") {
            let line = format!("open2 {start} 0 {flag} {path}");
            rows.push((line.leak(), result, Tree));
        }
    }
    rows.push(("open2 k 0 BENEATH|NO_XDEV|NO_MAGICLINKS kernel/msgmax", "real", Tree));
    rows.push(("open2 k 0 BENEATH|NO_XDEV|NO_MAGICLINKS|NO_SYMLINKS kernel/msgmax", "real", Tree));
    vec![group("openat2_resolve_flags", Twin::Also, rows.leak())]
}

fn lengths() -> Vec<Group> {
    let padded = |length: usize| {
        let name = "sys/kernel/msgmax";
        format!("/proc{}{name}", "/".repeat(length - "/proc".len() - name.len()))
    };
    let component = |length: usize| "n".repeat(length);
    let mut rows: Vec<Row> = Vec::new();
    let mut row = |line: String, result, by| rows.push((line.leak(), result, by));
    // The twin's name is two bytes longer, so the limit itself is checked for the existing file only.
    row(format!("all . {}", padded(PATH_MAX - 16)), "found real", Tree);
    row(format!("all . {}", padded(PATH_MAX)), "ENAMETOOLONG", Linux);
    row(format!("all . {}", padded(PATH_MAX + 900)), "ENAMETOOLONG", Linux);
    row(format!("all . /proc/sys/kernel/{}", component(255)), "ENOENT", Linux);
    row(format!("all . /proc/sys/kernel/{}", component(256)), "ENOENT", Linux);
    row(format!("all . @/{}", component(255)), "ENOENT", Linux);
    row(format!("all . @/{}", component(256)), "ENAMETOOLONG", Linux);
    let longest: Row = (format!("all . {}", padded(PATH_MAX - 1)).leak(), "found real", Tree);
    vec![
        group("lengths", Twin::Also, rows.leak()),
        group("the_longest_path", Twin::Without, vec![longest].leak()),
    ]
}

fn other_roots() -> Vec<Group> {
    vec![
        group(
            "chroot_with_proc_inside",
            Twin::Also,
            &[
                ("unshare NEWNS", "ok", Linux),
                ("mount none / none REC|PRIVATE", "ok", Linux),
                ("mount /proc @/root/proc none BIND|REC", "ok", Linux),
                ("bind o PATH /proc", "ok", Linux),
                ("cd /proc", "ok", Linux),
                ("chroot @/root", "ok", Linux),
                ("all . /proc/sys/kernel/msgmax", "found real", Tree),
                ("all . /../../proc/sys/kernel/msgmax", "found real", Tree),
                ("all . /proc/self/root/proc/sys/kernel/msgmax", "found real", Tree),
                ("all o sys/kernel/msgmax", "found real", Tree),
                ("all . sys/kernel/msgmax", "found real", Tree),
                ("getcwd", "(unreachable)/proc", Linux),
                ("cd /", "ok", Linux),
                ("all . proc/sys/kernel/msgmax", "found real", Tree),
                ("all . sys/kernel/msgmax", "ENOENT", Linux),
            ],
        ),
        group(
            "chroot_without_proc_or_with_a_look_alike",
            Twin::Also,
            &[
                ("bind r PATH /", "ok", Linux),
                ("chroot @/root", "ok", Linux),
                ("all . /proc/sys/kernel/msgmax", "ENOENT", Linux),
                ("all r proc/sys/kernel/msgmax", "found real", Tree),
                ("fchdir r", "ok", Linux),
                ("chroot .", "ok", Linux),
                ("chroot @/look", "ok", Linux),
                ("open . 0 /proc/sys/kernel/msgmax", "real", Linux),
                ("stat . /proc/sys/kernel/msgmax", "file 644 size 19", Linux),
            ],
        ),
    ]
}

fn other_mounts() -> Vec<Group> {
    vec![
        group(
            "bind_mounts_and_a_second_procfs",
            Twin::Also,
            &[
                ("unshare NEWNS", "ok", Linux),
                ("mount none / none REC|PRIVATE", "ok", Linux),
                ("all . /proc/sys/kernel/msgmax", "found real", Tree),
                ("mount /proc/sys @/s none BIND", "ok", Linux),
                ("all . @/s/kernel/msgmax", "found real", Tree),
                ("all . @/s/kernel/../kernel/msgmax", "found real", Tree),
                ("all . @/s/../s/kernel/msgmax", "found real", Tree),
                ("all . @/s/../sys/kernel/msgmax", "ENOENT", Linux),
                ("bind s PATH @/s", "ok", Linux),
                ("all s kernel/msgmax", "found real", Tree),
                ("mount proc @/p proc 0", "ok", Linux),
                ("all . @/p/sys/kernel/msgmax", "found real", Tree),
                ("all . @/p/self/../sys/kernel/msgmax", "found real", Tree),
                ("all . @/p/self/root/proc/sys/kernel/msgmax", "found real", Tree),
                ("cd @/p/sys", "ok", Linux),
                ("all . kernel/msgmax", "found real", Tree),
                ("getcwd", "@/p/sys", Linux),
            ],
        ),
        group(
            "mounts_of_or_over_virtual_files",
            Twin::Without,
            &[
                ("unshare NEWNS", "ok", Linux),
                ("mount none / none REC|PRIVATE", "ok", Linux),
                ("mount /proc/sys/kernel/msgmax @/f none BIND", "ok", Linux),
                ("open . 0 @/f", "real", Tree),
                ("stat . @/f", "file 644 size 0", Linux),
                ("mount /proc/sys/kernel @/s none BIND", "ok", Linux),
                ("all . @/s/msgmax", "found real", Tree),
                ("mount @/plain /proc/sys/kernel/msgmax none BIND", "ok", Linux),
                ("open . 0 /proc/sys/kernel/msgmax", "real", Linux),
                ("stat . /proc/sys/kernel/msgmax", "file 644 size 19", Linux),
                // What is mounted over a *directory* keeps the directory's path: hiding it from programs is what
                // sandboxes do, and what policies are to undo. See `b15_msgmax_hidden`.
            ],
        ),
    ]
}

fn detached_mounts() -> Vec<Group> {
    vec![group(
        "detached_mounts",
        Twin::Also,
        &[
            ("procfs d", "ok", Linux),
            ("all d sys/kernel/msgmax", "found real", Tree),
            ("all d ../sys/kernel/msgmax", "found real", Tree),
            ("all d self/../sys/kernel/msgmax", "found real", Tree),
            ("open2 d 0 BENEATH|NO_XDEV|NO_MAGICLINKS sys/kernel/msgmax", "real", Tree),
            ("all d kernel/msgmax", "ENOENT", Linux),
            ("bindat x d RDONLY sys/kernel/msgmax", "ok", Linux),
            ("open . 0 /proc/self/fd/$x", "real", Tree),
            ("fchdir d", "ok", Linux),
            ("all . sys/kernel/msgmax", "found real", Tree),
            ("procfs s pid", "ok", Linux),
            ("all s sys/kernel/msgmax", "ENOENT", Linux),
            ("open s 0 self/cgroup", "real", Linux),
            ("tree t /proc", "ok", Linux),
            ("all t sys/kernel/msgmax", "found real", Tree),
            ("all t ../sys/kernel/msgmax", "found real", Tree),
        ],
    )]
}

fn threads_and_namespaces() -> Vec<Group> {
    vec![
        group(
            "a_thread_with_its_own_working_directory",
            Twin::Also,
            &[
                ("cd /proc", "ok", Linux),
                ("thread", "ok", Linux),
                ("unshare FS", "ok", Linux),
                ("cd /proc/sys", "ok", Linux),
                ("all . kernel/msgmax", "found real", Tree),
                ("all . sys/kernel/msgmax", "ENOENT", Linux),
                ("all . /proc/self/cwd/sys/kernel/msgmax", "found real", Tree),
                ("all . /proc/self/cwd/kernel/msgmax", "ENOENT", Linux),
                ("all . /proc/thread-self/cwd/kernel/msgmax", "found real", Tree),
                ("readlink . /proc/self/cwd", "/proc", Linux),
                ("readlink . /proc/thread-self/cwd", "/proc/sys", Linux),
                ("all . /proc/$T/cwd/kernel/msgmax", "found real", Tree),
            ],
        ),
        group(
            "a_new_pid_namespace",
            Twin::Also,
            &[
                ("unshare NEWPID|NEWNS", "ok", Linux),
                ("mount none / none REC|PRIVATE", "ok", Linux),
                ("fork", "ok", Linux),
                ("all . /proc/sys/kernel/msgmax", "found real", Tree),
                ("all . /proc/self/../sys/kernel/msgmax", "found real", Tree),
                ("all . /proc/self/root/proc/sys/kernel/msgmax", "found real", Tree),
                ("all . /proc/thread-self/../../../sys/kernel/msgmax", "found real", Tree),
                ("mount proc @/p proc 0", "ok", Linux),
                ("readlink . @/p/self", "$P", Linux),
                ("all . @/p/sys/kernel/msgmax", "found real", Tree),
                ("all . @/p/self/../sys/kernel/msgmax", "found real", Tree),
                ("all . @/p/1/root/proc/sys/kernel/msgmax", "found real", Tree),
                ("mount proc /proc proc 0", "ok", Linux),
                ("readlink . /proc/self", "$P", Linux),
                ("all . /proc/sys/kernel/msgmax", "found real", Tree),
                ("all . /proc/self/task/1/../../../sys/kernel/msgmax", "found real", Tree),
            ],
        ),
        group(
            "a_new_user_namespace_and_another_user",
            Twin::Also,
            &[
                ("open . 0 @/private/link", "real", Tree),
                ("setfsuid 65534", "ok", Linux),
                ("open . 0 @/private/link", "EACCES", Linux),
                ("stat . @/private/link", "EACCES", Linux),
                ("open . 0 /proc/sys/kernel/msgmax", "real", Tree),
                ("setfsuid 0", "ok", Linux),
                ("unshare NEWUSER", "ok", Linux),
                ("all . /proc/sys/kernel/msgmax", "found real", Tree),
            ],
        ),
    ]
}
