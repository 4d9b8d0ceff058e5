//! Hostile input and hard circumstances: the tracee always gets an answer, the right one where there is one,
//! and the supervisor neither hangs nor leaks.

mod common;

use std::fs;
use std::time::Duration;

use common::{Run, Scratch, eventually, guest, is_long, is_ptrace, is_root, skip, sysemu_program};

const PATH: &str = "/proc/sys/kernel/pid_max";
const OPTIONS: &[&str] = &["--set", "kernel.pid_max=77777"];

/// Runs a case bare and wrapped, with both carriers, and expects the same transcript.
#[track_caller]
fn same(case: &str) {
    let run = Run::new(&[&guest("hostile"), case, PATH]);
    let bare = run.go().good();
    for carrier in ["fuse", "memfd"] {
        let wrapped = run.under(&["--set", "kernel.pid_max=77777", "--carrier", carrier]).go().good();
        common::assert_same(&format!("{case} with {carrier}"), &bare, &wrapped);
    }
}

#[test]
fn file_systems_are_unmounted_as_if_nobody_looked_at_them() {
    if !is_root() {
        return skip("file_systems_are_unmounted_as_if_nobody_looked_at_them", "mounts need root");
    }
    let script = "d=$(mktemp -d); mount -t tmpfs x $d; mkdir $d/bin $d/proc; cp /bin/busybox $d/bin; \
                  mount -t proc p $d/proc; chroot $d /bin/busybox cat /proc/sys/kernel/pid_max; \
                  chroot $d /bin/busybox ls /bin; \
                  umount $d/proc && umount $d && rmdir $d; \
                  umount -R /proc && mount -t proc p /proc && cat /proc/sys/kernel/pid_max";
    let run = Run::new(&["unshare", "-m", "sh", "-c", script]);
    assert_eq!(run.under(OPTIONS).go().good(), "77777\nbusybox\n77777\n");
    // In the supervisor's own mount namespace.
    let mut words = vec!["unshare", "-m"];
    let inner = Run::shell(script).under(OPTIONS);
    words.extend(inner.words());
    assert_eq!(Run::new(&words).go().good(), "77777\nbusybox\n77777\n");
}

#[test]
fn real_time_signals_kill_whom_they_are_sent_to() {
    let read = "cat /proc/sys/kernel/pid_max";
    for script in [
        // The program itself, as the shell sees it.
        "kill -RTMIN $$",
        "kill -RTMAX $$",
        // A child, and an orphan of which nobody but the supervisor hears.
        "sh -c 'kill -35 $$'; echo $?; echo done",
        "(sh -c 'sleep 0.1; kill -35 $$' &); sleep 0.3; echo done",
    ] {
        let bare =
            Run::new(&["bash", "-c", &format!("bash -c \"$1\"; echo $?; {read} >/dev/null"), "x", script]);
        let inside = Run::new(&["bash", "-c", script]).under(OPTIONS);
        let mut words = vec!["bash", "-c", "\"$@\"; echo $?", "x"];
        words.extend(inside.words());
        assert_eq!(Run::new(&words).go().good(), bare.go().good(), "{script}");
    }
    // Sent to sysemu they reach the program.
    let script = "trap 'echo heard; exit 3' RTMIN+2; sh -c \"kill -36 $(ps -o ppid= $(ps -o ppid= $PPID))\"; \
                  for i in 1 2 3 4 5 6 7 8 9; do sleep 0.1; done";
    let outcome = Run::new(&["bash", "-c", script]).under(OPTIONS).go();
    assert_eq!((outcome.stdout.as_str(), outcome.status), ("heard\n", 3), "{}", outcome.stderr);
}

