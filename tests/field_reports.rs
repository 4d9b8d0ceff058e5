//! Bug reports from the field as small cases, as far as programs read: one test for each, by its number in
//! the collection they come from. A case passes when it prints what the reporter had wanted to see.

mod common;

use common::{Build, Run, Scratch, guest, guest_as, is_root, skip, sysemu_program};

/// Runs a shell script under sysemu with these options.
#[track_caller]
fn shell(options: &[&str], script: &str) -> String {
    Run::shell(script).under(options).go().good()
}

const KUBELET: &[&str] = &["-p", "kubelet"];

#[test]
fn b02_kubelet_finds_the_values_it_demands() {
    let script = "for p in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \
                  kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do k=${p%=*}; \
                  [ \"$(cat /proc/sys/$k 2>&1)\" = \"${p#*=}\" ] && echo ok; done";
    assert_eq!(shell(KUBELET, script), "ok\n".repeat(6));
}

#[test]
fn b04_a_module_parameter_appears_beside_real_modules() {
    let options = ["--file", "/sys/module/sysemu_conntrack/parameters/hashsize=262144"];
    let script = "cat /sys/module/sysemu_conntrack/parameters/hashsize; test -d /sys/module/sysemu_conntrack && echo dir; \
                  ls /sys/module | grep -c sysemu_conntrack; [ $(ls /sys/module | wc -l) -gt 5 ] && echo others";
    assert_eq!(shell(&options, script), "262144\ndir\n1\nothers\n");
}

#[test]
fn b05_swaps_has_its_heading() {
    let content = "/proc/swaps=Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority";
    let script =
        "awk 'END{print NR}' /proc/swaps; head -c 8 /proc/swaps; echo; free | awk '/^Swap/{print $2}'";
    assert_eq!(shell(&["--file", content], script), "1\nFilename\n0\n");
}

#[test]
fn b06_kmsg_opens_and_blocks() {
    let scratch = Scratch::new();
    let policy = scratch.write(
        "kmsg.toml",
        "schema = 1\n[[file]]\npath = \"/dev/kmsg\"\nprovider = \"blocking\"\nmode = \"0644\"\n",
    );
    let script = "timeout 1 sh -c 'exec 3</dev/kmsg && dd bs=8192 count=1 <&3 2>/dev/null | wc -c'; echo rc=$?; \
                  stat -c %F /dev/kmsg; python3 -c '\
import os, select\n\
fd = os.open(\"/dev/kmsg\", os.O_RDONLY | os.O_NONBLOCK)\n\
print(os.lseek(fd, 0, os.SEEK_END))\n\
try:\n    os.read(fd, 10)\n\
except BlockingIOError:\n    print(\"EAGAIN\")\n\
print(select.select([fd], [], [], 0)[0])'";
    assert_eq!(shell(&["-p", &policy], script), "rc=124\ncharacter special file\n0\nEAGAIN\n[]\n");
}

#[test]
fn b10_statfs_by_path_covers_what_is_below_and_no_namesake() {
    let scratch = Scratch::new();
    let dir = scratch.join("dir").to_str().expect("text").to_owned();
    std::fs::create_dir_all(format!("{dir}/below")).expect("created");
    std::fs::create_dir_all(format!("{dir}x")).expect("created");
    let statfs = format!("{dir}=0x1021994");
    let script = format!(
        "stat -f -c '%t %T' {dir} {dir}/below; stat -f -c %t {dir}x; \
         python3 -c 'import os; print(os.fstatvfs(os.open(\"{dir}\", os.O_RDONLY)).f_bsize > 0)'"
    );
    let native = Run::new(&["stat", "-f", "-c", "%t", &format!("{dir}x")]).go().good();
    assert_eq!(
        shell(&["--statfs", &statfs], &script),
        format!("1021994 tmpfs\n1021994 tmpfs\n{native}True\n")
    );
}

