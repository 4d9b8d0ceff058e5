//! What works inside gVisor in every kind of sandbox.

use libtest_mimic::Trial;
use serde_json::Value;

use crate::common::gvisor::{Sandbox, Setup};
use crate::common::{Outcome, Run, text_of};
use crate::{everywhere, versions};

pub fn cases() -> Vec<Trial> {
    let mut trials = everywhere("policies", policies);
    trials.extend(everywhere("explain", explain));
    trials.extend(everywhere("doctor", doctor));
    trials.extend(everywhere("empty_policy", empty_policy));
    trials.extend(everywhere("policy_with_rows", policy_with_rows));
    trials.extend(everywhere("writing", writing));
    trials.extend(everywhere("no_notification", no_notification));
    trials.extend(versions("writes", writes));
    trials
}

/// All commands that only look at policies say what they say on Linux.
fn policies(setup: Setup) {
    let script = "sysemu --version && sysemu policy list && for file in policies/*.toml; do sysemu policy check ./$file; done";
    let printed = Sandbox::new(setup).with("policies").shell(script).go();
    let folder = text_of(crate::common::gvisor::static_binary().parent().expect("it is in a folder"));
    let bare = Run::shell(&format!("PATH={folder}:$PATH; {script}"))
        .directory(std::path::Path::new(env!("CARGO_MANIFEST_DIR")))
        .go();
    assert_eq!(printed, bare);
    assert_eq!(printed.status, 0, "{printed:?}");
}

/// Paths are followed, and known for what they are, though statx(2) tells no mount here, openat2(2) is missing and the
/// root of procfs has an inode number of its own.
fn explain(setup: Setup) {
    let script = "cd /proc/sys/net; for path; do sysemu explain -p linux -p gvisor $path | head -n 1; done";
    let wanted = "\
/proc/sys/vm/swappiness: virtual file 0644, as /proc/sys/vm/swappiness
../kernel/panic: virtual file 0644, as /proc/sys/kernel/panic
/proc/self/cwd/../kernel/panic: virtual file 0644, as /proc/sys/kernel/panic
/proc/sys/kernel: passes through as /proc/sys/kernel: a real directory, listed together with the rows below it
/sys/module/nf_conntrack: virtual directory 0555, as /sys/module/nf_conntrack
/etc/passwd: passes through as /etc/passwd: no row names it
/proc/sys/kernel/none: passes through: it does not exist, and no row makes it
";
    let paths = wanted.lines().map(|line| line.split_once(": ").expect("path: text").0);
    let words: Vec<&str> = ["sh", "-c", script, "sh"].into_iter().chain(paths).collect();
    let printed = Sandbox::new(setup).command(&words).go();
    assert_eq!(printed, Outcome { stdout: wanted.into(), stderr: String::new(), status: 0 });
}

fn doctor(setup: Setup) {
    let outcome = Sandbox::new(setup).command(&["sysemu", "doctor"]).go();
    assert_eq!(outcome.stderr, "");
    assert_eq!(outcome.status, 0, "{}", outcome.stdout);
    let line = |topic: &str| {
        let lines = outcome.stdout.lines();
        lines.filter(|line| line.get(5..).is_some_and(|rest| rest.starts_with(topic))).collect::<Vec<_>>()
    };
    let [backend] = line("backend")[..] else { panic!("{}", outcome.stdout) };
    assert!(
        backend.starts_with("note ") && backend.contains("ptrace: ") && backend.contains("gVisor"),
        "{backend}"
    );

    let json = Sandbox::new(setup).command(&["sysemu", "doctor", "--format", "json"]).go();
    assert_eq!(json.status, 0, "{json:?}");
    let findings: Vec<Value> = serde_json::from_str(&json.stdout).expect("an array");
    let topics: Vec<&Value> = findings.iter().map(|finding| &finding["topic"]).collect();
    assert_eq!(topics.len(), outcome.stdout.lines().count(), "{}", outcome.stdout);
    let backend = findings.iter().find(|finding| finding["topic"] == "backend").expect("it is reported");
    assert_eq!(backend["state"], "limited");
}

/// Without a policy the program takes the place of sysemu.
fn empty_policy(setup: Setup) {
    for (script, status) in
        [("cat; echo out; echo err >&2; exit 7", 7), ("cat; echo out; echo err >&2; kill -TERM $$", 143)]
    {
        let words = ["sysemu", "--no-auto", "--", "sh", "-c", script];
        let outcome = Sandbox::new(setup).input("in\n").command(&words).go();
        assert_eq!(outcome, Outcome { stdout: "in\nout\n".into(), stderr: "err\n".into(), status });
    }
    let words = ["sysemu", "--no-auto", "--", "/no/such/program"];
    assert_eq!(Sandbox::new(setup).command(&words).go().status, 127);
}

