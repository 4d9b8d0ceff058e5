//! What the integration tests share: building guest programs, running them bare and under sysemu, comparing.
//!
//! No test relies on another one or on state of the process; whatever is written lives in a temporary
//! directory of its own.
#![allow(dead_code, reason = "each test binary uses a part of it")]

pub mod gvisor;
pub mod loads;
pub mod runc;
pub mod session;

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// How long a program may take before it counts as hung.
pub const LIMIT: Duration = Duration::from_secs(60);

/// A directory that is removed again.
pub struct Scratch(PathBuf);

impl Scratch {
    /// A new directory that everyone may enter, below the system's temporary directory.
    pub fn new() -> Self {
        let template = std::env::temp_dir().join("sysemu-test.XXXXXX");
        let path = nix::unistd::mkdtemp(&template).expect("a temporary directory can be made");
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&path, open).expect("own directory");
        Scratch(path)
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A path in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file in it and gives its path as text.
    pub fn write(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        fs::write(&path, text).expect("a file in an own directory can be written");
        text_of(&path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A path as text; the tests use no others.
pub fn text_of(path: &Path) -> String {
    path.to_str().expect("test paths are text").to_owned()
}

/// How a guest is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Build {
    /// For this machine, with the shared C library.
    Dynamic,
    /// For this machine, without shared libraries.
    Static,
    /// For i386.
    I386,
}

/// Compiles `fixtures/guests/NAME.c` unless that was done before, and gives the program's path.
pub fn guest(name: &str) -> String {
    guest_as(name, Build::Dynamic)
}

/// As [`guest`], in the given way.
pub fn guest_as(name: &str, build: Build) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sources = root.join("fixtures/guests");
    let source = sources.join(format!("{name}.c"));
    let target = root.join("target/guests");
    fs::create_dir_all(&target).expect("target/guests can be made");
    let (suffix, flags): (&str, &[&str]) = match build {
        Build::Dynamic => ("", &[]),
        Build::Static => ("-static", &["-static"]),
        Build::I386 => ("-i386", &["-m32"]),
    };
    let program = target.join(format!("{name}{suffix}"));
    let newest = [&source, &sources.join("guest.h")].map(|path| modified(path)).into_iter().max();
    if program.exists() && Some(modified(&program)) > newest {
        return text_of(&program);
    }
    // Under another name first: tests of one binary build the same guest at the same time.
    let fresh =
        target.join(format!("{name}{suffix}.{:?}.{}", std::thread::current().id(), std::process::id()));
    let output = Command::new("cc")
        .args(["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread", "-o"])
        .arg(&fresh)
        .args(flags)
        .arg(&source)
        .output()
        .expect("cc is installed");
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    fs::rename(&fresh, &program).expect("both are in target/guests");
    text_of(&program)
}

/// Compiles `fixtures/guests/NAME.go` to a static program unless that was done before, and gives its path.
pub fn go_guest(name: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let source = root.join("fixtures/guests").join(format!("{name}.go"));
    let target = root.join("target/guests");
    fs::create_dir_all(&target).expect("target/guests can be made");
    let program = target.join(name);
    if program.exists() && modified(&program) > modified(&source) {
        return text_of(&program);
    }
    let fresh = target.join(format!("{name}.{:?}.{}", std::thread::current().id(), std::process::id()));
    let search = std::env::var("PATH").unwrap_or_default();
    let output = Command::new("go")
        .args(["build", "-o"])
        .args([&fresh, &source])
        .env("PATH", format!("{search}:/usr/local/go/bin"))
        .env("CGO_ENABLED", "0")
        .env("GOCACHE", root.join("target/go-cache"))
        .env("GOFLAGS", "-mod=mod")
        .current_dir(&target)
        .output()
        .expect("go is installed");
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    fs::rename(&fresh, &program).expect("both are in target/guests");
    text_of(&program)
}

fn modified(path: &Path) -> std::time::SystemTime {
    fs::metadata(path).and_then(|data| data.modified()).expect("the file exists")
}

/// The program under test.
pub fn sysemu_program() -> &'static str {
    env!("CARGO_BIN_EXE_sysemu")
}

/// Whether the tests run for the other backend: `SYSEMU_BACKEND=ptrace cargo test`.
pub fn is_ptrace() -> bool {
    std::env::var_os("SYSEMU_BACKEND").is_some_and(|backend| backend == "ptrace")
}

/// Whether the long forms of tests were asked for with `SYSEMU_LONG=1`.
pub fn is_long() -> bool {
    std::env::var_os("SYSEMU_LONG").is_some_and(|value| value == "1")
}

/// Prints why a test did not run, in the form that CI counts.
pub fn skip(name: &str, reason: &str) {
    // Straight to the descriptor: the test harness captures what goes through print!.
    let _ = writeln!(std::io::stderr(), "SKIP {name}: {reason}");
}

/// Whether this process may mount and make namespaces.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// What a program did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// Exit status, 128+n for a signal, as a shell shows it.
    pub status: i32,
}