#[test]
fn b12_the_checks_of_container_runtimes_on_procfs_pass() {
    let run = Run::new(&[&guest("fdfacts"), "/proc/sys/kernel/panic"]);
    let bare = run.go().good();
    let wrapped = run.under(&["--set", "kernel.panic=12345"]).go().good();
    let expected: Vec<String> =
        std::iter::once("magic=9fa0 perm=644 link=/proc/sys/kernel/panic same=1".to_owned())
            .chain([1, 2, 4, 8, 16, 15].map(|resolve| format!("openat2 {resolve}: 12345")))
            .collect();
    assert_eq!(wrapped.lines().map(str::to_owned).collect::<Vec<_>>(), expected);
    assert_eq!(bare.lines().next(), wrapped.lines().next());
    assert_eq!(shell(&["--set", "kernel.panic=1"], "stat -c %i /proc"), "1\n");
}

#[test]
fn b13_entries_of_interfaces_follow_the_interfaces() {
    if !is_root() {
        return skip("b13", "making a network namespace needs root");
    }
    let scratch = Scratch::new();
    let row = |key: &str, value: &str| {
        format!("[[sysctl]]\nkey = \"{key}\"\nvalue = \"{value}\"\ntype = \"int\"\n")
    };
    let policy = format!("schema = 1\n{}", row("net.ipv6.conf.*.sysemu_flag", "1"));
    let policy = scratch.write("if.toml", &policy);
    let script = "unshare -n sh -c 'cd /proc/sys/net/ipv6/conf; ip link add d7 type veth peer name d8; for t in all default lo d7; do \
                  echo $t $(cat $t/sysemu_flag); done; cat nosuch0/sysemu_flag 2>&1 | grep -c \"No such file\"; ls'";
    let interfaces = "all\nd7\ndefault\nlo\n";
    let real =
        Run::shell("unshare -n sh -c 'ip link add d7 type veth peer name d8; ls /proc/sys/net/ipv6/conf'")
            .go()
            .good();
    let mut names: Vec<&str> = real.lines().collect();
    names.sort_unstable();
    assert!(interfaces.lines().all(|name| names.contains(&name)), "{real}");
    let expected = format!("all 1\ndefault 1\nlo 1\nd7 1\n1\n{}\n", names.join("\n"));
    assert_eq!(shell(&["-p", &policy], script), expected);
}

#[test]
fn b14_every_process_sees_the_value_and_runs_are_separate() {
    let script = "sysctl -n net.ipv4.tcp_keepalive_time; sh -c 'sysctl -n net.ipv4.tcp_keepalive_time'; \
                  setsid sh -c 'cat /proc/sys/net/ipv4/tcp_keepalive_time' | cat";
    for value in ["1000", "2000"] {
        let set = format!("net.ipv4.tcp_keepalive_time={value}");
        assert_eq!(shell(&["--set", &set], script), format!("{value}\n").repeat(3));
    }
}

#[test]
fn b15_pid_max_hidden() {
    if !is_root() {
        return skip("b15", "hiding a directory needs root");
    }
    let script = format!(
        "mount -t tmpfs t /proc/sys/kernel; exec {} --no-auto -p linux -- sh -c \
         \"awk '{{exit !(\\$1>300)}}' /proc/sys/kernel/pid_max; echo \\$?; ls /proc/sys/kernel | grep -c '^pid_max$'\"",
        sysemu_program()
    );
    assert_eq!(Run::new(&["unshare", "-m", "sh", "-c", &script]).go().good(), "0\n1\n");
}

fn machine(scratch: &Scratch, text: &str) -> String {
    scratch.write("machine.toml", &format!("schema = 1\n[machine]\n{text}\n"))
}

#[test]
fn b16_topology_agrees_with_the_machine() {
    let scratch = Scratch::new();
    let policy = machine(&scratch, "cpus = 2");
    let script =
        "numactl -H | head -1; lstopo-no-graphics --of console | grep -c PU; lscpu -p=CPU,NODE | tail -1";
    assert_eq!(shell(&["-p", &policy], script), "available: 1 nodes (0)\n2\n1,0\n");
}

