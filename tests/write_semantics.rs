//! What writing a virtual sysctl does, against the real one of the same type on bare Linux, in namespaces of its own.

mod common;

use std::collections::BTreeSet;

use common::{Run, Scratch, guest, is_ptrace, is_root, skip};

/// A sysctl that belongs to a namespace, with a value, the ends of its range, and the rest of its row.
struct Case {
    key: &'static str,
    value: &'static str,
    ends: [&'static str; 2],
    row: &'static str,
}

const CASES: &[Case] = &[
    Case {
        key: "net.ipv4.conf.lo.tag",
        value: "7",
        ends: ["0", "9"],
        row: "type = \"int\"\nscope = \"net\"",
    },
    Case {
        key: "net.core.somaxconn",
        value: "7",
        ends: ["0", "2147483647"],
        row: "type = \"int\"\nrange = [0, 2147483647]\nscope = \"net\"",
    },
    Case {
        key: "net.ipv4.tcp_keepalive_probes",
        value: "7",
        ends: ["0", "255"],
        row: "type = \"uint\"\nrange = [0, 255]\nscope = \"net\"",
    },
    Case {
        key: "net.ipv4.tcp_rmem",
        value: "7 8 9",
        ends: ["1", "2147483647"],
        row: "type = \"int-list\"\nlen = 3\nrange = [1, 2147483647]\nscope = \"net\"",
    },
    Case { key: "kernel.shmmax", value: "7", ends: ["0", "9"], row: "type = \"ulong\"\nscope = \"ipc\"" },
    Case {
        key: "kernel.domainname",
        value: "abc",
        ends: ["x", "y"],
        row: "type = \"string\"\nlen = 64\nscope = \"uts\"",
    },
    Case {
        key: "net.ipv4.ip_local_port_range",
        value: "20000 30000",
        ends: ["1023", "65535"],
        row: "type = \"int-list\"\nlen = 2\nrange = [1, 65535]\nreversed = \"refuse\"\nscope = \"net\"\n\
              not_below = \"net.ipv4.ip_unprivileged_port_start\"\n\n\
              [[sysctl]]\nkey = \"net.ipv4.ip_unprivileged_port_start\"\nvalue = \"1024\"\ntype = \"int\"",
    },
    Case {
        key: "net.ipv4.ping_group_range",
        value: "1 0",
        ends: ["0", "4294967294"],
        row: "type = \"ulong-list\"\nlen = 2\nrange = [0, 4294967294]\nreversed = \"1 0\"\nscope = \"net\"",
    },
];

/// Lines that differ by declaration (DESIGN.md), by how they start: the kernel's own idea of a FUSE file's position when
/// it is opened for appending.
const DECLARED: &[&str] = &["append 2", "append 1 then 2"];

/// A memfd has a mode and an owner of its own, and is read in pieces. The program opens it by a link.
const DECLARED_FOR_MEMFD: &[&str] = &["fchmod", "fchown", "1 then read", "O_WRONLY|O_NOFOLLOW"];

/// What errors of write(2) come from: the file system, or the tracer that hears of each write.
fn carrier() -> &'static str {
    if is_ptrace() { "memfd" } else { "fuse" }
}

/// In namespaces of its own, where writing real sysctls harms nobody.
fn isolated(run: &Run) -> Run {
    let mut words = vec!["unshare", "-n", "-i", "-u"];
    words.extend(run.words());
    Run::new(&words)
}

fn policy(scratch: &Scratch, key: &str, value: &str, row: &str) -> String {
    scratch.write("p.toml", &format!("schema = 1\n[[sysctl]]\nkey = \"{key}\"\nvalue = \"{value}\"\n{row}\n"))
}

/// A handler of the kernel that does not move the position cannot be had from FUSE: only lseek(2) tells.
fn without_position(line: &str) -> String {
    match line.split_once(" position ") {
        Some((before, after)) => format!("{before} {}", after.split_once(' ').map_or("", |(_, rest)| rest)),
        None => line.to_owned(),
    }
}

