//! Real gVisor for tests: starts a sandbox, runs one command in it, and gives what it printed and its status.
//!
//! ```ignore
//! let outcome = Sandbox::new(Setup::NEWEST).with("policies").shell("sysemu policy check ./linux.toml").go();
//! ```
//!
//! The command sees the machine's own root, with all its programs, and whatever it writes is thrown away; or a root
//! with nothing in it ([`Sandbox::empty_root`]). The static `sysemu` is on its PATH.
//!
//! Everything that a sandbox consists of lives in pid, mount, network and IPC namespaces of its own. They end with
//! their first process, which is runsc, and that ends with the test; so no process, mount, interface or
//! abstract socket can be left over, however the test ends.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::{LIMIT, Outcome, Scratch, is_root, poll, text_of, wait};

/// One of the versions that `scripts/gvisor-deps` unpacks or `scripts/gvisor-newest` builds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// Debian 12's own, from December 2022. Its only platform here is ptrace.
    V2022,
    /// That of Debian 12's backports, from July 2024.
    V2024,
    /// Built from its module, from September 2026; not to be had on every machine.
    V2026,
}

impl Version {
    /// Its folder below target/gvisor.
    fn folder(self) -> &'static str {
        match self {
            Version::V2022 => "20221219",
            Version::V2024 => "20240729",
            Version::V2026 => "20260905",
        }
    }

    fn runsc(self) -> PathBuf {
        root().join("target/gvisor").join(self.folder()).join("usr/bin/runsc")
    }
}

/// How gVisor gets hold of the system calls of programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Platform {
    /// By a signal handler; rewrites call sites in the program.
    Systrap,
    /// By ptrace(2), which leaves the program as it is.
    Ptrace,
}

/// What network the sandbox has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// Only its own loopback.
    None,
    /// gVisor's own stack on an interface with the address 10.99.0.2 and a default route, that leads nowhere.
    Sandbox,
}

/// Whom the command runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User {
    /// Root with all capabilities but NET_RAW, as `runsc do` has them.
    Root,
    /// 65534, without capabilities.
    Nobody,
}

/// What kind of sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    /// Which gVisor.
    pub version: Version,
    /// Which platform of it.
    pub platform: Platform,
    /// Which network.
    pub network: Network,
    /// Which user.
    pub user: User,
}

impl Setup {
    /// Debian's newer version with its defaults, no network, root.
    pub const NEWEST: Setup = Setup {
        version: Version::V2024,
        platform: Platform::Systrap,
        network: Network::None,
        user: User::Root,
    };
    /// The older version with its defaults, no network, root.
    pub const OLDEST: Setup = Setup { version: Version::V2022, platform: Platform::Ptrace, ..Setup::NEWEST };
    /// The version that is built here, with its defaults, no network, root.
    pub const BUILT: Setup = Setup { version: Version::V2026, ..Setup::NEWEST };

    /// Each version that can be had here, with its defaults, no network, root.
    pub fn versions() -> Vec<Setup> {
        let mut setups = vec![Setup::NEWEST, Setup::OLDEST];
        setups.extend(built().is_ok().then_some(Setup::BUILT));
        setups
    }

    /// Each version with both networks and both users, and the other platform of Debian's newer one once.
    pub fn all() -> Vec<Setup> {
        let mut setups = Vec::new();
        for base in Setup::versions() {
            for network in [Network::None, Network::Sandbox] {
                for user in [User::Root, User::Nobody] {
                    setups.push(Setup { network, user, ..base });
                }
            }
        }
        setups.push(Setup { platform: Platform::Ptrace, ..Setup::NEWEST });
        setups
    }

    /// A name for messages and test names.
    pub fn name(self) -> String {
        format!("{:?}-{:?}-{:?}-{:?}", self.version, self.platform, self.network, self.user).to_lowercase()
    }
}

/// Why a command gave no outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It took too long and was killed; what it had printed till then.
    Hung(String),
    /// The sandbox did not start.
    Sandbox(String),
}