#[test]
fn b17_the_release_is_the_same_in_all_places() {
    let script = "a=$(uname -r); b=$(cat /proc/sys/kernel/osrelease); c=$(cut -d' ' -f3 /proc/version); \
                  [ \"$a\" = \"$b\" ] && [ \"$a\" = \"$c\" ] && echo same $a; \
                  python3 -c 'import os; print(os.uname().release)'; busybox uname -r";
    let release = "6.1.0-sysemu";
    assert_eq!(
        shell(&["--uname-release", release], script),
        format!("same {release}\n{release}\n{release}\n")
    );
}

#[test]
fn b19_without_a_listener_nothing_runs_bare() {
    // An outer supervisor holds the only listener that the kernel allows, or is the only tracer that it allows.
    for (backend, refusal) in [("notify", "already listens"), ("ptrace", "cannot trace the program")] {
        let backend = ["--backend", backend];
        let inner =
            [&[sysemu_program()], &backend[..], &["--set", "vm.swappiness=1", "--", "echo", "ran"]].concat();
        let mut words = vec![sysemu_program(), "--no-auto"];
        words.extend(backend.into_iter().chain(["--set", "vm.swappiness=2", "--"]).chain(inner));
        let outcome = Run::new(&words).go();
        assert_eq!((outcome.status, outcome.stdout.as_str()), (125, ""), "{}", outcome.stderr);
        assert!(outcome.stderr.contains(refusal), "{}", outcome.stderr);
    }
    let mut words = vec!["strace", "-f", "-qq", "-o", "/dev/null", "-e", "inject=seccomp:error=EPERM"];
    words.extend([sysemu_program(), "--set", "vm.swappiness=1", "--", "echo", "ran"]);
    let outcome = Run::new(&words).go();
    assert_eq!((outcome.status, outcome.stdout.as_str()), (125, ""), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("sysemu doctor"), "{}", outcome.stderr);
}

#[test]
fn b20_timer_signals_neither_stop_nor_leak() {
    let storm = guest("storm");
    for path in ["/proc/sys/kernel/pid_max", "/etc/passwd"] {
        let run = Run::new(&[&storm, "1", path]);
        let outcome = run.under(&["--set", "kernel.pid_max=77777"]).limit(30).go().good();
        assert_eq!(outcome, run.go().good(), "{path}");
    }
}

#[test]
fn b21_a_caller_that_dies_takes_nobody_along() {
    let script = "i=0; while [ $i -lt 200 ]; do cat /proc/sys/kernel/pid_max >/dev/null & p=$!; sleep 0.00$((i%4)); \
                  kill -9 $p 2>/dev/null; i=$((i+1)); done; wait; cat /proc/sys/kernel/pid_max";
    let outcome = Run::new(&["bash", "-c", script]).under(&["--set", "kernel.pid_max=77777"]).go();
    assert_eq!((outcome.stdout.as_str(), outcome.status), ("77777\n", 0), "{}", outcome.stderr);
}

#[test]
fn b22_descriptors_directories_and_links_lead_to_the_file() {
    let scratch = Scratch::new();
    let run = Run::new(&[&guest("relative"), scratch.path().to_str().expect("text")]);
    assert_eq!(run.under(&["--set", "kernel.pid_max=77777"]).go().good(), "77777\n111111\n77777\n");
}

#[test]
fn b23_exec_from_another_thread() {
    let program = guest("execthread");
    let times = if common::is_long() { 200 } else { 20 };
    for how in ["pause", "gone", "busy", "vfork"] {
        let script = format!(
            "i=0; while [ $i -lt {times} ]; do {program} {how} /bin/cat /proc/sys/kernel/pid_max || exit 1; i=$((i+1)); done"
        );
        let text = Run::shell(&script).under(&["--set", "kernel.pid_max=77777"]).go().good();
        assert_eq!(text, "77777\n".repeat(times), "{how}");
    }
}

