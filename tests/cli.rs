//! Commands of the command line other than running programs.

mod common;

use common::{Run, Scratch, sysemu_program};

#[track_caller]
fn sysemu(words: &[&str]) -> common::Outcome {
    let mut all = vec![sysemu_program()];
    all.extend(words);
    Run::new(&all).go()
}

fn json(words: &[&str]) -> serde_json::Value {
    serde_json::from_str(&sysemu(words).good()).expect("JSON")
}

#[test]
fn doctor_reports_every_topic() {
    let findings = json(&["doctor", "--format", "json"]);
    let topics: Vec<&str> =
        findings.as_array().expect("list").iter().filter_map(|f| f["topic"].as_str()).collect();
    for topic in [
        "kernel",
        "backend",
        "signals",
        "carrier",
        "memfd",
        "privilege",
        "pidfd",
        "limits",
        "io_uring",
        "writing",
    ] {
        assert!(topics.contains(&topic), "{topic} in {topics:?}");
    }
    let text = sysemu(&["doctor"]).good();
    assert!(
        text.lines().all(|line| ["ok  ", "note", "NO  "].iter().any(|mark| line.starts_with(mark))),
        "{text}"
    );
}

#[test]
fn explain_names_the_row_or_says_why_not() {
    let scratch = Scratch::new();
    let policy = scratch
        .write("p.toml", "schema = 1\n\n[[sysctl]]\nkey = \"vm.swappiness\"\nvalue = \"7\"\ndoc = \"why\"\n");
    let hidden = ["explain", "/proc/swaps", "--hide", "/proc/swaps"];
    for (words, parts) in [
        (
            &["explain", "/proc/../proc/sys/vm/swappiness", "-p", &policy][..],
            &["virtual file 0644", "p.toml:3", "why", "7\\n"][..],
        ),
        (
            &["explain", "/proc/sys/vm/swappiness", "-p", "linux"],
            &["passes through", "only where the real file is missing"],
        ),
        (&["explain", "/etc/passwd", "-p", "linux"], &["passes through as /etc/passwd: no row names it"]),
        (
            &["explain", "/proc/sys/vm", "-p", "linux"],
            &["a real directory, listed together with the rows below it"],
        ),
        (&["explain", "/no/such/file"], &["does not exist, and no row makes it"]),
        (&hidden, &["fails with ENOENT"]),
    ] {
        let text = sysemu(words).good();
        for part in parts {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }
    let found = json(&["explain", "/proc/sys/vm/swappiness", "-p", &policy, "--format", "json"]);
    assert_eq!((found["verdict"].as_str(), found["content"].as_str()), (Some("virtual"), Some("7\n")));
}

#[test]
fn policies_and_providers_are_listed() {
    let policies = json(&["policy", "list", "--format", "json"]);
    assert!(
        policies
            .as_array()
            .expect("list")
            .iter()
            .all(|policy| policy["doc"].as_str().is_some_and(|d| !d.is_empty()))
    );
    assert!(sysemu(&["policy", "list"]).good().contains("kubelet"));
    assert!(sysemu(&["policy", "providers"]).good().contains("cpuinfo"));
}

#[test]
fn completions_and_manual_are_generated() {
    for shell in ["bash", "zsh", "fish"] {
        assert!(sysemu(&["completions", shell]).good().contains("sysemu"));
    }
    assert!(sysemu(&["man"]).good().contains(".TH sysemu"));
    let scratch = Scratch::new();
    sysemu(&["man", "--folder", scratch.path().to_str().expect("text")]).good();
    assert!(scratch.join("sysemu-run.1").exists() && scratch.join("sysemu-policy-check.1").exists());
}

#[test]
fn pinning_holds_the_supervisor_and_not_the_program() {
    let cpus = |status: &str| {
        let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        list.expect("in every status").trim().to_owned()
    };
    let own = cpus(&std::fs::read_to_string("/proc/self/status").expect("read"));
    let first: String = own.chars().take_while(char::is_ascii_digit).collect();
    let script = "cat /proc/self/status; echo; sleep 0.3; cat /proc/$PPID/task/*/status";
    let words = ["--pin", &first, "--set", "vm.swappiness=7", "--", "sh", "-c", script];
    let outcome = sysemu(&words).good();
    let (program, supervisor) = outcome.split_once("\n\n").expect("two parts");
    assert_eq!(cpus(program), own);
    let threads: Vec<_> = supervisor.lines().filter(|line| line.starts_with("Cpus_allowed_list:")).collect();
    assert!(threads.len() > 2 && threads.iter().all(|line| cpus(line) == first), "{threads:?}");
    let machine = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/policies/machine.toml");
    assert_eq!(sysemu(&["--pin", &first, "-p", machine, "--", "nproc"]).stdout, "4\n");
    let outcome = sysemu(&["--pin", "1000", "--set", "vm.swappiness=7", "--", "echo", "ran"]);
    assert_eq!((outcome.status, outcome.stdout.as_str()), (125, ""));
    assert!(outcome.stderr.contains("--pin 1000"), "{}", outcome.stderr);
}

#[test]
fn options_stop_at_the_program() {
    let outcome = sysemu(&["echo", "--version", "-p", "x"]);
    assert_eq!(outcome.stdout, "--version -p x\n");
    let outcome = sysemu(&["--no-auto", "--", "echo", "--", "x"]);
    assert_eq!(outcome.stdout, "-- x\n");
    let outcome = sysemu(&["run", "--no-auto", "echo", "doctor"]);
    assert_eq!(outcome.stdout, "doctor\n");
    assert_eq!(sysemu(&[]).status, 125);
}

#[test]
fn a_policy_named_after_the_program_is_used_by_itself() {
    let scratch = Scratch::new();
    let program = scratch.write("elasticsearch", "#!/bin/sh\ncat /proc/sys/vm/max_map_count\n");
    Run::new(&["chmod", "+x", &program]).go().good();
    let outcome = sysemu(&["-v", &program]);
    assert_eq!(outcome.stdout, "262144\n");
    let first = outcome.stderr.lines().next().unwrap_or("");
    assert!(first.contains("policies: elasticsearch (chosen by"), "{}", outcome.stderr);
    assert_ne!(sysemu(&["--no-auto", &program]).stdout, "");
    assert_eq!(sysemu(&["--no-auto", &program]).stdout, Run::new(&[&program]).go().stdout);
    let outcome = Run::new(&[sysemu_program(), "cat", "/proc/sys/vm/max_map_count"])
        .variable("SYSEMU_POLICY", "elasticsearch")
        .go();
    assert_eq!(outcome.stdout, "262144\n");
}

#[test]
fn logs_are_quiet_and_structured() {
    let words = ["--set", "vm.swappiness=7", "--", "cat", "/proc/sys/vm/swappiness"];
    let quiet = sysemu(&words);
    assert_eq!((quiet.stdout.as_str(), quiet.stderr.as_str()), ("7\n", ""));
    let mut loud = vec!["-vv", "--log-format", "json"];
    loud.extend(words);
    let outcome = sysemu(&loud);
    let events: Vec<serde_json::Value> = outcome
        .stderr
        .lines()
        .map(|line| serde_json::from_str(line).expect("a JSON object each line"))
        .collect();
    let call = events.iter().find(|event| event["fields"]["verdict"] == "fd").expect("the open");
    let fields = &call["fields"];
    assert_eq!(
        (fields["syscall"].as_str(), fields["path"].as_str()),
        (Some("openat"), Some("/proc/sys/vm/swappiness"))
    );
    assert!(fields["elapsed_us"].is_u64() && fields["tid"].is_u64() && fields["backend"] == "notify");
    let words = [
        "--set",
        "vm.swappiness=7",
        "--summary",
        "--",
        "cat",
        "/proc/sys/vm/swappiness",
        "/proc/sys/vm/laptop_mode",
    ];
    let summary = sysemu(&words).stderr;
    assert!(summary.contains(" 1 fd, ") && summary.contains("/proc/sys/vm/laptop_mode"), "{summary}");
}

#[test]
fn diff_marks_what_explains_a_difference_and_exits_with_1_when_nothing_does() {
    let diff = |words: &[&str]| sysemu(&[&["diff"], words].concat());
    let same = diff(&["--", "cat", "/proc/sys/vm/swappiness"]);
    assert_eq!(same.status, 0, "{}", same.stdout);
    assert!(same.stdout.contains("[identity]") && same.stdout.contains(" 0 undeclared"), "{}", same.stdout);
    let words = [
        "--set",
        "vm.swappiness=7",
        "--uname-release",
        "4.0",
        "--",
        "sh",
        "-c",
        "cat /proc/sys/vm/swappiness; uname -r",
    ];
    let changed = diff(&words);
    assert_eq!(changed.status, 0, "{}", changed.stdout);
    for line in [
        "policy      read(3</proc/sys/vm/swappiness>",
        "policy      uname: release",
        "follows     standard output",
    ] {
        assert!(changed.stdout.contains(line), "{line} in\n{}", changed.stdout);
    }
    // A row that is wrong about the real file.
    let scratch = Scratch::new();
    let row =
        "schema = 1\n[[sysctl]]\nkey = \"vm.swappiness\"\nvalue = \"1\"\ntype = \"int\"\nmode = \"0600\"\n";
    let policy = scratch.write("p.toml", row);
    let words =
        ["diff", "--mirror", "-p", &policy, "--format", "json", "--", "stat", "/proc/sys/vm/swappiness"];
    let wrong = sysemu(&words);
    let report: serde_json::Value = serde_json::from_str(&wrong.stdout).expect("JSON");
    assert_eq!(
        (wrong.status, report["undeclared"].as_u64(), report["rows"].as_u64()),
        (1, Some(1), Some(1)),
        "{report:#}"
    );
    let is_mode = |one: &serde_json::Value| one["field"] == "mode" && one["emulated"] == "100600";
    assert!(report["differences"].as_array().expect("a list").iter().any(is_mode), "{report:#}");
    let missing = diff(&["--", "sysemu-no-such-program"]);
    assert_eq!(missing.status, 0, "{}", missing.stdout);
    assert_eq!(diff(&["--mirror", "--set", "vm.sysemu_nothing=1", "--", "true"]).status, 125);
}

#[test]
fn bench_prints_floors_and_ratios() {
    let report = json(&["bench", "--calls", "200", "--format", "json"]);
    let runs = report.as_array().expect("two placements");
    assert_eq!(runs.len(), 2);
    for run in runs {
        let lines = run["lines"].as_array().expect("lines");
        for name in [
            "native open",
            "notify echo (Continue)",
            "RET_TRACE echo (value)",
            "sysemu: managed stat",
            "sysemu: uname",
            "sysemu, ptrace: managed stat",
            "sysemu, ptrace: untrapped getpid",
        ] {
            let line = lines.iter().find(|line| line["name"] == name).expect(name);
            assert!(
                line["p50_ns"].as_u64() > Some(0) && line["p99_ns"].as_u64() >= line["p50_ns"].as_u64(),
                "{line}"
            );
        }
        assert!(lines.iter().filter(|line| line["ratio"].is_f64()).count() >= 20);
    }
}