/// A command to be run in a sandbox of its own.
#[derive(Clone, Debug)]
pub struct Sandbox {
    setup: Setup,
    empty: bool,
    has_static: bool,
    words: Vec<String>,
    input: Vec<u8>,
    limit: Duration,
    environment: Vec<String>,
    files: Vec<PathBuf>,
}

/// Where programs are looked for, behind the folder that the command starts in.
const SEARCH: &str =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/go/bin:/usr/games";

/// The capabilities of root.
const CAPABILITIES: &str = "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE \
    NET_BIND_SERVICE NET_BROADCAST NET_ADMIN IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT \
    SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP \
    MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ";

/// Run as the first process of the namespaces: mounts, interfaces, then runsc in its own place.
///
/// Its parameters: the scratch directory, the network, the number of files, the files and where they are to be
/// seen in turn, runsc and its arguments. What goes wrong before runsc goes to the log, as runsc's own errors do.
const START: &str = r#"
scratch=$1 network=$2 files=$3
shift 3
prepare() {
    left=$files
    while [ "$left" -gt 0 ]; do
        mount --bind "$1" "$2" || return
        shift 2
        left=$((left - 1))
    done
    [ "$network" = sandbox ] || return 0
    ip link set lo up && ip link add inside type veth peer name outside && ip addr add 10.99.0.2/24 dev inside &&
        ip link set inside up && ip link set outside up && ip route add default via 10.99.0.1 || return
    # runsc takes a network namespace that has files below this one for the machine's own, which newer kernels have
    # in every namespace.
    mount -t tmpfs none /proc/sys/net/core
}
if ! prepare "$@" 2>>"$scratch/log"; then
    echo "the namespaces of the sandbox cannot be set up" >>"$scratch/log"
    exit 128
fi
shift $((2 * files))
: >"$scratch/started"
exec "$@"
"#;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Whether sandboxes can be had here: fetches gVisor and builds the static binary when that was not done before.
///
/// # Errors
/// What the machine lacks, as the reason of a skip.
pub fn ready() -> Result<(), String> {
    static READY: OnceLock<Result<(), String>> = OnceLock::new();
    let prepare = || {
        if !is_root() {
            return Err("needs root".to_owned());
        }
        script("gvisor-deps")?;
        let words = ["--mount", "--pid", "--fork", "--mount-proc", "--net", "--ipc", "true"];
        let allowed = Command::new("unshare").args(words).output();
        if !allowed.is_ok_and(|output| output.status.success()) {
            return Err("namespaces cannot be made here".to_owned());
        }
        Ok(())
    };
    READY.get_or_init(prepare).clone()
}

/// Whether [`Version::V2026`] can be had here: builds it when that was not done before.
///
/// # Errors
/// What the machine lacks, as the reason of a skip.
pub fn built() -> Result<(), String> {
    static BUILT: OnceLock<Result<(), String>> = OnceLock::new();
    BUILT.get_or_init(|| ready().and_then(|()| script("gvisor-newest"))).clone()
}

/// Runs one of `scripts/`; what it says last is why it failed.
pub(super) fn script(name: &str) -> Result<(), String> {
    let output =
        Command::new(root().join("scripts").join(name)).output().expect("it is a script of this tree");
    if output.status.success() {
        return Ok(());
    }
    let reason = String::from_utf8_lossy(&output.stderr);
    Err(reason.lines().last().map_or_else(|| format!("scripts/{name} failed"), str::to_owned))
}

/// The static release binary of this tree, built when that was not done before.
pub fn static_binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        // The script names the folder and the target itself.
        let output = Command::new(root().join("scripts/release"))
            .env_remove("CARGO_TARGET_DIR")
            .env_remove("TARGET")
            .output()
            .expect("it is a script of this tree");
        assert!(output.status.success(), "scripts/release: {}", String::from_utf8_lossy(&output.stderr));
        root().join("target/x86_64-unknown-linux-gnu/release/sysemu")
    })
}

