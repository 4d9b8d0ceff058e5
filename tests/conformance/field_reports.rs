//! Bug reports from the field as small cases, as far as programs read: one for each, by its number in
//! the collection they come from. A case passes when it prints what the reporter had wanted to see.

use crate::Case;
use crate::common::gvisor::Version::{self, V2022, V2024, V2026};
use crate::common::{self, Build, Run, guest, guest_as, sysemu_program};
use crate::table::Tally;
use crate::world::{Place, World};

/// A name and what checks it.
type Report = (&'static str, fn(World));

/// Cases for everybody.
const ALL: &[Report] = &[
    ("b02_kubelet_finds_the_values_it_demands", b02_kubelet_finds_the_values_it_demands),
    (
        "b04_a_module_parameter_appears_beside_real_modules",
        b04_a_module_parameter_appears_beside_real_modules,
    ),
    ("b05_swaps_has_its_heading", b05_swaps_has_its_heading),
    ("b06_kmsg_opens_and_blocks", b06_kmsg_opens_and_blocks),
    (
        "b10_statfs_by_path_covers_what_is_below_and_no_namesake",
        b10_statfs_by_path_covers_what_is_below_and_no_namesake,
    ),
    (
        "b12_the_checks_of_container_runtimes_on_procfs_pass",
        b12_the_checks_of_container_runtimes_on_procfs_pass,
    ),
    (
        "b14_every_process_sees_the_value_and_runs_are_separate",
        b14_every_process_sees_the_value_and_runs_are_separate,
    ),
    ("b16_topology_agrees_with_the_machine", b16_topology_agrees_with_the_machine),
    ("b17_the_release_is_the_same_in_all_places", b17_the_release_is_the_same_in_all_places),
    ("b19_without_a_listener_nothing_runs_bare", b19_without_a_listener_nothing_runs_bare),
    ("b20_timer_signals_neither_stop_nor_leak", b20_timer_signals_neither_stop_nor_leak),
    ("b21_a_caller_that_dies_takes_nobody_along", b21_a_caller_that_dies_takes_nobody_along),
    (
        "b22_descriptors_directories_and_links_lead_to_the_file",
        b22_descriptors_directories_and_links_lead_to_the_file,
    ),
    ("b23_exec_from_another_thread", b23_exec_from_another_thread),
    ("b24_no_call_slips_through", b24_no_call_slips_through),
    ("b25_memory_is_the_same_from_file_and_call", b25_memory_is_the_same_from_file_and_call),
    ("b26_cpu_counts_agree", b26_cpu_counts_agree),
    ("b27_long_files_are_read_to_their_end", b27_long_files_are_read_to_their_end),
    ("b29_redis_starts_without_warnings", b29_redis_starts_without_warnings),
    ("b30_elasticsearch_finds_enough_maps", b30_elasticsearch_finds_enough_maps),
    ("b31_statvfs_says_which_sysctls_are_read_only", b31_statvfs_says_which_sysctls_are_read_only),
    ("b32_a_hidden_file_is_hidden_everywhere", b32_a_hidden_file_is_hidden_everywhere),
];

/// Cases for root, who may mount and make namespaces.
const ROOT: &[Report] = &[
    ("b13_entries_of_interfaces_follow_the_interfaces", b13_entries_of_interfaces_follow_the_interfaces),
    ("b15_pid_max_hidden", b15_pid_max_hidden),
    ("a_pid_namespace_has_numbers_of_its_own", a_pid_namespace_has_numbers_of_its_own),
];

/// Cases that want something else inside gVisor: their beginning, the versions, and the reason.
const DIFFERENT: &[(&str, &[Version], &str)] = &[
    ("b06", &[V2022, V2024, V2026], "eventfds of gVisor, which stand for files that block, cannot seek"),
    ("b12", &[V2022, V2024], "the root of gVisor's procfs has the inode number 1 since 2026"),
    (
        "b13",
        &[V2022, V2024, V2026],
        "gVisor has no /proc/sys/net/ipv6/conf, and interfaces to add since 2024",
    ),
    ("b19", &[V2022, V2024, V2026], "gVisor has no user notification: there is one backend"),
    (
        "a_pid_namespace",
        &[V2022, V2024, V2026],
        "gVisor tells no numbers of other pid namespaces: its own mask is shown",
    ),
];

pub fn cases() -> Vec<Case> {
    let name = |name: &str| format!("field_reports/{name}");
    let all = ALL.iter().map(|(case, run)| Case::new(&name(case), move |world| check(case, *run, world)));
    let root = ROOT.iter().map(|(case, run)| Case::root(&name(case), move |world| check(case, *run, world)));
    all.chain(root).collect()
}

fn check(case: &str, run: fn(World), world: World) -> Tally {
    run(world);
    let declared = DIFFERENT.iter().find(|(begin, versions, _)| {
        case.starts_with(begin) && versions.iter().any(|version| world == World::Gvisor(*version))
    });
    declared.map_or_else(Tally::one, |(_, _, reason)| Tally::differs(case, reason))
}

/// Whether it is one of Debian's versions of gVisor.
fn is_debian(world: World) -> bool {
    matches!(world, World::Gvisor(V2022 | V2024))
}

/// Runs a shell script under sysemu with these options.
#[track_caller]
fn shell(world: World, options: &[&str], script: &str) -> String {
    world.run(&Run::shell(script), options).good()
}

const KUBELET: &[&str] = &["-p", "kubelet"];

fn b02_kubelet_finds_the_values_it_demands(world: World) {
    let script = "for p in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \
                  kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do k=${p%=*}; \
                  [ \"$(cat /proc/sys/$k 2>&1)\" = \"${p#*=}\" ] && echo ok; done";
    assert_eq!(shell(world, KUBELET, script), "ok\n".repeat(6));
}

fn b04_a_module_parameter_appears_beside_real_modules(world: World) {
    let options = ["--file", "/sys/module/sysemu_conntrack/parameters/hashsize=262144"];
    let script = "cat /sys/module/sysemu_conntrack/parameters/hashsize; test -d /sys/module/sysemu_conntrack && echo dir; \
                  ls /sys/module | grep -c sysemu_conntrack; ls /sys/module | wc -l";
    let others: u32 =
        world.bare(&Run::shell("busybox ls /sys/module | wc -l")).good().trim().parse().expect("a number");
    assert_eq!(shell(world, &options, script), format!("262144\ndir\n1\n{}\n", others + 1));
}

fn b05_swaps_has_its_heading(world: World) {
    let content = "/proc/swaps=Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority";
    let script =
        "awk 'END{print NR}' /proc/swaps; head -c 8 /proc/swaps; echo; free | awk '/^Swap/{print $2}'";
    assert_eq!(shell(world, &["--file", content], script), "1\nFilename\n0\n");
}

fn b06_kmsg_opens_and_blocks(world: World) {
    let scratch = Place::new(world);
    let policy = scratch.write(
        "kmsg.toml",
        "schema = 1\n[[file]]\npath = \"/dev/kmsg\"\nprovider = \"blocking\"\nmode = \"0644\"\n",
    );
    let script = "timeout 1 sh -c 'exec 3</dev/kmsg && dd bs=8192 count=1 <&3 2>/dev/null | wc -c'; echo rc=$?; \
                  stat -c %F /dev/kmsg; python3 -c '\
import os, select\n\
fd = os.open(\"/dev/kmsg\", os.O_RDONLY | os.O_NONBLOCK)\n\
try:\n    print(os.lseek(fd, 0, os.SEEK_END))\n\
except OSError as error:\n    print(error.errno)\n\
try:\n    os.read(fd, 10)\n\
except BlockingIOError:\n    print(\"EAGAIN\")\n\
print(select.select([fd], [], [], 0)[0])'";
    let end = if world.is_gvisor() { 29 } else { 0 };
    let wanted = format!("rc=124\ncharacter special file\n{end}\nEAGAIN\n[]\n");
    assert_eq!(shell(world, &["-p", &policy], script), wanted);
}

fn b10_statfs_by_path_covers_what_is_below_and_no_namesake(world: World) {
    let scratch = Place::new(world);
    let dir = format!("{}/dir", scratch.path());
    scratch.make("mkdir -p dir/below dirx");
    let statfs = format!("{dir}=0x1021994");
    let script = format!(
        "stat -f -c '%t %T' {dir} {dir}/below; stat -f -c %t {dir}x; \
         python3 -c 'import os; print(os.fstatvfs(os.open(\"{dir}\", os.O_RDONLY)).f_bsize > 0)'"
    );
    let native = world.bare(&Run::new(&["stat", "-f", "-c", "%t", &format!("{dir}x")])).good();
    assert_eq!(
        shell(world, &["--statfs", &statfs], &script),
        format!("1021994 tmpfs\n1021994 tmpfs\n{native}True\n")
    );
}

fn b12_the_checks_of_container_runtimes_on_procfs_pass(world: World) {
    let run = Run::new(&[&guest("fdfacts"), "/proc/sys/kernel/msgmax"]);
    let wrapped = world.run(&run, &["--set", "kernel.msgmax=12345"]).good();
    let expected: Vec<String> =
        std::iter::once("magic=9fa0 perm=644 link=/proc/sys/kernel/msgmax same=1".to_owned())
            .chain([1, 2, 4, 8, 16, 15].map(|resolve| format!("openat2 {resolve}: 12345")))
            .collect();
    assert_eq!(wrapped.lines().map(str::to_owned).collect::<Vec<_>>(), expected);
    let root = "busybox stat -c %i /proc";
    let wanted = if is_debian(world) { world.bare(&Run::shell(root)).good() } else { "1\n".into() };
    assert_eq!(shell(world, &["--set", "kernel.panic=1"], root), wanted);
}

fn b13_entries_of_interfaces_follow_the_interfaces(world: World) {
    let scratch = Place::new(world);
    let row = |key: &str, value: &str| {
        format!("[[sysctl]]\nkey = \"{key}\"\nvalue = \"{value}\"\ntype = \"int\"\n")
    };
    let policy = format!("schema = 1\n{}", row("net.ipv6.conf.*.sysemu_flag", "1"));
    let policy = scratch.write("if.toml", &policy);
    let add = if world == World::Gvisor(V2022) { "" } else { "ip link add d7 type veth peer name d8; " };
    let interfaces = if add.is_empty() { "lo" } else { "lo d7" };
    let script = format!(
        "unshare -n sh -c '{add}cd /proc/sys/net/ipv6/conf; for t in all default {interfaces}; do echo $t $(cat $t/sysemu_flag); \
         done; cat nosuch0/sysemu_flag 2>&1 | grep -c \"No such file\"; ls'"
    );
    let real = format!("unshare -n sh -c '{add}cd /proc/sys/net/ipv6/conf && ls'");
    let real = world.bare(&Run::shell(&real)).stdout;
    let mut names: Vec<&str> = real.lines().collect();
    if world.is_gvisor() {
        assert_eq!(names, [""; 0], "gVisor has no such directory");
        names = ["all", "default"].into_iter().chain(interfaces.split(' ')).collect();
        names.extend((!add.is_empty()).then_some("d8"));
    }
    names.sort_unstable();
    assert!(interfaces.split(' ').all(|name| names.contains(&name)), "{real}");
    let values: String = ["all", "default"]
        .into_iter()
        .chain(interfaces.split(' '))
        .map(|name| format!("{name} 1\n"))
        .collect();
    assert_eq!(shell(world, &["-p", &policy], &script), format!("{values}1\n{}\n", names.join("\n")));
}

fn b14_every_process_sees_the_value_and_runs_are_separate(world: World) {
    let script = "sysctl -n net.ipv4.tcp_keepalive_time; sh -c 'sysctl -n net.ipv4.tcp_keepalive_time'; \
                  setsid sh -c 'cat /proc/sys/net/ipv4/tcp_keepalive_time' | cat";
    for value in ["1000", "2000"] {
        let set = format!("net.ipv4.tcp_keepalive_time={value}");
        assert_eq!(shell(world, &["--set", &set], script), format!("{value}\n").repeat(3));
    }
}

fn b15_pid_max_hidden(world: World) {
    let script = format!(
        "mount -t tmpfs t /proc/sys/kernel; exec {} sh -c \
         \"awk '{{exit !(\\$1>300)}}' /proc/sys/kernel/pid_max; echo \\$?; ls /proc/sys/kernel | grep -c '^pid_max$'\"",
        world.sysemu(&["-p", "linux"]).join(" ")
    );
    let mut words = vec!["unshare", "-m"];
    if world == World::Gvisor(V2022) {
        words.extend(["--propagation", "unchanged"]);
    }
    words.extend(["sh", "-c", &script]);
    assert_eq!(world.bare(&Run::new(&words)).good(), "0\n1\n");
}

fn machine(scratch: &Place, text: &str) -> String {
    scratch.write("machine.toml", &format!("schema = 1\n[machine]\n{text}\n"))
}

fn b16_topology_agrees_with_the_machine(world: World) {
    let scratch = Place::new(world);
    let policy = machine(&scratch, "cpus = 2");
    let script =
        "numactl -H | head -1; lstopo-no-graphics --of console | grep -c PU; lscpu -p=CPU,NODE | tail -1";
    assert_eq!(shell(world, &["-p", &policy], script), "available: 1 nodes (0)\n2\n1,0\n");
}

fn b17_the_release_is_the_same_in_all_places(world: World) {
    let script = "a=$(uname -r); b=$(cat /proc/sys/kernel/osrelease); c=$(cut -d' ' -f3 /proc/version); \
                  [ \"$a\" = \"$b\" ] && [ \"$a\" = \"$c\" ] && echo same $a; \
                  python3 -c 'import os; print(os.uname().release)'; busybox uname -r";
    let release = "6.1.0-sysemu";
    assert_eq!(
        shell(world, &["--uname-release", release], script),
        format!("same {release}\n{release}\n{release}\n")
    );
}

fn b19_without_a_listener_nothing_runs_bare(world: World) {
    // An outer supervisor holds the only listener that the kernel allows, or is the only tracer that it allows.
    let backends = [("notify", "already listens"), ("ptrace", "cannot trace the program")];
    for (backend, refusal) in backends.into_iter().skip(usize::from(world.is_gvisor())) {
        let backend = ["--backend", backend];
        let inner =
            [&[sysemu_program()], &backend[..], &["--set", "vm.swappiness=1", "--", "echo", "ran"]].concat();
        let mut words = vec![sysemu_program(), "--no-auto"];
        words.extend(backend.into_iter().chain(["--set", "vm.swappiness=2", "--"]).chain(inner));
        let outcome = world.bare(&Run::new(&words));
        assert_eq!((outcome.status, outcome.stdout.as_str()), (125, ""), "{}", outcome.stderr);
        assert!(outcome.stderr.contains(refusal), "{}", outcome.stderr);
    }
    let mut words = vec!["strace", "-f", "-qq", "-o", "/dev/null", "-e", "inject=seccomp:error=EPERM"];
    words.extend([sysemu_program(), "--set", "vm.swappiness=1", "--", "echo", "ran"]);
    let outcome = world.bare(&Run::new(&words));
    assert_eq!((outcome.status, outcome.stdout.as_str()), (125, ""), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("sysemu doctor"), "{}", outcome.stderr);
}

fn b20_timer_signals_neither_stop_nor_leak(world: World) {
    let storm = guest("storm");
    for path in ["/proc/sys/kernel/msgmax", "/etc/passwd"] {
        let run = Run::new(&[&storm, "1", path]);
        let outcome = world.run(&run.clone().limit(30), &["--set", "kernel.msgmax=77777"]).good();
        assert_eq!(outcome, world.bare(&run).good(), "{path}");
    }
}

fn b21_a_caller_that_dies_takes_nobody_along(world: World) {
    let script = "i=0; while [ $i -lt 200 ]; do cat /proc/sys/kernel/pid_max >/dev/null & p=$!; sleep 0.00$((i%4)); \
                  kill -9 $p 2>/dev/null; i=$((i+1)); done; wait; cat /proc/sys/kernel/pid_max";
    let outcome = world.run(&Run::new(&["bash", "-c", script]), &["--set", "kernel.pid_max=77777"]);
    assert_eq!((outcome.stdout.as_str(), outcome.status), ("77777\n", 0), "{}", outcome.stderr);
}

fn b22_descriptors_directories_and_links_lead_to_the_file(world: World) {
    let scratch = Place::new(world);
    let run = Run::new(&[guest("relative"), scratch.path()]);
    assert_eq!(world.run(&run, &["--set", "kernel.pid_max=77777"]).good(), "77777\n111111\n77777\n");
}

fn b23_exec_from_another_thread(world: World) {
    let program = guest("execthread");
    let times = if common::is_long() { 200 } else { 20 };
    let hows = ["pause", "busy", "vfork", "gone"];
    for how in hows.into_iter().take(if world.is_gvisor() { 3 } else { 4 }) {
        let script = format!(
            "i=0; while [ $i -lt {times} ]; do {program} {how} /bin/cat /proc/sys/kernel/pid_max || exit 1; i=$((i+1)); done"
        );
        let text = world.run(&Run::shell(&script), &["--set", "kernel.pid_max=77777"]).good();
        assert_eq!(text, "77777\n".repeat(times), "{how}");
    }
}

fn b24_no_call_slips_through(world: World) {
    for build in [Build::Dynamic, Build::Static] {
        let program = guest_as("syscalls", build);
        let options = ["--set", "kernel.pid_max=77777", "--file", "/sys/module/sysemu_only/parameters/x=1"];
        for path in ["/proc/sys/kernel/pid_max", "/sys/module/sysemu_only/parameters/x"] {
            let text = world.run(&Run::new(&[&program, path]), &options).good();
            let odd: Vec<&str> = text.lines().filter(|line| !line.ends_with(" ok")).collect();
            assert_eq!(odd, ["readlink    EINVAL"], "{path}\n{text}");
        }
        let missing =
            world.run(&Run::new(&[&program, "/sys/module/sysemu_only/parameters/y"]), &options).good();
        assert!(missing.lines().all(|line| line.ends_with(" ENOENT")), "{missing}");
    }
    let script = "p=/sys/module/sysemu_only/parameters/x; test -e $p && [ -r $p ] && ls -l $p >/dev/null && \
                  stat $p >/dev/null && find $p && wc -c <$p";
    let text = shell(world, &["--file", "/sys/module/sysemu_only/parameters/x=1"], script);
    assert_eq!(text, "/sys/module/sysemu_only/parameters/x\n2\n");
}

fn b25_memory_is_the_same_from_file_and_call(world: World) {
    let scratch = Place::new(world);
    let policy = machine(&scratch, "memory = \"512M\"");
    let script = "busybox free -m | awk '/^Mem/{print $2}'; free -m | awk '/^Mem/{print $2}'; \
                  python3 -c 'import os; print(os.sysconf(\"SC_PHYS_PAGES\") * os.sysconf(\"SC_PAGE_SIZE\") >> 20)'; \
                  node -e 'console.log(os.totalmem() >> 20)'";
    assert_eq!(shell(world, &["-p", &policy], script), "512\n512\n512\n512\n");
}

fn b26_cpu_counts_agree(world: World) {
    let scratch = Place::new(world);
    for cpus in [1, 4] {
        let policy = machine(&scratch, &format!("cpus = {cpus}"));
        let script = "for q in _NPROCESSORS_CONF _NPROCESSORS_ONLN; do getconf $q; done; grep -c ^processor /proc/cpuinfo; \
                      grep -c '^cpu[0-9]' /proc/stat; ls -d /sys/devices/system/cpu/cpu[0-9]* | wc -l; nproc; \
                      cat /sys/devices/system/cpu/possible";
        let list = if cpus == 1 { "0".to_owned() } else { format!("0-{}", cpus - 1) };
        assert_eq!(shell(world, &["-p", &policy], script), format!("{cpus}\n").repeat(6) + &list + "\n");
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

fn a_pid_namespace_has_numbers_of_its_own(world: World) {
    let scratch = Place::new(world);
    let policy = machine(&scratch, "cpus = 4");
    let program = scratch.write("affinities.py", AFFINITIES);
    let run = Run::new(&["unshare", "--pid", "--fork", "--kill-child", "/usr/bin/python3", &program]);
    // On a host with one CPU nobody can be confined.
    let confined = if std::thread::available_parallelism().is_ok_and(|cpus| cpus.get() > 1) { 1 } else { 4 };
    let wanted = if world.is_gvisor() {
        let all = world.bare(&Run::new(&["nproc"])).good();
        let all = all.trim();
        format!("1 4 {all}\n2 {all} {all}\n{all}\n1\nnobody\nnobody\n")
    } else {
        format!("1 4 4\n2 4 4\n4\n{confined}\nnobody\nnobody\n")
    };
    assert_eq!(world.run(&run, &["-p", &policy]).good(), wanted);
}

fn b27_long_files_are_read_to_their_end(world: World) {
    let scratch = Place::new(world);
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
    assert_eq!(shell(world, &["--file", &content], &script), "9000\n1 0\n9000 8900\n  \\n\n4904\n");
}

fn b29_redis_starts_without_warnings(world: World) {
    let scratch = Place::new(world);
    let socket = format!("{}/r.sock", scratch.path());
    let script =
        format!("timeout 2 redis-server --port 0 --unixsocket {} --save '' | grep -c WARNING", socket);
    let count = |options: &[&str]| world.run(&Run::shell(&script), options).stdout;
    assert_eq!(count(&["-p", "redis-server"]), "0\n");
    assert_eq!(count(&["-p", "redis-server", "--set", "vm.overcommit_memory=0"]), "1\n");
    assert_eq!(count(&["-p", "redis-server", "--set", "net.core.somaxconn=128"]), "1\n");
}

fn b30_elasticsearch_finds_enough_maps(world: World) {
    let script = "[ $(cat /proc/sys/vm/max_map_count) -ge 262144 ] && echo pass";
    assert_eq!(shell(world, &["-p", "elasticsearch"], script), "pass\n");
}

fn b31_statvfs_says_which_sysctls_are_read_only(world: World) {
    let scratch = Place::new(world);
    let policy = scratch.write(
        "ro.toml",
        "schema = 1\n[[statfs]]\npath = \"/proc/sys\"\ntype = \"proc\"\nreadonly = true\n[[statfs]]\npath = \"/proc/sys/net\"\n\
         type = \"proc\"\nreadonly = false\n",
    );
    let script = "python3 -c 'import os; print([os.statvfs(p).f_flag & 1 for p in (\"/proc/sys\", \"/proc/sys/net\")])'";
    assert_eq!(shell(world, &["-p", &policy], script), "[1, 0]\n");
    if world != World::Gvisor(V2022) {
        assert_eq!(shell(world, &["-p", "linux"], script), "[0, 0]\n");
    }
}

fn b32_a_hidden_file_is_hidden_everywhere(world: World) {
    let script = "p=/proc/sys/kernel/shmall; cat $p 2>&1 | grep -c 'No such file'; test -e $p; echo $?; \
                  ls /proc/sys/kernel | grep -c '^shmall$'; echo /proc/sys/kernel/shmal* ; \
                  sysctl -a 2>&1 >/dev/null | grep -c shmall; cat /proc/sys/kernel/msgmax >/dev/null && echo sibling";
    let expected = "1\n1\n0\n/proc/sys/kernel/shmal*\n0\nsibling\n";
    assert_eq!(shell(world, &["--hide", "/proc/sys/kernel/shmall"], script), expected);
    let absent = "for p in kernel/unprivileged_userns_clone crypto/fips_enabled fs/may_detach_mounts; do \
                  test -e /proc/sys/$p; echo $?; done; ls /proc/sys/kernel | grep -c userns";
    let bare = world.bare(&Run::shell(absent)).stdout;
    assert_eq!(world.run(&Run::shell(absent), &["-p", "k3s"]).stdout, bare);
}
