//! Real programs inside gVisor: the same output bare and with every family of calls trapped; and what a policy says.

use std::process::{Command, Stdio};

use libtest_mimic::Trial;

use crate::case::{Same, Shows, Table};
use crate::common::Outcome;
use crate::common::gvisor::{Sandbox, Setup};
use crate::{trial, versions};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures");
const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/programs.toml");

/// Cases of `fixtures/programs.toml` that say the same twice inside gVisor.
const INSIDE: &[&str] = &[
    "bash_jobs",
    "copies",
    "dash_pipelines",
    "double_fork_daemon",
    "find_proc_and_sys",
    "gcc_project",
    "git_history",
    "go_static_program",
    "i386_program",
    "java_program",
    "machine_tools",
    "node_program",
    "other_users",
    "own_namespaces",
    "perl_program",
    "personalities",
    "process_tools",
    "python_test_os",
    "redis_server",
    "sandbox_tools",
    "sort_and_compress",
    "sqlite_database",
    "tar_round_trip",
    "terminal_script",
];

/// Cases of `fixtures/programs.toml` that show there what they show on Linux, with the policy `gvisor` besides their own.
const SHOWN: &[&str] = &[
    "a_file_and_a_hidden_one",
    "haproxy_and_numactl_see_the_machine",
    "hwloc_tree",
    "java_sees_the_machine",
    "machine_of_four",
    "monitors_read_sane_numbers",
    "names_in_three_places",
    "nginx_workers",
    "podman_sees_the_machine",
    "redis_without_warnings",
    "release_under_a_personality",
    "set_one_sysctl",
    "sysctl_in_order",
];

pub fn cases() -> Vec<Trial> {
    let table = Table::read(TABLE);
    let same_case = |name: &&str| {
        let case = table.same.iter().find(|case| case.name == *name).expect("a case of the table").clone();
        trial(format!("same::{name}"), move || same(&case))
    };
    let shown_case = |name: &&str| {
        let case = table.shows.iter().find(|case| case.name == *name).expect("a case of the table").clone();
        versions(&format!("shown::{name}"), move |setup| shown(&case, setup))
    };
    let mut trials: Vec<Trial> = INSIDE.iter().map(same_case).collect();
    trials.extend(SHOWN.iter().flat_map(shown_case));
    trials.extend(versions("machine", machine));
    trials.extend(versions("redis_without_warnings", redis_without_warnings));
    trials.extend(versions("kubelet", kubelet));
    trials
}

fn same(case: &Same) {
    let run = |words: &[&str]| {
        let script = script(&case.script);
        let words: Vec<&str> = words.iter().copied().chain(script.iter().map(String::as_str)).collect();
        let sandbox = Sandbox::new(Setup::NEWEST).with("fixtures/policies/trap-all.toml").command(&words);
        let outcome = sandbox.limit(2 * case.timeout).go();
        let normal = |text: String| normalised(&text, &case.normalise);
        Outcome { stdout: normal(outcome.stdout), stderr: normal(outcome.stderr), ..outcome }
    };
    assert_eq!(run(&["sysemu", "--no-auto", "--policy", "./trap-all.toml", "--"]), run(&[]));
}

/// A script of the table as bash runs it in a folder of its own.
fn script(text: &str) -> [String; 6] {
    let text = format!(
        "export TZ=UTC LC_ALL=C HOME=/tmp/w/home; mkdir -p $HOME; cd /tmp/w\n{}",
        text.replace("FIXTURES", FIXTURES)
    );
    ["bash", "-eu", "-o", "pipefail", "-c", &text].map(str::to_owned)
}

fn shown(case: &Shows, setup: Setup) {
    let mut words = ["sysemu", "--no-auto", "-p", "gvisor"].map(str::to_owned).to_vec();
    words.extend(case.args.iter().map(|arg| arg.replace("FIXTURES", FIXTURES)));
    words.push("--".to_owned());
    words.extend(script(&case.script));
    let run = |words: &[String]| {
        let outcome = Sandbox::new(setup).command(words).limit(3 * case.timeout).go();
        Outcome { stdout: normalised(&outcome.stdout, &case.normalise), ..outcome }
    };
    let wanted = Outcome { stdout: case.stdout.clone(), stderr: String::new(), status: 0 };
    assert_eq!(run(&words), wanted);
    assert_ne!(run(&script(&case.script)), wanted, "it shows the same without sysemu");
}

