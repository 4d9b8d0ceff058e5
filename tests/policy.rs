//! The policy format from outside: every mistake with its place, precedence, shorthands, round trips.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use proptest::prelude::*;
use sysemu::policy::diagnostic::{Report, Source};
use sysemu::policy::{Content, Loader, Policy, What, parse, show};

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("sysemu-policy-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).expect("created");
        Folder(path)
    }
    fn file(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        fs::write(&path, text).expect("written");
        path.to_string_lossy().into_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn sysemu(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sysemu")).args(args).env_remove("SYSEMU_POLICY").output().expect("ran")
}

fn value(policy: &Policy, path: &str) -> Option<String> {
    let row = policy.rows.iter().rev().find(|row| row.path == path)?;
    match &row.what {
        What::File { content: Content::Fixed(bytes), .. } => {
            Some(String::from_utf8_lossy(bytes).into_owned())
        }
        _ => None,
    }
}

/// Text behind `schema = 1` in line 1, and the mistake expected: `line:column: words`.
const MISTAKES: &[(&str, &str)] = &[
    (
        "[[sysctl]]\nkey = \"a.b\"\nvalu = \"1\"\n",
        "4:1: unknown key \"valu\" in [[sysctl]]; did you mean \"value\"?",
    ),
    ("[[sysctll]]\nkey = \"a.b\"\n", "2:3: unknown key \"sysctll\"; did you mean \"sysctl\"?"),
    ("[[sysctl]]\nkey = 3\nvalue = \"1\"\n", "3:7: key must be a string, not integer"),
    ("[[sysctl]]\nvalue = \"1\"\n", "2:1: missing key \"key\" in [[sysctl]]"),
    ("[[sysctl]]\nkey = \"a.b\"\nvalue = \"x\"\ntype = \"int\"\n", "4:9: value \"x\" is not an int"),
    (
        "[[sysctl]]\nkey = \"a.b\"\nvalue = \"3\"\ntype = \"int\"\nrange = [0, 2]\n",
        "4:9: value \"3\" is not an int from 0 to 2",
    ),
    ("[[sysctl]]\nkey = \"a.b\"\nvalue = \"3\"\ntype = \"int\"\nrange = [2, 0]\n", "6:9: range is empty"),
    (
        "[[sysctl]]\nkey = \"a.b\"\nvalue = \"3\"\ntype = \"int\"\nrange = [0, 3000000000]\n",
        "6:9: range is outside",
    ),
    (
        "[[sysctl]]\nkey = \"a.b\"\nvalue = \"3\"\ntype = \"string\"\nrange = [0, 3]\n",
        "6:9: range does not go with type string",
    ),
    (
        "[[sysctl]]\nkey = \"a.b\"\nvalue = \"3\"\ntype = \"int\"\nlen = 2\n",
        "6:7: len does not go with type int",
    ),
    ("[[sysctl]]\nkey = \"a.b\"\nvalue = \"3 4\"\ntype = \"int-list\"\n", "2:1: type int-list needs len"),
    ("[[sysctl]]\nkey = \"a.b\"\nvalue = \"3\"\ntype = \"in\"\n", "5:8: type cannot be \"in\"; it is one of"),
    ("[[sysctl]]\nkey = \"a.b\"\nvalue = \"3\"\nmode = \"rw\"\n", "5:8: mode \"rw\" is not octal"),
    (
        "[[sysctl]]\nkey = \"a.eth*.b\"\nvalue = \"3\"\n",
        "3:7: bad key \"a.eth*.b\": \"eth*\": * matches exactly one component",
    ),
    ("[[file]]\npath = \"x\"\ncontent = \"\"\n", "3:8: bad path \"x\": it must be absolute"),
    (
        "[[file]]\npath = \"/a/../b\"\ncontent = \"\"\n",
        "3:8: bad path \"/a/../b\": it has a component \"..\"",
    ),
    (
        "[[file]]\npath = \"/a/{x}\"\ncontent = \"\"\n",
        "3:8: bad path \"/a/{x}\": \"{x}\": the placeholders are",
    ),
    ("[[file]]\npath = \"/a\"\n", "2:1: give exactly one of content, provider, like; found none"),
    (
        "[[file]]\npath = \"/a\"\ncontent = \"\"\nlike = \"/b\"\n",
        "2:1: give exactly one of content, provider, like; found content and like",
    ),
    (
        "[[file]]\npath = \"/a\"\ncontent = \"\"\n[[file]]\npath = \"/a\"\ncontent = \"\"\n",
        "5:1: this file row of \"/a\" contradicts the file row in ",
    ),
    (
        "[[file]]\npath = \"/a\"\ncontent = \"\"\n[[dir]]\npath = \"/a\"\n",
        "5:1: this directory row of \"/a\" contradicts the file row",
    ),
    (
        "[[file]]\npath = \"/a\"\ncontent = \"\"\nwhen = \"missing\"\n[[absent]]\npath = \"/a\"\n",
        "6:1: this absent row of \"/a\" contradicts the file row",
    ),
    (
        "[[file]]\npath = \"/a\"\ncontent = \"\"\n[[file]]\npath = \"/a/b\"\ncontent = \"\"\n",
        "5:1: \"/a/b\" is below the file row in ",
    ),
    (
        "[[file]]\npath = \"/a/*\"\ncontent = \"\"\n[[file]]\npath = \"/a/b/c\"\ncontent = \"\"\n",
        "5:1: \"/a/b/c\" is below the file row in ",
    ),
    (
        "[[link]]\npath = \"/a\"\ntarget = \"b\"\n[[link]]\npath = \"/b\"\ntarget = \"/a\"\n",
        "2:1: link \"/a\" leads back to itself",
    ),
    (
        "[[file]]\npath = \"/a\"\nprovider = \"cpuinf\"\n",
        "2:1: unknown provider \"cpuinf\"; did you mean \"cpuinfo\"?",
    ),
    ("[[stat]]\npath = \"/prox\"\ninode = 1\n", "3:8: path cannot be \"/prox\"; it is one of /proc, /sys"),
    ("[[stat]]\npath = \"/proc\"\n", "2:1: missing key \"inode\" in [[stat]]"),
    ("[[stat]]\npath = \"/proc\"\ninode = 0\n", "4:9: no inode has the number 0"),
    (
        "[[stat]]\npath = \"/sys\"\ninode = 1\n[[stat]]\npath = \"/sys\"\ninode = 2\n",
        "5:1: second [[stat]] row for \"/sys\"; the first is in line 2",
    ),
    (
        "[[statfs]]\npath = \"/a\"\ntype = \"tmpf\"\n",
        "4:8: type: unknown file system type \"tmpf\"; did you mean \"tmpfs\"?",
    ),
    ("[[statfs]]\ntype = \"tmpfs\"\n", "2:1: give exactly one of path, from"),
    (
        "[[statfs]]\npath = \"/a\"\ntype = \"tmpfs\"\n[[statfs]]\npath = \"/a\"\ntype = \"proc\"\n",
        "5:1: second [[statfs]] row for path \"/a\"",
    ),
    ("[machine]\ncpus = 0\n", "3:8: cpus must be 1 to 8192, not 0"),
    ("[machine]\nmemory = \"4 gigs\"\n", "3:10: memory cannot be \"4 gigs\""),
    ("[uname]\nrelease = \"a\\nb\"\n", "3:11: release must be one line"),
    ("[options]\nio_uring = \"on\"\n", "3:12: io_uring cannot be \"on\"; it is one of off, allow"),
    ("[sysctl]\nkey = \"a\"\n", "2:2: expected [[sysctl]], found [sysctl]"),
    ("[[sysctl]]\nkey = \"a.b\"\nvalue = \"x{\"\ntype = \"int\"\n", "4:9: value \"x{\" is not an int"),
    (
        "[machine]\ncpus = 4\n[[sysctl]]\nkey = \"a.b\"\nvalue = \"{cpus}\"\ntype = \"int\"\nrange = [0, 2]\n",
        "4:1: \"4\" for /proc/sys/a/b is not an int from 0 to 2",
    ),
    ("[[file]]\npath = \"/a\"\ncontent = \"\"\nmode = \"+644\"\n", "5:8: mode \"+644\" is not octal"),
    ("[machine]\nmemory = \"+4G\"\n", "3:10: memory cannot be \"+4G\""),
    ("[[sysctl]\n", "2:10: unclosed array table"),
];

#[test]
fn every_mistake_is_reported_with_its_place() {
    let folder = Folder::new("mistakes");
    for (index, (text, expected)) in MISTAKES.iter().enumerate() {
        let file = folder.file(&format!("m{index}.toml"), &format!("schema = 1\n{text}"));
        let output = sysemu(&["policy", "check", &file]);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{text}\n{errors}");
        assert!(
            errors.lines().any(|line| line.contains(&format!("{file}:{expected}"))),
            "{text}expected {expected}\n{errors}"
        );
    }
}

#[test]
fn all_mistakes_are_reported_at_once_in_order() {
    let folder = Folder::new("all");
    let file = folder.file(
        "x.toml",
        "[[file]]\npath = \"x\"\ncontent = \"\"\n[[sysctl]]\nkey = \"a.b\"\nvalue = \"x\"\ntype = \"int\"\n",
    );
    let output = sysemu(&["policy", "check", "--format", "json", &file]);
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let lines: Vec<u64> =
        found.as_array().expect("list").iter().filter_map(|item| item["line"].as_u64()).collect();
    assert_eq!(lines, [1, 2, 6], "{found:#}");
}

#[test]
fn includes_are_relative_to_the_file_and_own_rows_win() {
    let folder = Folder::new("include");
    folder.file("base.toml", "schema = 1\n[[sysctl]]\nkey = \"a.b\"\nvalue = \"base\"\n[[sysctl]]\nkey = \"a.c\"\nvalue = \"base\"\n");
    let file = folder.file(
        "top.toml",
        "schema = 1\ninclude = [\"base.toml\"]\n[[sysctl]]\nkey = \"a.b\"\nvalue = \"top\"\n",
    );
    let policy = Loader::new().policy(&file).set("a.c=line").load().expect("good");
    assert_eq!(value(&policy, "/proc/sys/a/b").as_deref(), Some("top\n"));
    assert_eq!(value(&policy, "/proc/sys/a/c").as_deref(), Some("line\n"));
    assert_eq!(policy.rows.len(), 2);
}

#[test]
fn include_cycles_and_unknown_names_are_errors() {
    let folder = Folder::new("cycle");
    folder.file("a.toml", "schema = 1\ninclude = [\"./b.toml\"]\n");
    folder.file("b.toml", "schema = 1\ninclude = [\"./a.toml\"]\n");
    let a = folder.0.join("a.toml").to_string_lossy().into_owned();
    let error = Loader::new().policy(&a).load().expect_err("a cycle").to_string();
    assert!(error.contains("include cycle"), "{error}");
    let error = Loader::new().policy("kublet").load().expect_err("unknown").to_string();
    assert!(error.contains("did you mean \"kubelet\"?"), "{error}");
    let error = Loader::new().policy("./none.toml").load().expect_err("no file").to_string();
    assert!(error.contains("cannot read the policy file ./none.toml"), "{error}");
}

#[test]
fn what_two_parts_include_counts_once_in_its_first_place() {
    let policy = Loader::new().policy("k3s").load().expect("good");
    assert_eq!(value(&policy, "/proc/sys/vm/overcommit_memory").as_deref(), Some("1\n"));
    let row =
        policy.rows.iter().rev().find(|row| row.path == "/proc/sys/vm/overcommit_memory").expect("there");
    assert_eq!(
        row.when,
        sysemu::policy::When::Always,
        "the catalogue does not come back over the kubelet's row"
    );
}

#[test]
fn a_later_policy_switches_files_of_uname_on_again() {
    let folder = Folder::new("files");
    let off = folder.file("off.toml", "schema = 1\n[uname]\nrelease = \"1.2\"\nfiles = false\n");
    let on = folder.file("on.toml", "schema = 1\n[uname]\nfiles = true\n");
    assert_eq!(Loader::new().policy(&off).policy(&on).load().expect("good").rows.len(), 2);
}

#[test]
fn a_reader_who_leaves_is_no_failure() {
    let script = format!("{} policy show linux | head -1", env!("CARGO_BIN_EXE_sysemu"));
    let output = Command::new("bash").args(["-o", "pipefail", "-c", &script]).output().expect("ran");
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), &b"schema = 1\n"[..]));
}

