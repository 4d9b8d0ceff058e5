//! `--state FILE`: written values live from one run to the next.

mod common;

use std::fs;

use common::{Outcome, Run, Scratch, is_root, skip, text_of};

const ROWS: &str = "schema = 1\n[[sysctl]]\nkey = \"vm.number\"\nvalue = \"1\"\ntype = \"int\"\nrange = [0, 100]\n\
                    mode = \"0666\"\n[[sysctl]]\nkey = \"vm.text\"\nvalue = \"abc\"\ntype = \"string\"\nmode = \"0666\"\n\
                    [[sysctl]]\nkey = \"net.mine\"\nvalue = \"1\"\ntype = \"int\"\nscope = \"net\"\nmode = \"0666\"\n";

struct Runs {
    scratch: Scratch,
    policy: String,
    state: String,
    carrier: &'static str,
}

impl Runs {
    fn new(carrier: &'static str) -> Self {
        let scratch = Scratch::new();
        let policy = scratch.write("p.toml", ROWS);
        let state = text_of(&scratch.join("state"));
        Runs { scratch, policy, state, carrier }
    }

    fn go(&self, script: &str) -> Outcome {
        let options = ["-p", &self.policy, "--state", &self.state, "--carrier", self.carrier];
        Run::shell(script).under(&options).go()
    }

    fn file(&self) -> String {
        fs::read_to_string(&self.state).expect("it was written")
    }
}

#[test]
fn what_one_run_writes_the_next_one_reads() {
    let carriers: &[&str] = if is_root() { &["fuse", "memfd"] } else { &["memfd"] };
    for carrier in carriers {
        let runs = Runs::new(carrier);
        let script = "cd /proc/sys/vm; cat number text; echo 5 >number; printf 'a \"b\\\\\\303' >text; \
                      echo 6 >../net/mine; false";
        assert_eq!(runs.go(script).status, 1);
        let shown = runs.go("cd /proc/sys/vm; cat number ../net/mine; od -An -c text; echo 7 >number").good();
        assert_eq!(shown, "5\n6\n   a       \"   b   \\ 303  \\n\n", "{carrier}");
        // Nothing but the file is left.
        let names = fs::read_dir(runs.scratch.path()).expect("own directory").count();
        assert_eq!(names, 2, "{carrier}");
        assert!(runs.file().contains("/proc/sys/vm/number \"7\\n\"\n"), "{}", runs.file());
        assert_eq!(runs.go("cat /proc/sys/vm/number").good(), "7\n", "{carrier}");
    }
}

#[test]
fn a_damaged_file_is_refused_with_its_line_and_kept() {
    let runs = Runs::new("memfd");
    runs.go("cd /proc/sys/vm; echo 5 >number; echo x >text").good();
    let good = runs.file();
    let out_of_range = good.replace("\"5\\n\"", "\"500\\n\"");
    let cut = good[..good.len() - 3].to_owned();
    for (damaged, line) in [(out_of_range, "line 2"), (cut, "line 4"), ("junk\n".to_owned(), "line 1")] {
        fs::write(&runs.state, &damaged).expect("own file");
        let outcome = runs.go("echo ran");
        assert_eq!((outcome.status, outcome.stdout.as_str()), (125, ""), "{damaged}");
        assert!(outcome.stderr.contains(&runs.state) && outcome.stderr.contains(line), "{}", outcome.stderr);
        assert_eq!(runs.file(), damaged);
    }
}

#[test]
fn values_that_no_row_wants_now_are_kept_for_later() {
    let runs = Runs::new("memfd");
    runs.go("echo 5 >/proc/sys/vm/number").good();
    let options = ["--set", "vm.other=1", "--state", &runs.state];
    Run::shell("true").under(&options).go().good();
    assert_eq!(runs.go("cat /proc/sys/vm/number").good(), "5\n");
}

#[test]
fn a_state_that_cannot_be_saved_is_reported_and_the_status_is_the_programs() {
    let runs = Runs { state: "/nonexistent/state".into(), ..Runs::new("memfd") };
    let outcome = runs.go("exit 3");
    assert_eq!(outcome.status, 3, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("cannot save the state"), "{}", outcome.stderr);
}

#[test]
fn values_of_namespaces_that_end_are_not_kept() {
    if !is_root() {
        return skip("values_of_namespaces_that_end_are_not_kept", "network namespaces need root");
    }
    let runs = Runs::new("fuse");
    runs.go("unshare -n sh -c 'echo 9 >/proc/sys/net/mine; echo 8 >/proc/sys/vm/number'").good();
    assert!(runs.file().contains("vm/number") && !runs.file().contains("net/mine"), "{}", runs.file());
}

#[test]
fn what_a_program_leaves_behind_is_saved_too() {
    let runs = Runs::new("memfd");
    let wait = "while ! test -e gone; do sleep 0.05; done";
    let daemon = format!("({wait}; echo 9 >/proc/sys/vm/number) >/dev/null 2>&1 &");
    let script = format!("cd {}; echo 8 >/proc/sys/vm/number; {daemon}", text_of(runs.scratch.path()));
    runs.go(&script).good();
    assert!(runs.file().contains("number \"8\\n\""), "{}", runs.file());
    fs::write(runs.scratch.join("gone"), "").expect("own directory");
    let saved = || fs::read_to_string(&runs.state).is_ok_and(|text| text.contains("number \"9\\n\""));
    assert!(common::eventually(common::LIMIT, saved), "{}", runs.file());
}