impl Sandbox {
    /// A sandbox of this kind, with no command yet.
    pub fn new(setup: Setup) -> Self {
        Sandbox {
            setup,
            empty: false,
            has_static: true,
            words: Vec::new(),
            input: Vec::new(),
            limit: LIMIT,
            environment: Vec::new(),
            files: Vec::new(),
        }
    }

    /// Its root holds `/sysemu`, what [`Sandbox::with`] adds, `/proc`, `/sys` and `/dev`, and nothing else.
    pub fn empty_root(mut self) -> Self {
        self.empty = true;
        self
    }

    /// The static `sysemu` is not on its PATH, and need not be built.
    pub fn without_static(mut self) -> Self {
        self.has_static = false;
        self
    }

    /// A file or directory that is to be seen in the directory that the command starts in, which is also the first
    /// of its PATH. Everything on the machine is also seen where it is, but not by every user.
    pub fn with(mut self, path: impl AsRef<Path>) -> Self {
        self.files.push(root().join(path));
        self
    }

    /// The command and its arguments.
    pub fn command<S: AsRef<str>>(mut self, words: &[S]) -> Self {
        self.words = words.iter().map(|word| word.as_ref().to_owned()).collect();
        self
    }

    /// A shell script.
    pub fn shell(self, script: &str) -> Self {
        self.command(&["sh", "-c", script])
    }

    /// What it reads from standard input.
    pub fn input(mut self, text: &str) -> Self {
        self.input = text.as_bytes().to_vec();
        self
    }

    /// How long it may take, the start of the sandbox included.
    pub fn limit(mut self, seconds: u64) -> Self {
        self.limit = Duration::from_secs(seconds);
        self
    }