#[test]
fn help_fits_a_screen() {
    let help = String::from_utf8(sysemu(&["--help"]).stdout).expect("text");
    assert!(help.lines().count() <= 24 && help.matches("  sysemu ").count() >= 3, "{help}");
}

#[test]
fn values_on_the_command_line_keep_the_type_of_the_catalogue() {
    let policy = Loader::new().set("vm.swappiness=0x10").set("net.ipv4.tcp_rmem=1 2 3").load().expect("good");
    assert_eq!(value(&policy, "/proc/sys/vm/swappiness").as_deref(), Some("16\n"));
    assert_eq!(value(&policy, "/proc/sys/net/ipv4/tcp_rmem").as_deref(), Some("1\t2\t3\n"));
    for bad in ["vm.swappiness=ten", "vm.swappiness=201", "vm.swappiness", "=1"] {
        assert!(Loader::new().set(bad).load().is_err(), "{bad}");
    }
    assert!(Loader::new().uname_release("a\nb").load().is_err());
}

#[test]
fn cpu_placeholders_expand() {
    let folder = Folder::new("cpu");
    let text = "schema = 1\n[machine]\ncpus = 3\n[[file]]\npath = \"/sys/x/cpu{cpu}/id\"\ncontent = \"{cpu} of {cpus} to {cpu-last}\\n\"\n";
    let file = folder.file("x.toml", text);
    let policy = Loader::new().policy(&file).load().expect("good");
    assert_eq!(value(&policy, "/sys/x/cpu2/id").as_deref(), Some("2 of 3 to 2\n"));
    assert_eq!(value(&policy, "/sys/x/cpu3/id"), None);
    assert!(policy.rows.iter().any(|row| row.path == "/proc/cpuinfo"), "the files of [machine] follow");
}