#[test]
fn writing_gives_the_counts_errors_and_contents_of_the_real_file() {
    if !is_root() {
        return skip("write_semantics", "namespaces with sysctls of their own need root");
    }
    let mut wrong = Vec::new();
    let (more, declared) = if is_ptrace() { (DECLARED_FOR_MEMFD, &[][..]) } else { (&[][..], DECLARED) };
    let declared: BTreeSet<&str> = declared.iter().chain(more).copied().collect();
    let mut unseen = declared.clone();
    for case in CASES {
        let scratch = Scratch::new();
        let path = format!("/proc/sys/{}", case.key.replace('.', "/"));
        let run = Run::new(&[&guest("writes"), &path, case.value, case.ends[0], case.ends[1]]);
        let bare = isolated(&run).go().good();
        let policy = policy(&scratch, case.key, case.value, case.row);
        let wrapped = isolated(&run.under(&["-p", &policy, "--carrier", carrier()])).go().good();
        assert_eq!(bare.lines().count(), wrapped.lines().count(), "{bare}\n{wrapped}");
        assert!(bare.lines().count() > 100, "{bare}");
        let keeps_position = case.row.contains("\"uint\"");
        for (bare, wrapped) in bare.lines().zip(wrapped.lines()) {
            let shown = |line: &str| if keeps_position { without_position(line) } else { line.to_owned() };
            if shown(bare) == shown(wrapped) {
                continue;
            }
            let name = bare.split(':').next().unwrap_or("");
            let is_only_position = without_position(bare) == without_position(wrapped);
            if !declared.contains(name) || !(is_only_position || more.contains(&name)) {
                wrong.push(format!("{}\n  - {bare}\n  + {wrapped}", case.key));
            }
            unseen.remove(name);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(unseen.is_empty(), "declared, but not different: {unseen:?}");
}

/// Runs a script bare and under rows that say what the kernel says, and expects the same output.
#[track_caller]
fn same(name: &str, rows: &str, script: &str) -> String {
    same_with(carrier(), name, rows, script)
}

#[track_caller]
fn same_with(carrier: &str, name: &str, rows: &str, script: &str) -> String {
    let scratch = Scratch::new();
    let policy = scratch.write("p.toml", &format!("schema = 1\n{rows}"));
    let run = Run::shell(script);
    let bare = isolated(&run).go();
    let wrapped = isolated(&run.under(&["-p", &policy, "--carrier", carrier])).go();
    assert_eq!(bare.status, wrapped.status, "{name}: {} {}", bare.stderr, wrapped.stderr);
    common::assert_same(name, &bare.stdout, &wrapped.stdout);
    common::assert_same(name, &bare.stderr, &wrapped.stderr);
    wrapped.stdout
}

const SOMAXCONN: &str = "[[sysctl]]\nkey = \"net.core.somaxconn\"\nvalue = \"4096\"\ntype = \"int\"\n\
                         range = [0, 2147483647]\nscope = \"net\"\n";

#[test]
fn a_value_belongs_to_its_network_namespace() {
    if !is_root() {
        return skip("a_value_belongs_to_its_network_namespace", "network namespaces need root");
    }
    let script = "f=/proc/sys/net/core/somaxconn; cat $f; echo 5 >$f; cat $f; \
                  unshare -n sh -c \"cat $f; echo 6 >$f; cat $f\"; cat $f; unshare -n cat $f; \
                  exec 3<$f; echo 7 >$f; cat <&3; sysctl -w net.core.somaxconn=8; sysctl net.core.somaxconn; \
                  sh -c 'sysctl -n net.core.somaxconn'; exec 4<$f; unshare -n sh -c 'cat <&4'; true";
    let shown = same("scopes", SOMAXCONN, script);
    assert!(shown.ends_with("7\nnet.core.somaxconn = 8\nnet.core.somaxconn = 8\n8\n8\n"), "{shown}");
}

#[test]
fn who_may_write_is_decided_as_for_the_real_file() {
    if !is_root() {
        return skip("who_may_write_is_decided_as_for_the_real_file", "namespaces need root");
    }
    let rows = format!(
        "{SOMAXCONN}[[sysctl]]\nkey = \"kernel.domainname\"\nvalue = \"(none)\"\ntype = \"string\"\nlen = 64\n\
         scope = \"uts\"\n[[sysctl]]\nkey = \"kernel.shmmax\"\nvalue = \"18446744073692774399\"\ntype = \"ulong\"\n\
         scope = \"ipc\"\n[[sysctl]]\nkey = \"vm.swappiness\"\nvalue = \"60\"\ntype = \"int\"\nrange = [0, 200]\n\
         [[sysctl]]\nkey = \"user.max_uts_namespaces\"\nvalue = \"100\"\ntype = \"ulong\"\nscope = \"user\"\n"
    );
    // Opening for writing changes nothing.
    let files = "net/core/somaxconn kernel/domainname kernel/shmmax vm/swappiness user/max_uts_namespaces";
    let check = format!(
        "for f in {files}; do (true >/proc/sys/$f) 2>/dev/null && echo $f || echo no $f; \
         test -w /proc/sys/$f && echo may; done"
    );
    let script = format!(
        "{check}; setpriv --reuid 65534 --clear-groups --inh-caps -all --bounding-set -all sh -c '{check}'; \
         setpriv --reuid 65534 --clear-groups unshare -U -r -n -i -u sh -c '{check}'; unshare -U sh -c '{check}'"
    );
    same("permissions", &rows, &script);
}

#[test]
fn rights_are_looked_at_again_at_each_write() {
    if !is_root() {
        return skip("rights_are_looked_at_again_at_each_write", "giving up root needs root");
    }
    let rows = format!(
        "{SOMAXCONN}[[sysctl]]\nkey = \"net.ipv4.ip_forward\"\nvalue = \"0\"\ntype = \"int\"\nscope = \"net\"\n\
         needs = \"CAP_NET_ADMIN\"\n"
    );
    let scratch = Scratch::new();
    let given_up = "import os\ntry: os.setuid(1); os.write(3, b'1')\nexcept OSError as e: print(e)\n";
    let without = "import os\nf = os.open('/proc/sys/net/ipv4/ip_forward', os.O_WRONLY)\n\
                   try: os.write(f, b'0')\nexcept OSError as e: print(e)\n";
    let (given_up, without) = (scratch.write("given_up.py", given_up), scratch.write("without.py", without));
    let script = format!(
        "exec 3>/proc/sys/net/core/somaxconn; echo 1 >/proc/sys/net/ipv4/ip_forward; echo 9 >&3; \
         setpriv --reuid 65534 --clear-groups sh -c 'echo 10 >&3' 2>/dev/null || echo refused; python3 {given_up}; \
         setpriv --bounding-set -all --inh-caps -all python3 {without}; \
         cat /proc/sys/net/core/somaxconn /proc/sys/net/ipv4/ip_forward"
    );
    let shown = same("later", &rows, &script);
    assert!(shown.contains("refused") && shown.matches("Operation not permitted").count() == 2, "{shown}");
}

/// Nobody hears of read(2) of a memfd, so this is with FUSE in both backends.
#[test]
fn rights_are_looked_at_again_at_each_read() {
    if !is_root() {
        return skip("rights_are_looked_at_again_at_each_read", "giving up root needs root");
    }
    let row = "[[sysctl]]\nkey = \"kernel.cad_pid\"\nvalue = \"1\"\ntype = \"int\"\nmode = \"0600\"\n";
    let script = "exec 4</proc/sys/kernel/cad_pid; cat <&4; exec 4</proc/sys/kernel/cad_pid; \
                  setpriv --reuid 65534 --clear-groups cat <&4 2>&1";
    let shown = same_with("fuse", "later", row, script);
    assert_eq!(shown.matches("Operation not permitted").count(), 1, "{shown}");
}

#[test]
fn write_rules_keep_ignore_and_deny() {
    let scratch = Scratch::new();
    let row = |key: &str, rest: &str| {
        format!("[[sysctl]]\nkey = \"{key}\"\nvalue = \"1\"\ntype = \"int\"\n{rest}\n")
    };
    let rows = [
        row("vm.kept", "mode = \"0666\""),
        row("vm.ignored", "mode = \"0666\"\nwrite = \"ignore\""),
        row("vm.denied", "mode = \"0666\"\nwrite = \"deny\""),
        row("vm.read_only", "mode = \"0444\""),
    ];
    let file = "[[file]]\npath = \"/proc/sysemu-file\"\ncontent = \"x\\n\"\nmode = \"0666\"\n\
                [[file]]\npath = \"/proc/sysemu-text\"\ncontent = \"x\\n\"\nmode = \"0666\"\nwrite = \"keep\"\n";
    let policy = scratch.write("p.toml", &format!("schema = 1\n{}{file}", rows.concat()));
    let script = r#"
import os
for p in 'sys/vm/kept', 'sys/vm/ignored', 'sys/vm/denied', 'sys/vm/read_only', 'sysemu-file', 'sysemu-text':
    for text in b'2 \n', b'x':
        try:
            f = os.open('/proc/' + p, os.O_WRONLY | os.O_TRUNC | os.O_CREAT)
            r = os.write(f, text)
            os.close(f)
        except OSError as e: r = e.strerror
        print(p, os.access('/proc/' + p, os.W_OK), r, open('/proc/' + p).read().strip())
"#;
    let run = Run::new(&["python3", "-c", script]);
    let carriers: &[&str] = if is_root() { &["fuse"] } else { &[] };
    for carrier in carriers {
        let shown = run.under(&["-p", &policy, "--carrier", carrier]).go().good();
        let root_sees = "sys/vm/kept True 3 2\nsys/vm/kept True Invalid argument 2\n\
                         sys/vm/ignored True 3 1\nsys/vm/ignored True Invalid argument 1\n\
                         sys/vm/denied False Read-only file system 1\nsys/vm/denied False Read-only file system 1\n\
                         sys/vm/read_only False Permission denied 1\nsys/vm/read_only False Permission denied 1\n\
                         sysemu-file False Read-only file system x\nsysemu-file False Read-only file system x\n\
                         sysemu-text True 3 2\nsysemu-text True 1 x\n";
        assert_eq!(shown, root_sees, "{carrier}");
    }
}

/// The values are those of Linux 6.18 after the same writes; the files belong to the whole machine, so that no test sets them.
#[test]
fn keys_of_one_quantity_zero_each_other() {
    let script = r#"cd /proc/sys/vm
set_to() { printf "$2" >"$1" 2>/dev/null; echo "$1 $2:" $(cat $3); }
dirty() { set_to "$1" "$2" 'dirty_ratio dirty_bytes'; }
background() { set_to "$1" "$2" 'dirty_background_ratio dirty_background_bytes'; }
overcommit() { set_to "$1" "$2" 'overcommit_ratio overcommit_kbytes'; }
dirty dirty_bytes 100000000; dirty dirty_ratio 0; dirty dirty_ratio 20; dirty dirty_ratio 101
background dirty_background_bytes 4000000; background dirty_background_ratio 0
background dirty_background_bytes 4000000; background dirty_background_ratio 101
background dirty_background_ratio '10 x'
overcommit overcommit_kbytes 1000; overcommit overcommit_kbytes 0; overcommit overcommit_ratio 50
"#;
    let expected = "dirty_bytes 100000000: 0 100000000\ndirty_ratio 0: 0 100000000\ndirty_ratio 20: 20 0\n\
                    dirty_ratio 101: 20 0\ndirty_background_bytes 4000000: 0 4000000\n\
                    dirty_background_ratio 0: 0 0\ndirty_background_bytes 4000000: 0 4000000\n\
                    dirty_background_ratio 101: 0 4000000\ndirty_background_ratio 10 x: 10 0\n\
                    overcommit_kbytes 1000: 0 1000\novercommit_kbytes 0: 0 0\novercommit_ratio 50: 50 0\n";
    let keys = ["dirty_ratio=20", "dirty_bytes=0", "dirty_background_ratio=10", "dirty_background_bytes=0"];
    let keys = keys.into_iter().chain(["overcommit_ratio=50", "overcommit_kbytes=0"]);
    let options: Vec<String> = keys.flat_map(|key| ["--set".to_owned(), format!("vm.{key}")]).collect();
    for carrier in [carrier(), "memfd"] {
        let mut words: Vec<&str> = options.iter().map(String::as_str).collect();
        words.extend(["--carrier", carrier]);
        assert_eq!(Run::new(&["sh", "-c", script]).under(&words).go().stdout, expected, "{carrier}");
    }
}

#[test]
fn names_set_by_calls_and_by_files_agree_and_wake_who_polls() {
    if !is_root() {
        return skip("names_set_by_calls_and_by_files_agree_and_wake_who_polls", "UTS namespaces need root");
    }
    let scratch = Scratch::new();
    let policy = scratch.write("p.toml", "schema = 1\n[uname]\nnodename = \"virtual\"\n");
    let run = Run::new(&[&guest("names"), "/proc/sys/kernel"]);
    let bare = isolated(&run).go().good();
    let rest = |text: &str| text.split_once('\n').expect("a first line").1.to_owned();
    // In the supervisor's own UTS namespace, and in another one.
    let own = isolated(&run.under(&["-p", &policy, "--carrier", "fuse"])).go().good();
    let other = isolated(&run).under(&["-p", &policy, "--carrier", "fuse"]).go().good();
    for wrapped in [own, other] {
        assert!(wrapped.starts_with("start: uname virtual gethostname virtual file virtual\n"), "{wrapped}");
        common::assert_same("names", &rest(&bare), &rest(&wrapped));
    }
    let host = nix::unistd::gethostname().expect("a name");
    assert!(bare.contains("as nobody: EPERM EACCES") && host != *"sixth", "{bare}");
}

#[test]
fn what_is_written_to_a_memfd_counts_at_the_next_look() {
    let scratch = Scratch::new();
    let row = |key: &str, rest: &str| format!("[[sysctl]]\nkey = \"{key}\"\nmode = \"0666\"\n{rest}\n");
    let rows = row("vm.one", "value = \"1\"\ntype = \"int\"\nrange = [0, 200]")
        + &row("vm.three", "value = \"1 2 3\"\ntype = \"int-list\"\nlen = 3")
        + &row("vm.text", "value = \"abc\"\ntype = \"string\"\nlen = 9")
        + &row("vm.mirror", "value = \"0\"\ntype = \"int\"\nalso = [\"vm.one\"]");
    let policy = scratch.write("p.toml", &format!("schema = 1\n{rows}"));
    let script = r#"
import os
def path(name): return '/proc/sys/vm/' + name
def show(what, name): print(what, open(path(name)).read().strip())
reader = os.open(path('one'), os.O_RDONLY)
os.read(reader, 9)
for text in b'33\n', b'abc\n', b'500\n', b'44':
    f = os.open(path('one'), os.O_WRONLY | os.O_TRUNC)
    os.write(f, text)
    show('not closed', 'one')
    os.close(f)
print('by a reader', os.pread(reader, 9, 0))
f = os.open(path('one'), os.O_WRONLY)
os.write(f, b'5')
show('first', 'one')
os.write(f, b'6')
show('at a position', 'one')
os.lseek(f, 0, 0)
os.write(f, b'77')
show('from the start', 'one')
with open(path('three'), 'w') as f: f.write('7 8')
show('three', 'three')
with open(path('text'), 'a') as f: f.write('longer than that')
show('text', 'text')
with open(path('mirror'), 'r+') as f:
    f.read(); f.seek(0); f.write('9\n')
show('mirror', 'mirror')
show('mirrored', 'one')
if not os.fork():
    show('in a child', 'one')
    open(path('one'), 'w').write('11')
    os._exit(0)
os.wait()
show('by a child', 'one')
print('by the reader', os.pread(reader, 9, 0))
"#;
    let run = Run::new(&["python3", "-u", "-c", script]);
    let outcome = run.under(&["-p", &policy, "--backend", "notify", "--carrier", "memfd"]).go();
    let refused: Vec<&str> = outcome.stderr.lines().filter(|line| line.contains("refused")).collect();
    assert_eq!(refused.len(), 2, "{}", outcome.stderr);
    assert!(refused.iter().all(|line| line.contains("EINVAL") && line.contains("vm/one")), "{refused:?}");
    assert_eq!(
        outcome.good(),
        "not closed 33\nnot closed 33\nnot closed 33\nnot closed 44\nby a reader b'44\\n'\nfirst 5\nat a position 5\n\
         from the start 77\nthree 7\t8\t3\ntext longer th\nmirror 9\nmirrored 9\nin a child 9\nby a child 11\n\
         by the reader b'11\\n'\n"
    );
}

#[test]
fn a_private_procfs_leads_to_the_values_of_the_writers_namespace() {
    if !is_root() {
        return skip("a_private_procfs_leads_to_the_values_of_the_writers_namespace", "mounting needs root");
    }
    let scratch = Scratch::new();
    let rows = "[[sysctl]]\nkey = \"net.ipv4.ping_group_range\"\nvalue = \"1 0\"\ntype = \"ulong-list\"\nlen = 2\n\
                scope = \"net\"\nreversed = \"1 0\"\n[[sysctl]]\nkey = \"net.ipv4.ip_unprivileged_port_start\"\n\
                value = \"1024\"\ntype = \"int\"\nrange = [0, 65535]\nscope = \"net\"\n";
    let policy = scratch.write("p.toml", &format!("schema = 1\n{rows}"));
    let guest = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/guests/hardened.py");
    let keys = ["net.ipv4.ping_group_range=0 2147483647", "net.ipv4.ip_unprivileged_port_start=0"];
    let run = isolated(&Run::new(&["python3", guest, keys[0], keys[1]]));
    let bare = run.go().good();
    let outside = "; cat /proc/sys/net/ipv4/ip_unprivileged_port_start";
    let words: Vec<String> = run.words().map(|word| format!("'{word}'")).collect();
    let script = words.join(" ") + outside;
    let wrapped = Run::shell(&script).under(&["-p", &policy, "--carrier", carrier()]).go().good();
    common::assert_same("procfs", &format!("{bare}1024\n"), &wrapped);
    assert!(bare.contains("reopened: 0x9fa0 12\nnow: 0\t2147483647\n"), "{bare}");
}

#[test]
fn offsets_count_only_while_the_policy_is_strict() {
    let scratch = Scratch::new();
    let rows = "[[sysctl]]\nkey = \"kernel.sysctl_writes_strict\"\nvalue = \"1\"\ntype = \"int\"\nrange = [-1, 1]\n\
                mode = \"0666\"\n[[sysctl]]\nkey = \"vm.mine\"\nvalue = \"7\"\ntype = \"int\"\nmode = \"0666\"\n";
    let policy = scratch.write("p.toml", &format!("schema = 1\n{rows}"));
    let script = "cd /proc/sys; for strict in 1 0; do echo $strict >kernel/sysctl_writes_strict; echo 7 >vm/mine; \
                  (printf 1; printf 2) >vm/mine; cat vm/mine; done";
    if !is_root() {
        return skip("offsets_count_only_while_the_policy_is_strict", "FUSE needs root");
    }
    assert_eq!(Run::shell(script).under(&["-p", &policy, "--carrier", carrier()]).go().good(), "1\n2\n");
}

#[test]
fn forwarded_values_reach_the_real_file_of_the_writers_namespace() {
    if !is_root() {
        return skip("forwarded_values_reach_the_real_file_of_the_writers_namespace", "namespaces need root");
    }
    let scratch = Scratch::new();
    let rows = "[[sysctl]]\nkey = \"net.core.somaxconn\"\nvalue = \"5\"\ntype = \"int\"\nscope = \"net\"\n\
                write = \"forward\"\n[[sysctl]]\nkey = \"net.core.none_such\"\nvalue = \"5\"\ntype = \"int\"\n\
                range = [0, 9]\nscope = \"net\"\nwrite = \"forward\"\n";
    let policy = scratch.write("p.toml", &format!("schema = 1\n{rows}"));
    // What one namespace has really is what a program without sysemu, in the same one, sees: it waits beside it.
    let script = "cd /proc/sys/net/core; cat somaxconn; echo 9 >somaxconn; cat somaxconn; echo x >somaxconn; \
                  unshare -n sh -c 'cat somaxconn; echo 11 >somaxconn; cat somaxconn'; cat somaxconn; \
                  echo 6 >none_such; cat none_such; echo 10 >none_such; cat none_such";
    let inner = Run::shell(script).under(&["-p", &policy, "--carrier", carrier()]);
    let words: Vec<String> = inner.words().map(|word| format!("'{}'", word.replace('\'', r"'\''"))).collect();
    let outer = format!("{} 2>/dev/null; cat /proc/sys/net/core/somaxconn", words.join(" "));
    assert_eq!(isolated(&Run::shell(&outer)).go().good(), "5\n9\n5\n11\n9\n6\n6\n9\n");
}

#[test]
fn watchers_hear_of_writes() {
    if !is_root() {
        return skip("watchers_hear_of_writes", "FUSE needs root");
    }
    let rows =
        "[[sysctl]]\nkey = \"net.core.somaxconn\"\nvalue = \"4096\"\ntype = \"int\"\nscope = \"net\"\n";
    let scratch = Scratch::new();
    let watch = r#"
import ctypes, os, struct
libc = ctypes.CDLL(None)
path = '/proc/sys/net/core/somaxconn'
watch = libc.inotify_init1(os.O_NONBLOCK)
assert libc.inotify_add_watch(watch, path.encode(), MASK) >= 0
with open(path, 'w') as file: file.write('7\n')
data = os.read(watch, 4096)
print([struct.unpack_from('iIII', data, at)[1] for at in range(0, len(data), 16)])
"#;
    // With the ptrace backend the supervisor closes a description of its own, which shows as one more IN_CLOSE_WRITE.
    let mask = if is_ptrace() { "2 | 32" } else { "2 | 8 | 32" };
    let script = format!("python3 {}", scratch.write("watch.py", &watch.replace("MASK", mask)));
    same_with("fuse", "inotify", rows, &script);
}

/// Writers in all threads of a program, each with a descriptor of its own, and one that all share.
#[test]
fn threads_that_write_get_their_own_errors() {
    let script = r#"
import os, threading
path, wrong = '/proc/sys/vm/swappiness', []
shared = os.open(path, os.O_WRONLY)
def write(number):
    own = os.open(path, os.O_WRONLY)
    for _ in range(50):
        for fd in own, shared:
            if os.pwrite(fd, b'%d\n' % number, 0) != len(b'%d\n' % number): wrong.append('count')
            try: os.pwrite(fd, b'%d' % (number + 1000), 0); wrong.append('no error')
            except OSError as e:
                if e.errno != 22: wrong.append(str(e))
    os.close(own)
threads = [threading.Thread(target=write, args=(n,)) for n in range(8)]
for t in threads: t.start()
for t in threads: t.join()
print(wrong, open(path).read().strip() in map(str, range(8)))
"#;
    let run = Run::new(&["python3", "-c", script]);
    assert_eq!(run.under(&["--set", "vm.swappiness=60", "--carrier", carrier()]).go().good(), "[] True\n");
}