/// The text after the case's own `sed` script.
fn normalised(text: &str, script: &str) -> String {
    use std::io::Write;
    let mut sed = Command::new("sed")
        .args(["-E", "-e", script])
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("sed is everywhere");
    let mut input = sed.stdin.take().expect("piped");
    let text = text.to_owned();
    let feeder = std::thread::spawn(move || input.write_all(text.as_bytes()));
    let output = sed.wait_with_output().expect("sed ends");
    feeder.join().expect("it only writes").expect("sed reads all");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn shows(sandbox: Sandbox, wanted: &str) {
    let outcome = sandbox.go();
    assert_eq!((outcome.stdout.as_str(), outcome.status), (wanted, 0), "{}", outcome.stderr);
}

/// Under the policy `gvisor` and a machine of four CPUs and 3 GiB, what programs print.
fn machine(setup: Setup) {
    let script = "sysctl -a 2>&1 >/dev/null | head -n 3; sysctl -a 2>/dev/null | wc -l | sed 's/^[4-9][0-9][0-9]$/many/'
nproc; lscpu | grep -E '^CPU.s.|^On-line' | tr -s ' '; free -b | awk '/^Mem/ {print $2}'; vmstat | tail -n 1 | wc -w
node -p 'o = require(\"os\"); [o.release(), o.totalmem(), o.cpus().length].join()'
python3 -c 'import os; print(os.cpu_count(), os.uname().release)'; numactl -H | sed -n 1,2p
lstopo-no-graphics --of console | head -n 1; capsh --print | head -n 1 | cut -c 1-9; setpriv --dump 2>/dev/null | head -n 1
top -bn1 | head -n 1 | cut -c 1-3; busybox ls /proc/sys/kernel | grep -cx osrelease; cat /proc/sys/kernel/osrelease";
    let wanted = "many\n4\nCPU(s): 4\nOn-line CPU(s) list: 0-3\n3221225472\n17\n5.15.0,3221225472,4\n4 5.15.0\n\
                  available: 1 nodes (0)\nnode 0 cpus: 0 1 2 3\nMachine (3072MB total) + Package L#0\nCurrent: \n\
                  uid: 0\ntop\n1\n5.15.0\n";
    let words = [
        "sysemu",
        "--no-auto",
        "-p",
        "gvisor",
        "-p",
        "./machine.toml",
        "--uname-release",
        "5.15.0",
        "--",
        "sh",
        "-c",
        script,
    ];
    shows(Sandbox::new(setup).with("fixtures/policies/machine.toml").command(&words).limit(120), wanted);
}

fn redis_without_warnings(setup: Setup) {
    let server =
        "timeout 3 redis-server --port 0 --unixsocket /tmp/redis --save '' >/tmp/log; grep -c ready /tmp/log";
    let script = format!("{server}; grep -c WARNING /tmp/log");
    let bare = Sandbox::new(setup).command(&["sh", "-c", &script]).limit(60).go();
    assert!(bare.stdout.lines().nth(1).is_some_and(|warnings| warnings != "0"), "{bare:?}");
    let words = ["sysemu", "-p", "gvisor", "-p", "redis-server", "--", "sh", "-c", &script];
    let wrapped = Sandbox::new(setup).command(&words).limit(60).go();
    assert_eq!(wrapped.stdout.lines().nth(1), Some("0"), "{wrapped:?}");
    assert_eq!(wrapped.stdout.lines().next(), bare.stdout.lines().next());
}

/// What the kubelet checks before it starts, and files that container software looks for.
fn kubelet(setup: Setup) {
    let script = "cd /proc/sys; for key in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops \
kernel/keys/root_maxkeys kernel/keys/root_maxbytes; do echo $key $(cat $key); done
head -n 1 /proc/swaps | cut -c 1-8; test -r /dev/kmsg && echo kmsg; for m in br_netfilter nf_conntrack overlay; do
test -d /sys/module/$m && echo $m; done; cut -d' ' -f 1-3 /proc/version; uname -r";
    let wanted = "vm/overcommit_memory 1\nvm/panic_on_oom 0\nkernel/panic 10\nkernel/panic_on_oops 1\n\
                  kernel/keys/root_maxkeys 1000000\nkernel/keys/root_maxbytes 25000000\nFilename\nkmsg\nbr_netfilter\n\
                  nf_conntrack\noverlay\nLinux version 4.19.0\n4.19.0\n";
    let words = [
        "sysemu",
        "--no-auto",
        "-p",
        "gvisor",
        "-p",
        "k3s",
        "--uname-release",
        "4.19.0",
        "--",
        "sh",
        "-c",
        script,
    ];
    shows(Sandbox::new(setup).command(&words).limit(60), wanted);
}
