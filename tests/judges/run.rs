//! Runs a program once, bare or under sysemu.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use sysemu::policy::{Loader, mirror, show};

use crate::case::{Case, Policy};
use crate::formats::Results;
use crate::trap_all;

/// Where programs are found.
const SEARCH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/go/bin";

/// Each run has namespaces of its own: what a test leaves behind, changes or kills ends with them. The first process is
/// a shell in every mode, because the kernel spares a namespace's first process signals that any other one gets.
const ISOLATED: [&str; 14] = [
    "unshare",
    "--mount",
    "--uts",
    "--ipc",
    "--net",
    "--pid",
    "--fork",
    "--kill-child",
    "--mount-proc",
    "--",
    "sh",
    "-c",
    "ip link set lo up; \"$@\"",
    "sh",
];

/// How a program is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Without sysemu.
    Bare,
    /// Under it, with this backend and policy.
    Under(&'static str, Policy),
}

impl Mode {
    /// All modes but bare for these policies.
    pub fn wrapped(policies: &[Policy]) -> Vec<Mode> {
        let backends = ["notify", "ptrace"];
        policies.iter().flat_map(|&policy| backends.map(|backend| Mode::Under(backend, policy))).collect()
    }
}

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Mode::Bare => write!(f, "bare"),
            Mode::Under(backend, policy) => write!(f, "{backend} {}", policy.name()),
        }
    }
}

/// What all runs share.
#[derive(Clone, Debug)]
pub struct Setting {
    sysemu: PathBuf,
    folder: PathBuf,
}

fn context(path: &Path) -> impl Fn(std::io::Error) -> String + '_ {
    move |error| format!("{}: {error}", path.display())
}

impl Setting {
    /// Finds the binary, and writes the policies to a folder of this run's own.
    ///
    /// # Errors
    ///
    /// A file cannot be written, or the catalogue has mistakes.
    pub fn new() -> Result<Setting, String> {
        let sysemu = std::env::var_os("SYSEMU").map_or(env!("CARGO_BIN_EXE_sysemu").into(), PathBuf::from);
        let sysemu =
            sysemu.canonicalize().map_err(|error| format!("SYSEMU={}: {error}", sysemu.display()))?;
        let folder = std::env::temp_dir().join(format!("sysemu-judges-{}", std::process::id()));
        fs::create_dir_all(&folder).map_err(context(&folder))?;
        // Cases that change to another user still have to reach their folder.
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).map_err(context(&folder))?;
        let catalogue = Loader::new().policy("linux").load().map_err(|error| error.to_string())?;
        let mirrored = show::policy(&mirror::of(&catalogue).policy);
        let setting = Setting { sysemu, folder };
        for (policy, text) in [(Policy::TrapAll, trap_all::text()?), (Policy::Mirror, mirrored)] {
            let path = setting.policy(policy);
            fs::write(&path, text).map_err(context(&path))?;
        }
        Ok(setting)
    }

    fn policy(&self, policy: Policy) -> PathBuf {
        self.folder.join(format!("{}.toml", policy.name()))
    }

    /// Where output of a run is kept until the end.
    fn output(&self, case: &Case, mode: Mode) -> PathBuf {
        let name = format!("{}-{mode}.out", case.name).replace([':', ' ', '/'], "-");
        self.folder.join(name)
    }

    /// Removes the folder of this run, unless `SYSEMU_KEEP` is set.
    pub fn clean(&self) {
        if std::env::var_os("SYSEMU_KEEP").is_some() {
            eprintln!("judges: output of all runs is in {}", self.folder.display());
        } else if let Err(error) = fs::remove_dir_all(&self.folder) {
            eprintln!("judges: {}: {error}", self.folder.display());
        }
    }
}

/// What `needs` has and the machine has not; `root` stands for being root.
pub fn missing(case: &Case) -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("needs root, for namespaces of its own".to_owned());
    }
    let is_there = |need: &&String| SEARCH.split(':').any(|folder| Path::new(folder).join(need).exists());
    case.needs.iter().find(|need| !is_there(need)).map(|need| format!("{need} is not on this machine"))
}

/// Where compiled tests are kept.
fn prepared() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/judges")
}

/// Compiles what the case runs.
///
/// # Errors
///
/// The command's own, with what it printed.
pub fn prepare(case: &Case) -> Result<(), String> {
    if case.prepare.is_empty() {
        return Ok(());
    }
    let folder = prepared();
    fs::create_dir_all(&folder).map_err(context(&folder))?;
    let mut command = Command::new("sh");
    command.args(["-eu", "-c", &case.prepare]).current_dir(&folder);
    let output = variables(&mut command, case, &folder).output().map_err(|error| format!("sh: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    Err(format!("cannot prepare {}: {text}", case.name))
}

fn variables<'a>(command: &'a mut Command, case: &Case, home: &Path) -> &'a mut Command {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("target");
    command.env_clear().env("PATH", SEARCH).env("HOME", home).env("TMPDIR", home);
    command.env("LC_ALL", "C").env("TZ", "UTC").env("USER", "root").env("LOGNAME", "root");
    command.env("GOCACHE", target.join("go-cache")).env("PREPARED", prepared());
    command.env("JUDGES", concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/judges"));
    command.envs(case.environment.iter().map(|(name, value)| (name, value)))
}

/// Runs a case once in an empty folder, which has the same name each time, and reads what it reported.
///
/// # Errors
///
/// The program cannot be started, or files cannot be written.
pub fn once(setting: &Setting, case: &Case, mode: Mode) -> Result<Results, String> {
    let work = setting.folder.join(case.name.replace("::", "-"));
    if work.exists() {
        fs::remove_dir_all(&work).map_err(context(&work))?;
    }
    fs::create_dir_all(&work).map_err(context(&work))?;
    fs::set_permissions(&work, fs::Permissions::from_mode(0o777)).map_err(context(&work))?;
    let out = setting.output(case, mode);
    let file = File::create(&out).map_err(context(&out))?;
    let mut words: Vec<OsString> = ISOLATED.map(OsString::from).into();
    if let Mode::Under(backend, policy) = mode {
        words.push((&setting.sysemu).into());
        words.extend(["--no-auto", "--backend", backend, "-p"].map(OsString::from));
        words.extend([setting.policy(policy).into(), "--".into()]);
    }
    words.extend(["sh", "-eu", "-c", &case.script].map(OsString::from));
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).current_dir(&work).process_group(0).stdin(Stdio::null());
    // A file and no pipe: a child that outlives the program must not keep the run waiting.
    command.stdout(file.try_clone().map_err(context(&out))?).stderr(file);
    let status = finish(variables(&mut command, case, &work), case.limit)?;
    let report = case.report.as_ref().map_or(out, |name| work.join(name));
    let text =
        fs::read(&report).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let _ = fs::remove_dir_all(&work);
    Ok(case.format.read(&text, &status))
}

/// Runs a command to its end, or for as long as it may take.
fn finish(command: &mut Command, limit: u64) -> Result<String, String> {
    let mut child = command.spawn().map_err(|error| format!("{command:?}: {error}"))?;
    let group = Pid::from_raw(i32::try_from(child.id()).map_err(|error| error.to_string())?);
    let deadline = Instant::now() + Duration::from_secs(limit);
    loop {
        if let Some(status) = child.try_wait().map_err(|error| format!("wait: {error}"))? {
            return Ok(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)).to_string());
        }
        if Instant::now() > deadline {
            killpg(group, Signal::SIGKILL).map_err(|error| format!("killpg: {error}"))?;
            child.wait().map_err(|error| format!("wait: {error}"))?;
            return Ok("hung".to_owned());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