#[test]
fn a_daemon_left_behind_lets_go_of_the_directory() {
    if !is_root() {
        return skip("a_daemon_left_behind_lets_go_of_the_directory", "mounts need root");
    }
    let daemon = "cd /; sleep 30 >/dev/null 2>&1 & echo $!";
    let program = sysemu_program();
    let script = format!(
        "d=$(mktemp -d); mount -t tmpfs x $d; cd $d; p=$({program} --set kernel.pid_max=77777 -- sh -c '{daemon}'); \
         cd /; cat /proc/$p/comm; umount $d && rmdir $d && echo unmounted; kill $p"
    );
    assert_eq!(Run::new(&["unshare", "-m", "sh", "-c", &script]).go().good(), "sleep\nunmounted\n");
}

#[test]
fn bad_pointers_get_the_kernels_errno() {
    same("pointers");
}

#[test]
fn long_names_get_the_kernels_errno() {
    same("names");
}

#[test]
fn descriptors_are_the_lowest_marked_as_asked_and_run_out() {
    same("descriptors");
}

#[test]
fn a_path_that_changes_meanwhile_is_answered_and_leaks_nothing() {
    same("race");
}

#[test]
fn a_limit_of_open_files_is_the_programs_own() {
    let limited = |limits: &str, run: &Run| {
        let script = format!("ulimit -Sn {limits}; exec \"$@\"");
        run.after(&["bash", "-c", &script, "bash"]).go()
    };
    let look = Run::new(&["bash", "-c", &format!("ulimit -Sn; ulimit -Hn; cat {PATH}")]).under(OPTIONS);
    let outcome = limited("40; ulimit -Hn 70", &look);
    assert_eq!((&*outcome.stdout, &*outcome.stderr), ("40\n70\n77777\n", ""));
    // As many as are just enough, with many threads that look at once.
    let threads = Run::new(&[&guest("hostile"), "threads", PATH]);
    let bare = threads.go().good();
    for carrier in ["fuse", "memfd"] {
        let wrapped = threads.under(&["--set", "kernel.pid_max=77777", "--carrier", carrier]);
        let outcome = limited("64; ulimit -Hn 64", &wrapped);
        assert_eq!((&*outcome.stdout, &*outcome.stderr), (&*bare, ""), "with {carrier}");
    }
    let outcome = limited("20; ulimit -Hn 20", &look);
    assert_eq!((outcome.status, &*outcome.stdout), (125, ""));
    assert!(outcome.stderr.contains("only 20 open files are allowed"), "{}", outcome.stderr);
}

#[test]
fn many_threads_at_once() {
    same("threads");
}

#[test]
fn an_untraced_child_is_supervised() {
    let run = Run::new(&[&guest("hostile"), "untraced", PATH]);
    assert_eq!(run.under(OPTIONS).go().good(), "77777\nstatus: 0\n");
}

#[test]
fn a_listener_of_its_own_is_refused_as_the_kernel_does() {
    let run = Run::new(&[&guest("hostile"), "listener", PATH]);
    assert_eq!(run.go().good(), "listener: ok\nfilter: ok\n");
    // The kernel allows one in each tree; a tracer needs none.
    let listener = if is_ptrace() { "ok" } else { "EBUSY" };
    assert_eq!(run.under(OPTIONS).go().good(), format!("listener: {listener}\nfilter: ok\n"));
}

#[test]
fn rings_are_off_unless_allowed() {
    let run = Run::new(&[&guest("hostile"), "ring", PATH]);
    let bare = run.go().good();
    assert_eq!(run.under(OPTIONS).go().good(), "io_uring_setup: ENOSYS\n");
    let scratch = Scratch::new();
    let policy = scratch.write("ring.toml", "schema = 1\n[options]\nio_uring = \"allow\"\n");
    assert_eq!(run.under(&["-p", &policy, "--set", "kernel.pid_max=77777"]).go().good(), bare);
    assert_eq!(run.under(&["--uname-release", "1", "--no-auto"]).go().good(), "io_uring_setup: ENOSYS\n");
}