#[test]
fn uname_brings_its_files_unless_told_not_to() {
    let folder = Folder::new("uname");
    let with = folder.file("with.toml", "schema = 1\n[uname]\nrelease = \"1.2\"\n");
    let paths: Vec<String> =
        Loader::new().policy(&with).load().expect("good").rows.into_iter().map(|row| row.path).collect();
    assert_eq!(paths, ["/proc/sys/kernel/osrelease", "/proc/version"]);
    let without = folder.file("without.toml", "schema = 1\n[uname]\nrelease = \"1.2\"\nfiles = false\n");
    assert!(Loader::new().policy(&without).load().expect("good").rows.is_empty());
}

#[test]
fn what_show_prints_loads_as_the_same_policy() {
    let folder = Folder::new("show");
    for (name, _) in sysemu::policy::builtin::NAMED {
        let policy = Loader::new().policy(*name).load().expect("good");
        let file = folder.file(&format!("{name}.toml"), &show::policy(&policy));
        let again = Loader::new().policy(&file).load().unwrap_or_else(|error| panic!("{name}: {error}"));
        let strip = |policy: &Policy| -> Vec<_> {
            policy.rows.iter().map(|row| (row.path.clone(), row.what.clone(), row.mode, row.when)).collect()
        };
        assert_eq!(strip(&policy), strip(&again), "{name}");
        let roots = |policy: &Policy| -> Vec<_> {
            policy.stat.iter().map(|row| (row.path.clone(), row.inode)).collect()
        };
        assert_eq!(roots(&policy), roots(&again), "{name}");
        assert_eq!(policy.statfs.len(), again.statfs.len(), "{name}");
    }
}