#[test]
fn b24_no_call_slips_through() {
    for build in [Build::Dynamic, Build::Static] {
        let program = guest_as("syscalls", build);
        let options = ["--set", "kernel.pid_max=77777", "--file", "/sys/module/sysemu_only/parameters/x=1"];
        for path in ["/proc/sys/kernel/pid_max", "/sys/module/sysemu_only/parameters/x"] {
            let text = Run::new(&[&program, path]).under(&options).go().good();
            let odd: Vec<&str> = text.lines().filter(|line| !line.ends_with(" ok")).collect();
            assert_eq!(odd, ["readlink    EINVAL"], "{path}\n{text}");
        }
        let missing =
            Run::new(&[&program, "/sys/module/sysemu_only/parameters/y"]).under(&options).go().good();
        assert!(missing.lines().all(|line| line.ends_with(" ENOENT")), "{missing}");
    }
    let script = "p=/sys/module/sysemu_only/parameters/x; test -e $p && [ -r $p ] && ls -l $p >/dev/null && \
                  stat $p >/dev/null && find $p && wc -c <$p";
    let text = shell(&["--file", "/sys/module/sysemu_only/parameters/x=1"], script);
    assert_eq!(text, "/sys/module/sysemu_only/parameters/x\n2\n");
}

#[test]
fn b25_memory_is_the_same_from_file_and_call() {
    let scratch = Scratch::new();
    let policy = machine(&scratch, "memory = \"512M\"");
    let script = "busybox free -m | awk '/^Mem/{print $2}'; free -m | awk '/^Mem/{print $2}'; \
                  python3 -c 'import os; print(os.sysconf(\"SC_PHYS_PAGES\") * os.sysconf(\"SC_PAGE_SIZE\") >> 20)'; \
                  node -e 'console.log(os.totalmem() >> 20)'";
    assert_eq!(shell(&["-p", &policy], script), "512\n512\n512\n512\n");
}

#[test]
fn b26_cpu_counts_agree() {
    let scratch = Scratch::new();
    for cpus in [1, 4] {
        let policy = machine(&scratch, &format!("cpus = {cpus}"));
        let script = "for q in _NPROCESSORS_CONF _NPROCESSORS_ONLN; do getconf $q; done; grep -c ^processor /proc/cpuinfo; \
                      grep -c '^cpu[0-9]' /proc/stat; ls -d /sys/devices/system/cpu/cpu[0-9]* | wc -l; nproc; \
                      cat /sys/devices/system/cpu/possible";
        let list = if cpus == 1 { "0".to_owned() } else { format!("0-{}", cpus - 1) };
        assert_eq!(shell(&["-p", &policy], script), format!("{cpus}\n").repeat(6) + &list + "\n");
    }
}

/// Counts the CPUs of itself by its number, of a thread, of another process, of one that is confined, and of nobody.
const AFFINITIES: &str = r#"
import os, subprocess, threading
def cpus(pid): return len(os.sched_getaffinity(pid))
print(os.getpid(), cpus(0), cpus(os.getpid()))
def thread(): print(threading.get_native_id(), cpus(threading.get_native_id()), cpus(os.getpid()))
t = threading.Thread(target=thread); t.start(); t.join()
other = subprocess.Popen(["sleep", "60"])
print(cpus(other.pid))
os.sched_setaffinity(other.pid, {0})
print(cpus(other.pid))
other.kill(); other.wait()
for pid in (other.pid, -1):
    try: print(cpus(pid))
    except ProcessLookupError: print("nobody")
"#;

#[test]
fn a_pid_namespace_has_numbers_of_its_own() {
    if !is_root() {
        return skip("a_pid_namespace_has_numbers_of_its_own", "needs root");
    }
    let scratch = Scratch::new();
    let policy = machine(&scratch, "cpus = 4");
    let program = scratch.write("affinities.py", AFFINITIES);
    let run = Run::new(&["unshare", "--pid", "--fork", "--kill-child", "/usr/bin/python3", &program]);
    // On a host with one CPU nobody can be confined.
    let confined = if std::thread::available_parallelism().is_ok_and(|cpus| cpus.get() > 1) { 1 } else { 4 };
    let wanted = format!("1 4 4\n2 4 4\n4\n{confined}\nnobody\nnobody\n");
    assert_eq!(run.under(&["-p", &policy]).go().good(), wanted);
}

