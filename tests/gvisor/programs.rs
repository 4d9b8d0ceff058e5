//! Real programs inside gVisor: the same output bare and with every family of calls trapped; and what a policy says.

use std::process::{Command, Stdio};

use libtest_mimic::Trial;

use crate::case::{Same, Shows, Table};
use crate::common::Outcome;
use crate::common::gvisor::{Sandbox, Setup};
use crate::{trial, versions};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures");
const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/programs.toml");

/// Cases of `fixtures/programs.toml` that say the same twice inside gVisor. Not there: `terminal_job_control`, for which
/// tmux has to know what runs in the foreground, and what walks all of `/usr`, at the price of a stop for each file.
const INSIDE: &[&str] = &[
    "bash_jobs",
    "busybox_static",
    "container_tools_info",
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
    "names_and_errors",
    "node_program",
    "other_users",
    "own_namespaces",
    "package_and_locale_tools",
    "perl_program",
    "personalities",
    "process_tools",
    "python_test_os",
    "python_test_posix",
    "redis_server",
    "sandbox_tools",
    "sort_and_compress",
    "sqlite_database",
    "stress_ng_short",
    "sysctl_all",
    "systemd_sysctl_reads_its_file",
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
    "one_worker_for_each_cpu",
    "podman_sees_the_machine",
    "redis_without_warnings",
    "set_one_sysctl",
    "sysctl_in_order",
    "sysctl_tools_write",
];

/// Those of them that call ls(1), which passes a flag to statx(2) that the gVisor of 2022 refuses.
const SHOWN_IN_2024: &[&str] = &["a_file_and_a_hidden_one", "machine_of_four", "set_one_sysctl"];

pub fn cases() -> Vec<Trial> {
    let table = Table::read(TABLE);
    let same_case = |name: &&str| {
        let case = table.same.iter().find(|case| case.name == *name).expect("a case of the table").clone();
        trial(format!("same::{name}"), move || same(&case))
    };
    let shown_case = |name: &&str| {
        let case = table.shows.iter().find(|case| case.name == *name).expect("a case of the table").clone();
        let title = format!("shown::{name}");
        if SHOWN_IN_2024.contains(name) {
            return vec![trial(title, move || shown(&case, Setup::NEWEST))];
        }
        versions(&title, move |setup| shown(&case, setup))
    };
    let mut trials: Vec<Trial> = INSIDE.iter().map(same_case).collect();
    trials.extend(SHOWN.iter().flat_map(shown_case));
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