    /// One variable of its environment.
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.push(format!("{name}={value}"));
        self
    }

    /// Runs it to its end.
    #[track_caller]
    pub fn go(&self) -> Outcome {
        match self.attempt() {
            Ok(outcome) => outcome,
            Err(Failure::Hung(printed)) => {
                panic!("hung: {:?} in {}\n{printed}", self.words, self.setup.name())
            }
            Err(Failure::Sandbox(log)) => panic!("no sandbox {}\n{log}", self.setup.name()),
        }
    }

    /// Runs it to its end, or for as long as it may take.
    ///
    /// # Errors
    /// It took too long, or there was no sandbox.
    pub fn attempt(&self) -> Result<Outcome, Failure> {
        let scratch = Scratch::new();
        let mut child = self.start(&scratch);
        let input = self.input.clone();
        let mut pipe = child.stdin.take().expect("piped");
        // Not joined: a command that does not read leaves it waiting until the pipe breaks.
        std::thread::spawn(move || drop(pipe.write_all(&input)));
        let out = reader(child.stdout.take().expect("piped"));
        let err = reader(child.stderr.take().expect("piped"));
        let status = self.wait(&mut child);
        let text = |reader: std::thread::JoinHandle<Vec<u8>>| {
            String::from_utf8_lossy(&reader.join().expect("readers do not panic")).into_owned()
        };
        let (stdout, stderr) = (text(out), text(err));
        let log = fs::read_to_string(scratch.join("log")).unwrap_or_default();
        let Some(status) = status else {
            return Err(Failure::Hung(format!("{stdout}\n{stderr}\n{log}")));
        };
        // runsc ends with 128 when it fails itself, which a command may do as well; but then it logs nothing.
        let failed = status == 128 && log.contains("\"level\":\"error\"");
        if failed || !scratch.join("started").exists() {
            return Err(Failure::Sandbox(format!("{log}\n{stderr}")));
        }
        Ok(Outcome { stdout, stderr, status })
    }

    pub(super) fn start(&self, scratch: &Scratch) -> Child {
        let folder = scratch.join(if self.empty { "root" } else { "in" });
        let bundle = scratch.join("bundle");
        for path in [&folder, &bundle] {
            fs::create_dir(path).expect("own directory");
        }
        let config = self.config(&folder).to_string();
        fs::write(bundle.join("config.json"), config).expect("own directory");
        let network = format!("{:?}", self.setup.network).to_lowercase();

        let mut command = Command::new("setpriv");
        // Ends with this thread, and its child with it.
        command.args(["--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child"]);
        command.args(["--mount-proc", "--net", "--ipc", "sh", "-c", START, "sh"]);
        let sysemu = self.has_static.then(static_binary);
        let files: Vec<&Path> = self.files.iter().map(PathBuf::as_path).chain(sysemu).collect();
        command.args([&text_of(scratch.path()), &network, &files.len().to_string()]);
        for path in files {
            let place = folder.join(path.file_name().expect("a file has a name"));
            if path.is_dir() { fs::create_dir(&place) } else { fs::write(&place, "") }
                .expect("own directory");
            command.arg(path).arg(place);
        }
        command.arg(self.setup.version.runsc());
        command.arg("--root").arg(scratch.join("state")).arg("--log").arg(scratch.join("log"));
        let platform = format!("{:?}", self.setup.platform).to_lowercase();
        command.args(["--ignore-cgroups", "--overlay2=all:memory"]);
        command.args([format!("--network={network}"), format!("--platform={platform}")]);
        // The name ends up in the sandbox's arguments, where a leak can be found by it.
        let name = scratch.path().file_name().expect("made from a template");
        command.arg("run").arg("--bundle").arg(bundle).arg(name);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        command.spawn().unwrap_or_else(|error| panic!("setpriv: {error}"))
    }

    /// Waits for the sandbox; after the time is over ends its first process, and with it all others.
    pub(super) fn wait(&self, child: &mut Child) -> Option<i32> {
        if let Some(status) = poll(child, self.limit) {
            return Some(status);
        }
        let id = child.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
        for first in children.split_whitespace().filter_map(|pid| pid.parse().ok()) {
            let _ = kill(Pid::from_raw(first), Signal::SIGKILL);
        }
        // unshare(1) ends when its child did, which is when nothing is left in the child's namespace.
        wait(child, Duration::from_secs(10));
        None
    }

    /// The OCI configuration.
    fn config(&self, folder: &Path) -> Value {
        let (root, start) =
            if self.empty { (text_of(folder), "/".into()) } else { ("/".into(), text_of(folder)) };
        let id = if self.setup.user == User::Root { 0 } else { 65534 };
        let capabilities: Vec<String> = match self.setup.user {
            User::Root => CAPABILITIES.split_whitespace().map(|name| format!("CAP_{name}")).collect(),
            User::Nobody => Vec::new(),
        };
        let mut environment: Vec<String> =
            vec![format!("PATH={start}:{SEARCH}"), "HOME=/tmp".into(), "LC_ALL=C".into(), "TZ=UTC".into()];
        environment.extend(self.environment.iter().cloned());
        let network = match self.setup.network {
            Network::None => json!({ "type": "network" }),
            // The namespace that runsc itself is in, as the first process of its pid namespace.
            Network::Sandbox => json!({ "type": "network", "path": "/proc/1/ns/net" }),
        };
        json!({
            "ociVersion": "1.0.0",
            "hostname": "gvisor",
            "root": { "path": root, "readonly": false },
            "process": {
                "terminal": false,
                "user": { "uid": id, "gid": id },
                "cwd": start,
                "args": self.words,
                "env": environment,
                "capabilities": {
                    "bounding": capabilities, "effective": capabilities, "permitted": capabilities,
                },
            },
            "mounts": [
                { "destination": "/proc", "type": "proc", "source": "proc" },
                { "destination": "/sys", "type": "sysfs", "source": "sysfs" },
                { "destination": "/dev", "type": "tmpfs", "source": "tmpfs" },
            ],
            "linux": {
                "namespaces": [{ "type": "pid" }, { "type": "mount" }, { "type": "ipc" }, { "type": "uts" }, network],
            },
        })
    }
}

pub(super) fn reader(mut pipe: impl Read + Send + 'static) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        bytes
    })
}