/// The virtual tree is there for everybody who looks, through the ptrace backend.
fn policy_with_rows(setup: Setup) {
    let script = "uname -r; cat /proc/sys/kernel/osrelease; cut -d' ' -f3 /proc/version
cat /proc/sys/vm/swappiness /proc/sys/kernel/made_up; stat -c '%F %a %s' /proc/sys/vm/swappiness
test -r /proc/sys/kernel/made_up && echo readable; cd /proc/sys/kernel; cat made_up ../vm/swappiness; cd /
busybox ls /proc/sys/vm | grep swappiness; busybox ls /proc/sys/new/sub; cat /proc/sys/new/sub/value
cat /proc/sys/vm/none 2>&1; echo a | tr a b | tr b c; (exit 3); echo $?; sh -c 'kill -TERM $$'; echo $?; exit 9";
    let wanted = "5.15.0-test\n5.15.0-test\n5.15.0-test\n7\n5\nregular empty file 644 0\nreadable\n5\n7\nswappiness\n\
                  value\nx\ncat: /proc/sys/vm/none: No such file or directory\nc\n3\n143\n";
    let words = [
        "sysemu",
        "--no-auto",
        "--set",
        "vm.swappiness=7",
        "--set",
        "kernel.made_up=5",
        "--file",
        "/proc/sys/new/sub/value=x",
        "--uname-release",
        "5.15.0-test",
        "--",
        "sh",
        "-c",
        script,
    ];
    let outcome = Sandbox::new(setup).command(&words).limit(60).go();
    assert_eq!(outcome, Outcome { stdout: wanted.into(), stderr: "Terminated\n".into(), status: 9 });
}

/// Who may write and what it gives, as root and as somebody else.
fn writing(setup: Setup) {
    let script =
        "f=/proc/sys/vm/swappiness; echo 33 >$f; cat $f; sh -c \"echo 34 >$f\"; cat $f; echo 500 >$f; cat $f
sysctl -w vm.swappiness=35; sysctl vm.swappiness; echo 36 >>$f; busybox cat $f; test -w $f; echo $?
echo 1 >/proc/sys/new/denied || echo denied";
    let file = "/proc/sys/new/denied=x";
    let words = ["sysemu", "--no-auto", "--set", "vm.swappiness=7", "--file", file, "--", "sh", "-c", script];
    let outcome = Sandbox::new(setup).command(&words).limit(60).go();
    if setup.name().ends_with("nobody") {
        // As on Linux: root's file.
        assert_eq!(
            (outcome.stdout.as_str(), outcome.status),
            ("7\n7\n7\nvm.swappiness = 7\n7\n1\ndenied\n", 0)
        );
        assert_eq!(outcome.stderr.matches("ermission denied").count(), 6, "{}", outcome.stderr);
        return;
    }
    let wanted = "33\n34\n34\nvm.swappiness = 35\nvm.swappiness = 35\n36\n0\ndenied\n";
    assert_eq!((outcome.stdout.as_str(), outcome.status), (wanted, 0), "{}", outcome.stderr);
    assert_eq!(outcome.stderr.matches("I/O error").count(), 1, "{}", outcome.stderr);
}

/// Notification can be asked for, and there is none.
fn no_notification(setup: Setup) {
    let words =
        ["sysemu", "--backend", "notify", "--set", "vm.swappiness=1", "--", "sh", "-c", "echo it runs"];
    let outcome = Sandbox::new(setup).command(&words).go();
    assert_eq!((outcome.status, outcome.stdout.as_str()), (125, ""), "{outcome:?}");
    assert!(outcome.stderr.contains("seccomp user notification is not to be had here"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("sysemu doctor"), "{}", outcome.stderr);
}

/// Values are written, and refused, as on Linux: by shells that put the file at other numbers, their children, threads.
fn writes(setup: Setup) {
    let script = r#"
f=/proc/sys/vm/swappiness
for word in 50 500 junk '' '1 2'; do echo $word >$f; echo "status $?"; cat $f; done 2>&1 | grep -v rror
sysctl -w vm.swappiness=40; sysctl -w vm.swappiness=junk 2>/dev/null || echo refused
/bin/echo 33 >$f; /bin/echo x >$f 2>/dev/null || echo refused; printf 21 | cat >$f; printf 22 | tee $f; cat $f
exec 7<$f; dash -c "echo 44 >$f"; cat <&7
python3 -c '
import os, threading
f = os.open("/proc/sys/vm/swappiness", os.O_RDWR)
print(os.read(f, 9), os.pwrite(f, b"11", 0), os.pread(f, 9, 0))
g = os.dup(f)
print(os.write(g, b"0"), os.lseek(g, 0, 0), os.writev(g, [b"1", b"9\n"]), os.pread(f, 9, 0))
def wrong():
    try: os.pwrite(g, b"999", 0)
    except OSError as e: print(e)
threads = [threading.Thread(target=wrong) for _ in range(4)]
[t.start() for t in threads], [t.join() for t in threads]
'"#;
    let words = ["sysemu", "--no-auto", "--set", "vm.swappiness=60", "--", "bash", "-c", script];
    let inside = Sandbox::new(setup).command(&words).limit(60).go();
    let linux = Run::new(&["bash", "-c", script]).under(&["--set", "vm.swappiness=60"]).go();
    assert_eq!(inside, linux);
    assert!(linux.stdout.contains("status 1") && linux.stdout.contains("Invalid argument"), "{linux:?}");
}