#[test]
fn show_names_the_line_of_each_row() {
    let folder = Folder::new("lines");
    let file = folder.file("x.toml", "schema = 1\n\n[[sysctl]]\nkey = \"a.b\"\nvalue = \"1\"\n");
    let output = sysemu(&["policy", "show", &file]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains(&format!("# {file}:3\n[[sysctl]]\nkey = \"a.b\"")), "{text}");
}

#[test]
fn schema_knows_every_key() {
    let output = sysemu(&["policy", "schema"]);
    let schema: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    for section in &sysemu::policy::keys::SECTIONS[1..] {
        let table = &schema["properties"][section.name];
        let table = if section.is_array { &table["items"] } else { table };
        for key in section.keys {
            assert!(table["properties"][key.name].is_object(), "{}.{}", section.name, key.name);
        }
    }
}

#[test]
fn the_reference_names_every_key() {
    let reference = include_str!("../policies/README.md");
    for section in sysemu::policy::keys::SECTIONS {
        assert!(reference.contains(&section.heading()), "{}", section.heading());
        for key in section.keys {
            let line = format!("| `{}` |", key.name);
            assert!(reference.contains(&line), "{} in {}", key.name, section.heading());
        }
    }
}

#[test]
fn a_bad_policy_keeps_the_program_from_starting() {
    let output = sysemu(&["--set", "nonsense", "--", "echo", "ran"]);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(125), &b""[..]));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--set \"nonsense\""));
}

#[test]
fn import_reads_sysctl_conf() {
    let folder = Folder::new("import");
    let file = folder.file(
        "s.conf",
        "# c\nvm.swappiness = 9\nvm.swappiness = 10\n-kernel/panic=5\n-net.ipv4.conf.lo.rp_filter\n",
    );
    let output = sysemu(&["policy", "import", &file]);
    let imported = folder.file("s.toml", &String::from_utf8_lossy(&output.stdout));
    let policy = Loader::new().policy(&imported).load().expect("good");
    assert_eq!(value(&policy, "/proc/sys/vm/swappiness").as_deref(), Some("10\n"));
    assert_eq!(value(&policy, "/proc/sys/kernel/panic").as_deref(), Some("5\n"));
}

proptest! {
    #[test]
    fn any_text_is_parsed_or_refused(text in "\\PC*") {
        let source = Source::new("any", text);
        let mut report = Report::default();
        parse::parse(&source, &mut report);
    }

    #[test]
    fn any_rows_are_parsed_or_refused(
        key in "[a-z.*/{}-]{0,20}", value in "[0-9a-z \\t-]{0,12}", kind in "[a-z-]{0,10}",
        low in any::<i64>(), high in any::<i64>(), mode in "[0-9a-z]{0,5}",
    ) {
        let text = format!("schema = 1\n[[sysctl]]\nkey = \"{key}\"\nvalue = '{value}'\ntype = \"{kind}\"\nrange = [{low}, {high}]\nmode = \"{mode}\"\n");
        let mut report = Report::default();
        parse::parse(&Source::new("any", text), &mut report);
    }
}