/// What a storm of signals did: opens that were right, that were interrupted, that failed, and signals that came.
#[track_caller]
fn storm(restart: &str, interval: &str) -> (u32, u32, u32, u32) {
    let run = Run::new(&[&guest("storm"), restart, PATH, interval]);
    let outcome = run.under(&["--set", "kernel.pid_max=77777", "--summary"]).go();
    let numbers: Vec<u32> =
        outcome.stdout.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok()).collect();
    let [good, interrupted, failed, lowest, signals, ms] = numbers[..] else { panic!("{}", outcome.stdout) };
    eprintln!("{interrupted} of 2000 opens were interrupted; {signals} signals in {ms} ms");
    assert_eq!(lowest, 3, "a descriptor leaked");
    assert!(outcome.stderr.contains(" interrupted;"), "{}", outcome.stderr);
    (good, interrupted, failed, signals)
}

#[test]
fn signals_without_restart_are_counted() {
    let (good, interrupted, failed, _) = storm("0", "500");
    // Declared: a call that is still queued when a signal comes can fail with EINTR.
    assert_eq!((good + interrupted, failed), (2000, 0));
}

/// A timer of 41 microseconds: 24 000 signals a second, which is several in each call.
#[test]
fn signal_storms_stop_nothing() {
    let (good, interrupted, failed, signals) = storm("0", "41");
    assert_eq!((good + interrupted, failed), (2000, 0));
    assert!(signals > 500, "{signals} signals are no storm");
    let (good, interrupted, failed, signals) = storm("1", "41");
    assert_eq!((good, interrupted, failed), (2000, 0, 0));
    assert!(signals > 500, "{signals} signals are no storm");
}

#[test]
fn pipelines_of_short_programs() {
    let times = if is_long() { 5000 } else { 1000 };
    let script = format!(
        "i=0; while [ $i -lt {times} ]; do r=$(echo a$i | cat | cat); [ \"$r\" = a$i ] || exit 1; i=$((i+1)); done; echo $i"
    );
    let text = Run::new(&["dash", "-c", &script]).under(OPTIONS).limit(120).go().good();
    assert_eq!(text, format!("{times}\n"));
}

#[test]
fn a_go_program_with_preemption_signals() {
    let scratch = Scratch::new();
    let source = "package main\nimport (\"fmt\"; \"os\"; \"strings\"; \"sync\"; \"time\")\nfunc main() {\n\tvar group sync.WaitGroup\n\
        \tbad := make(chan string, 1000)\n\tend := time.Now().Add(time.Second)\n\tfor i := 0; i < 4; i++ {\n\t\tgroup.Add(2)\n\
        \t\tgo func() { defer group.Done(); n := 0; for time.Now().Before(end) { n++ }; _ = n }()\n\
        \t\tgo func() { defer group.Done(); for time.Now().Before(end) {\n\
        \t\t\tdata, err := os.ReadFile(\"/proc/sys/kernel/pid_max\")\n\
        \t\t\tif err != nil || strings.TrimSpace(string(data)) != \"77777\" { bad <- fmt.Sprint(err, string(data)); return }\n\t\t} }()\n\t}\n\
        \tgroup.Wait()\n\tclose(bad)\n\tfor text := range bad { fmt.Println(text) }\n\tfmt.Println(\"done\")\n}\n";
    let file = scratch.write("main.go", source);
    let program = scratch.join("main");
    let build = Run::new(&["go", "build", "-o", program.to_str().expect("text"), &file])
        .variable("CGO_ENABLED", "0")
        .variable("GOCACHE", "/tmp/sysemu-go-cache")
        .variable("GOFLAGS", "-mod=mod")
        .limit(180);
    build.go().good();
    let text = Run::new(&[program.to_str().expect("text")]).under(OPTIONS).go().good();
    assert_eq!(text, "done\n");
}