impl Outcome {
    /// Standard output, after checking that the program ended with status 0.
    #[track_caller]
    pub fn good(self) -> String {
        assert_eq!(self.status, 0, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self.stdout
    }
}

/// A program to run: under nothing, or under sysemu with options.
#[derive(Clone, Debug)]
pub struct Run {
    words: Vec<String>,
    input: String,
    limit: Duration,
    directory: Option<PathBuf>,
    environment: Vec<(String, String)>,
}

impl Run {
    /// A program with its arguments.
    pub fn new<S: AsRef<str>>(words: &[S]) -> Self {
        let words = words.iter().map(|word| word.as_ref().to_owned()).collect();
        Run { words, input: String::new(), limit: LIMIT, directory: None, environment: Vec::new() }
    }

    /// A shell script.
    pub fn shell(script: &str) -> Self {
        Run::new(&["sh", "-c", script])
    }

    /// The program and its arguments, whatever they were put under included.
    pub fn words(&self) -> impl Iterator<Item = &str> {
        self.words.iter().map(String::as_str)
    }

    /// What it reads from standard input.
    pub fn input(mut self, text: &str) -> Self {
        self.input = text.to_owned();
        self
    }

    /// What it reads from standard input.
    pub fn text(&self) -> &str {
        &self.input
    }

    /// How long it may take.
    pub fn limit(mut self, seconds: u64) -> Self {
        self.limit = Duration::from_secs(seconds);
        self
    }

    /// Where it starts.
    pub fn directory(mut self, path: &Path) -> Self {
        self.directory = Some(path.to_owned());
        self
    }

    /// One variable of its environment.
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The same program under sysemu with these options. Policies named after the program stay out.
    pub fn under(&self, options: &[&str]) -> Self {
        let is_chosen = !is_ptrace() || options.contains(&"--backend");
        let backend: &[&str] = if is_chosen { &[] } else { &["--backend", "ptrace"] };
        self.after(&[&[sysemu_program(), "--no-auto"], backend, options, &["--"]].concat())
    }

    /// The same program, started by another one.
    pub fn after<S: AsRef<str>>(&self, words: &[S]) -> Self {
        let mut run = self.clone();
        run.words.splice(..0, words.iter().map(|word| word.as_ref().to_owned()));
        run
    }

    /// The same program where /proc/sys is a read-only bind mount of itself.
    pub fn read_only_sysctls(&self) -> Self {
        let script = "mount --bind /proc/sys /proc/sys && mount -o remount,ro,bind /proc/sys && exec \"$@\"";
        self.after(&["unshare", "-m", "sh", "-c", script, "sh"])
    }

    /// Runs it to its end, or for as long as it may take.
    #[track_caller]
    pub fn go(&self) -> Outcome {
        let scratch = Scratch::new();
        let paths = ["in", "out", "err"].map(|name| scratch.join(name));
        fs::write(&paths[0], &self.input).expect("own directory");
        let file = |path: &PathBuf| File::create(path).expect("own directory");
        let mut command = self.command();
        command.stdin(File::open(&paths[0]).expect("written above"));
        command.stdout(file(&paths[1])).stderr(file(&paths[2]));
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{:?}: {error}", self.words));
        let status = wait(&mut child, self.limit);
        let read = |path| String::from_utf8_lossy(&fs::read(path).expect("made above")).into_owned();
        let (stdout, stderr) = (read(&paths[1]), read(&paths[2]));
        let status = status.unwrap_or_else(|| panic!("hung: {:?}\n{stdout}\n{stderr}", self.words));
        Outcome { stdout, stderr, status }
    }

    /// The command, in a process group of its own, with nothing redirected.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.words[0]);
        command.args(self.words[1..].iter().map(OsStr::new)).process_group(0);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        command
    }

    /// Starts it with piped standard output and nothing to read.
    pub fn start(&self) -> Child {
        let mut command = self.command();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        command.spawn().unwrap_or_else(|error| panic!("{:?}: {error}", self.words))
    }
}

/// Waits for a child of [`Run::command`]; kills its process group when it takes too long.
pub fn wait(child: &mut Child, limit: Duration) -> Option<i32> {
    let status = poll(child, limit);
    if status.is_none() {
        let group = Pid::from_raw(child.id().try_into().expect("pids fit"));
        let _ = killpg(group, Signal::SIGKILL);
        let _ = child.wait();
    }
    status
}

/// The status of a child, when it ends within this time.
pub fn poll(child: &mut Child, limit: Duration) -> Option<i32> {
    let end = Instant::now() + limit;
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(status) = child.try_wait().expect("it is our child") {
            return Some(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)));
        }
        if Instant::now() > end {
            return None;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// Polls until the question is answered with yes; `false` when that took too long.
pub fn eventually(limit: Duration, mut question: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    while Instant::now() < end {
        if question() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    question()
}

/// Fails with both transcripts' differing lines.
#[track_caller]
pub fn assert_same(what: &str, left: &str, right: &str) {
    if left == right {
        return;
    }
    let mut report = format!("{what}: the transcripts differ\n");
    let (mut left, mut right) = (left.lines(), right.lines());
    loop {
        match (left.next(), right.next()) {
            (None, None) => break,
            (a, b) if a == b => {}
            (a, b) => {
                let _ = writeln!(report, "  - {}\n  + {}", a.unwrap_or("(end)"), b.unwrap_or("(end)"));
            }
        }
    }
    panic!("{report}");
}