#[test]
fn b27_long_files_are_read_to_their_end() {
    let scratch = Scratch::new();
    let content = format!("/proc/sysemu_long={}", "x".repeat(8999));
    let python = "import os, sys\n\
f = os.open(sys.argv[1], 0)\n\
print(sum(len(x) for x in iter(lambda: os.read(f, 700), b'')))\n\
print(len(os.pread(f, 10, 8999)), len(os.pread(f, 10, 9000)))\n\
a, b = os.open(sys.argv[1], 0), os.open(sys.argv[1], 0)\n\
os.read(a, 100)\n\
print(len(os.read(b, 9000)), len(os.read(a, 9000)))\n";
    let program = scratch.write("read.py", python);
    let script = format!(
        "python3 {program} /proc/sysemu_long; tail -c1 /proc/sysemu_long | od -An -c; \
         dd if=/proc/sysemu_long bs=4096 skip=1 2>/dev/null | wc -c"
    );
    assert_eq!(shell(&["--file", &content], &script), "9000\n1 0\n9000 8900\n  \\n\n4904\n");
}

#[test]
fn b29_redis_starts_without_warnings() {
    let scratch = Scratch::new();
    let socket = scratch.join("r.sock");
    let script = format!(
        "timeout 2 redis-server --port 0 --unixsocket {} --save '' | grep -c WARNING",
        socket.display()
    );
    let count = |options: &[&str]| Run::shell(&script).under(options).go().stdout;
    assert_eq!(count(&["-p", "redis-server"]), "0\n");
    assert_eq!(count(&["-p", "redis-server", "--set", "vm.overcommit_memory=0"]), "1\n");
    assert_eq!(count(&["-p", "redis-server", "--set", "net.core.somaxconn=128"]), "1\n");
}

#[test]
fn b30_elasticsearch_finds_enough_maps() {
    let script = "[ $(cat /proc/sys/vm/max_map_count) -ge 262144 ] && echo pass";
    assert_eq!(shell(&["-p", "elasticsearch"], script), "pass\n");
}

#[test]
fn b31_statvfs_says_which_sysctls_are_read_only() {
    let scratch = Scratch::new();
    let policy = scratch.write(
        "ro.toml",
        "schema = 1\n[[statfs]]\npath = \"/proc/sys\"\ntype = \"proc\"\nreadonly = true\n[[statfs]]\npath = \"/proc/sys/net\"\n\
         type = \"proc\"\nreadonly = false\n",
    );
    let script = "python3 -c 'import os; print([os.statvfs(p).f_flag & 1 for p in (\"/proc/sys\", \"/proc/sys/net\")])'";
    assert_eq!(shell(&["-p", &policy], script), "[1, 0]\n");
    assert_eq!(shell(&["-p", "linux"], script), "[0, 0]\n");
}

#[test]
fn b32_a_hidden_file_is_hidden_everywhere() {
    let script = "p=/proc/sys/kernel/panic_on_oops; cat $p 2>&1 | grep -c 'No such file'; test -e $p; echo $?; \
                  ls /proc/sys/kernel | grep -c '^panic_on_oops$'; echo /proc/sys/kernel/panic_on_oop* ; \
                  sysctl -a 2>&1 >/dev/null | grep -c panic_on_oops; cat /proc/sys/kernel/panic >/dev/null && echo sibling";
    let expected = "1\n1\n0\n/proc/sys/kernel/panic_on_oop*\n0\nsibling\n";
    assert_eq!(shell(&["--hide", "/proc/sys/kernel/panic_on_oops"], script), expected);
    let absent = "for p in kernel/unprivileged_userns_clone crypto/fips_enabled fs/may_detach_mounts; do \
                  test -e /proc/sys/$p; echo $?; done; ls /proc/sys/kernel | grep -c userns";
    let bare = Run::shell(absent).go().stdout;
    assert_eq!(Run::shell(absent).under(&["-p", "k3s"]).go().stdout, bare);
}