#[test]
fn exit_statuses_are_those_of_env() {
    for (words, status) in [
        (&["true"][..], 0),
        (&["sh", "-c", "exit 7"], 7),
        (&["sh", "-c", "kill -TERM $$"], 128 + 15),
        (&["sh", "-c", "kill -KILL $$"], 128 + 9),
        (&["/etc/passwd"], 126),
        (&["sysemu-no-such-program"], 127),
    ] {
        let run = Run::new(words);
        assert_eq!(run.under(OPTIONS).go().status, status, "{words:?}");
        assert_eq!(run.under(&[]).go().status, status, "{words:?} with an empty policy");
    }
    assert_eq!(Run::new(&["true"]).under(&["--set", "nonsense"]).go().status, 125);
    assert_eq!(Run::new(&[sysemu_program(), "--no-such-option"]).go().status, 125);
}

/// The processes behind a wrapped program, outermost first: front, keeper, server.
fn chain(front: u32) -> [u32; 3] {
    let child = |pid: u32| -> u32 {
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("listed");
        children.split_whitespace().next().expect("a child").parse().expect("a number")
    };
    let keeper = child(front);
    [front, keeper, child(keeper)]
}

fn kill(pid: u32) {
    let pid = nix::unistd::Pid::from_raw(pid.cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("killed");
}

#[test]
fn a_supervisor_that_is_killed_takes_its_tree_along() {
    let scratch = Scratch::new();
    let pids = scratch.join("pids");
    let script =
        format!("sleep 300 & echo $! $$ > {0}.part; mv {0}.part {0}; exec sleep 300", pids.display());
    // The front stands for the program, the server answers it.
    for victim in [0, 2] {
        let _ = fs::remove_file(&pids);
        let temporary = Scratch::new();
        let mut front =
            Run::shell(&script).under(OPTIONS).variable("TMPDIR", &common::text_of(temporary.path())).start();
        assert!(eventually(Duration::from_secs(10), || pids.exists()), "the tree started");
        let tree: Vec<String> =
            fs::read_to_string(&pids).expect("written").split_whitespace().map(str::to_owned).collect();
        kill(chain(front.id())[victim]);
        // A number that is taken again by then belongs to another program.
        let alive = |pid: &String| {
            fs::read_to_string(format!("/proc/{pid}/stat"))
                .is_ok_and(|stat| stat.contains("(sleep)") && !stat.contains(") Z"))
        };
        assert!(eventually(Duration::from_secs(10), || !tree.iter().any(alive)), "victim {victim}: {tree:?}");
        let left: Vec<_> = fs::read_dir(temporary.path()).expect("own directory").collect();
        assert!(left.is_empty(), "victim {victim} left {left:?}");
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("procfs");
        assert!(!mounts.contains("sysemu"), "victim {victim} left\n{mounts}");
        let _ = front.wait();
    }
}

#[test]
fn a_keeper_that_is_killed_ends_nothing() {
    let mut front = Run::shell(&format!("sleep 1; cat {PATH}")).under(OPTIONS).start();
    std::thread::sleep(Duration::from_millis(300));
    kill(chain(front.id())[1]);
    let mut text = String::new();
    std::io::Read::read_to_string(front.stdout.as_mut().expect("piped"), &mut text).expect("read");
    assert_eq!((text.as_str(), common::wait(&mut front, common::LIMIT)), ("77777\n", Some(0)));
}

#[test]
fn a_daemon_is_served_after_the_program_ended() {
    let scratch = Scratch::new();
    let file = scratch.join("late");
    let script = format!(
        "(setsid sh -c 'sleep 0.5; cat {PATH} > {0}.part; mv {0}.part {0}' >/dev/null 2>&1 &) ; echo over; exit 3",
        file.display()
    );
    let outcome = Run::shell(&script).under(OPTIONS).go();
    assert_eq!((outcome.stdout.as_str(), outcome.status), ("over\n", 3));
    assert!(eventually(Duration::from_secs(10), || file.exists()), "the daemon went on");
    assert_eq!(fs::read_to_string(&file).expect("written"), "77777\n");
}

#[test]
fn the_end_of_a_pipe_is_not_held_up_by_a_daemon() {
    let script = "(setsid sleep 5 >/dev/null 2>&1 </dev/null &); echo text";
    let words = [
        "sh",
        "-c",
        &format!("{} --no-auto {} -- sh -c '{script}' 2>&1 | cat", sysemu_program(), OPTIONS.join(" ")),
    ];
    let start = std::time::Instant::now();
    assert_eq!(Run::new(&words).go().good(), "text\n");
    assert!(start.elapsed() < Duration::from_secs(4), "waited for the daemon");
}

#[test]
fn what_the_program_starts_with_is_untouched() {
    let python = "import os, signal\n\
print([signal.getsignal(s) == signal.SIG_IGN for s in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)])\n\
status = open('/proc/self/status').read().splitlines()\n\
print([l for l in status if l.startswith(('SigBlk', 'SigIgn', 'SigCgt', 'Umask'))])\n\
print(sorted(os.listdir('/proc/self/fd'))[:-1] if False else [f for f in range(10) if os.path.exists(f'/proc/self/fd/{f}')])\n\
print(os.getpgrp() == os.getpgid(0), os.getsid(0) == os.getsid(os.getppid()), os.getcwd(), len(os.environ))\n";
    let scratch = Scratch::new();
    let program = scratch.write("facts.py", python);
    let inner = format!("python3 {program}");
    for prefix in [
        "",
        "trap '' HUP QUIT; ",
        "trap '' PIPE; ",
        "umask 077; ",
        "exec <&-; ",
        "exec 2>&-; ",
        "exec 5</dev/null; ",
    ] {
        let bare = Run::shell(&format!("{prefix}{inner}")).go();
        let wrapped = format!("{prefix}{} --no-auto {} -- {inner}", sysemu_program(), OPTIONS.join(" "));
        let wrapped = Run::shell(&wrapped).go();
        common::assert_same(prefix, &bare.stdout, &wrapped.stdout);
        assert_eq!(bare.status, wrapped.status, "{prefix}");
    }
}

#[test]
fn job_control_is_as_without() {
    let driver = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/guests/jobs.py");
    let bare = Run::new(&["python3", driver]).go().good();
    let prefix = format!("{} --no-auto {} -- ", sysemu_program(), OPTIONS.join(" "));
    let wrapped = Run::new(&["python3", driver, &prefix]).go().good();
    common::assert_same("a terminal session", &bare, &wrapped.replace(&prefix, ""));
    for sign in ["Stopped", "rc=130", "resumed", "after=0", "loop over"] {
        assert!(bare.contains(sign), "{sign} in\n{bare}");
    }
}

#[test]
fn setuid_programs_keep_their_power_under_root() {
    if !is_root() {
        return skip("setuid", "needs root");
    }
    let script =
        "su -s /bin/sh nobody -c 'id -u; cat /proc/sys/kernel/pid_max; grep NoNewPrivs /proc/self/status'";
    assert_eq!(Run::shell(script).under(OPTIONS).go().good(), "65534\n77777\nNoNewPrivs:\t0\n");
    let scratch = Scratch::new();
    let shell = scratch.join("id").display().to_string();
    let setuid = format!(
        "cp /usr/bin/id {shell}; chmod 4755 {shell}; setpriv --reuid=65534 --clear-groups {shell} -u"
    );
    assert_eq!(Run::shell(&setuid).under(OPTIONS).go().good(), Run::shell(&setuid).go().good());
}

#[test]
fn an_ordinary_user_gets_no_new_privs_and_an_answer() {
    if !is_root() {
        return skip("user", "becoming another user needs root");
    }
    let scratch = Scratch::new();
    let program = scratch.join("sysemu").display().to_string();
    fs::copy(sysemu_program(), &program).expect("copied");
    let script = format!(
        "setpriv --reuid=65534 --regid=65534 --clear-groups {program} --no-auto {} -- sh -c 'id -u; cat {PATH}; \
         grep NoNewPrivs /proc/self/status'",
        OPTIONS.join(" ")
    );
    assert_eq!(Run::shell(&script).go().good(), "65534\n77777\nNoNewPrivs:\t1\n");
}

#[test]
fn a_program_that_may_not_be_looked_at_runs_bare() {
    if !is_root() {
        return skip("undumpable", "becoming another user needs root");
    }
    let scratch = Scratch::new();
    let program = scratch.join("sysemu").display().to_string();
    fs::copy(sysemu_program(), &program).expect("copied");
    // PR_SET_DUMPABLE 0: an unprivileged supervisor may not read its memory any more.
    let python = scratch.write(
        "hide.py",
        "import ctypes\nctypes.CDLL(None).prctl(4, 0, 0, 0, 0)\nfor i in range(50):\n    text = open('/proc/sys/kernel/ostype').read()\nprint(text.strip())\n",
    );
    let script = format!(
        "setpriv --reuid=65534 --regid=65534 --clear-groups {program} --no-auto --set kernel.ostype=X -- python3 {python}"
    );
    let outcome = Run::shell(&script).go();
    assert_eq!(outcome.stdout, "Linux\n", "{}", outcome.stderr);
    let warnings = outcome.stderr.lines().count();
    assert!((1..=5).contains(&warnings), "{}", outcome.stderr);
}

#[test]
fn permissions_are_those_of_sysctls_and_of_files() {
    if !is_root() {
        return skip("permissions", "becoming another user needs root");
    }
    let scratch = Scratch::new();
    let policy = scratch.write(
        "modes.toml",
        "schema = 1\n[[sysctl]]\nkey = \"kernel.sysemu_secret\"\nvalue = \"1\"\nmode = \"0600\"\n[[sysctl]]\nkey = \"kernel.sysemu_write\"\n\
         value = \"1\"\nmode = \"0200\"\n[[file]]\npath = \"/sys/kernel/sysemu_file\"\ncontent = \"1\\n\"\nmode = \"0200\"\n",
    );
    let look = "cat /proc/sys/kernel/sysemu_secret /proc/sys/kernel/sysemu_write /sys/kernel/sysemu_file 2>&1 | sed 's/.*: //'; \
                test -r /proc/sys/kernel/sysemu_secret; echo $?; test -w /proc/sys/kernel/sysemu_secret; echo $?";
    let script = scratch.write("look.sh", look);
    let run = |prefix: &str| Run::shell(&format!("{prefix} sh {script}")).under(&["-p", &policy]).go().stdout;
    let refused = "Permission denied\n";
    // Root is bound by the mode of a sysctl, not by that of another file.
    assert_eq!(run(""), format!("1\n{refused}1\n0\n0\n"));
    let nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups";
    assert_eq!(run(nobody), format!("{}1\n1\n", refused.repeat(3)));
    assert_eq!(run(&format!("{nobody} unshare -Ur")), format!("{}1\n1\n", refused.repeat(3)));
}

#[test]
fn the_supervisor_stays_as_it_is_over_many_calls() {
    let calls = if is_long() { 1_000_000 } else { 100_000 };
    let script = format!(
        "exec 3<&0; i=0; python3 -c \"\nimport os, sys\ndef facts():\n    s = os.getppid()\n    fds = len(os.listdir(f'/proc/{{s}}/fd'))\n    \
         rss = [int(l.split()[1]) for l in open(f'/proc/{{s}}/status') if l.startswith('VmRSS')][0]\n    return fds, rss\n\
         def work(n):\n    for i in range(n):\n        f = os.open('{PATH}', 0); os.read(f, 9); os.close(f)\n        os.stat('/etc/passwd')\n\
         work(2000); a = facts(); work({}); b = facts()\nprint(a[0] == b[0], b[1] - a[1] < 4096, a, b, file=sys.stderr)\n\
         print(abs(a[0] - b[0]) <= 1, b[1] - a[1] < 4096)\"",
        calls / 2
    );
    // exec: the shell is replaced, so that the parent is the server itself.
    let script = script.replace("python3 -c", "exec python3 -c");
    let outcome = Run::shell(&script).under(OPTIONS).limit(300).go();
    assert_eq!(outcome.stdout, "True True\n", "{}", outcome.stderr);
}
