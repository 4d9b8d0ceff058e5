//! Runs one case in its modes and compares.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::case::{Order, Same, Shows};
use crate::trap_all;

/// What programs find on their PATH, besides the folders of toolchains that live elsewhere.
const SEARCH: &str =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/go/bin:/usr/games";

/// What all cases share.
#[derive(Clone)]
pub struct Setting {
    /// The binary under test; `None` runs the bare program in its place.
    sysemu: Option<PathBuf>,
    /// The folder of this run.
    folder: PathBuf,
}

/// How a script is run.
enum Mode<'a> {
    Bare,
    Under(&'a [String]),
}

/// What a run left.
#[derive(PartialEq, Eq)]
struct Outcome {
    stdout: String,
    stderr: String,
    status: String,
}

/// What a case needs in order to run once.
struct Job<'a> {
    name: &'a str,
    script: &'a str,
    normalise: &'a str,
    order: Order,
    timeout: u64,
}

impl Setting {
    /// Finds the binary and makes the folder of this run.
    pub fn detect() -> Result<Setting, String> {
        let sysemu = match std::env::var_os("SYSEMU") {
            Some(name) if name == "none" => None,
            Some(name) => Some(PathBuf::from(name)),
            None => Some(PathBuf::from(env!("CARGO_BIN_EXE_sysemu"))),
        };
        if let Some(path) = &sysemu
            && !path.is_absolute()
        {
            return Err(format!(
                "SYSEMU={} is not absolute, and every case runs in its own folder",
                path.display()
            ));
        }
        let folder = std::env::temp_dir().join(format!("sysemu-programs-{}", std::process::id()));
        fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        // Cases that change to another user still have to reach their folder.
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755))
            .map_err(|error| format!("{}: {error}", folder.display()))?;
        let path = folder.join("trap-all.toml");
        fs::write(&path, trap_all::text()?).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Setting { sysemu, folder })
    }

    /// Removes the folder of this run.
    pub fn clean(&self) {
        if std::env::var_os("SYSEMU_KEEP").is_none()
            && let Err(error) = fs::remove_dir_all(&self.folder)
        {
            eprintln!("programs: {}: {error}", self.folder.display());
        }
    }
}

/// Runs a `[[same]]` case.
pub fn same(setting: &Setting, case: &Same) -> Result<(), String> {
    if let Some(reason) = missing(&case.needs) {
        return skip(&case.name, &reason);
    }
    let job = Job {
        name: &case.name,
        script: &case.script,
        normalise: &case.normalise,
        order: case.order,
        timeout: case.timeout,
    };
    let bare = run(setting, &job, &Mode::Bare)?;
    let trap_all = setting.folder.join("trap-all.toml");
    let empty = ["--no-auto".to_owned()];
    let trapped = ["--no-auto".to_owned(), "--policy".to_owned(), trap_all.to_string_lossy().into_owned()];
    let modes: &[(&str, Mode)] = if setting.sysemu.is_some() {
        &[("under an empty policy", Mode::Under(&empty)), ("under trap-all", Mode::Under(&trapped))]
    } else {
        &[("bare a second time", Mode::Bare)]
    };
    for (label, mode) in modes {
        let other = run(setting, &job, mode)?;
        if other != bare {
            return Err(format!(
                "{} differs {label}\n{}",
                case.name,
                differences(setting, &job, &bare, &other)
            ));
        }
    }
    Ok(())
}

/// Runs a `[[shows]]` case.
pub fn shows(setting: &Setting, case: &Shows) -> Result<(), String> {
    if let Some(reason) = missing(&case.needs) {
        return skip(&case.name, &reason);
    }
    if setting.sysemu.is_none() {
        return skip(&case.name, "SYSEMU=none leaves nothing to show");
    }
    let job = Job {
        name: &case.name,
        script: &case.script,
        normalise: &case.normalise,
        order: Order::Kept,
        timeout: case.timeout,
    };
    let args: Vec<String> = case.args.iter().map(|arg| arg.replace("FIXTURES", fixtures())).collect();
    let shown = run(setting, &job, &Mode::Under(&args))?;
    let wanted =
        Outcome { stdout: case.stdout.clone(), stderr: String::new(), status: "exit status: 0".into() };
    if shown != wanted {
        return Err(format!(
            "{} under {:?} is not what the table says\n{}",
            case.name,
            case.args,
            differences(setting, &job, &wanted, &shown)
        ));
    }
    let bare = run(setting, &job, &Mode::Bare)?;
    if bare == wanted {
        return Err(format!("{} shows the same without sysemu, so it proves nothing here", case.name));
    }
    Ok(())
}

/// The folder that `FIXTURES` stands for in arguments and scripts of the table.
fn fixtures() -> &'static str {
    concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures")
}

/// The first command of `needs` that the machine lacks; `root` stands for being root.
fn missing(needs: &[String]) -> Option<String> {
    needs.iter().find_map(|need| {
        if need == "root" {
            return (!nix::unistd::geteuid().is_root()).then(|| "needs root".to_owned());
        }
        let found = if need.starts_with('/') {
            Path::new(need).exists()
        } else {
            SEARCH.split(':').any(|folder| Path::new(folder).join(need).exists())
        };
        (!found).then(|| format!("{need} is not on this machine"))
    })
}

/// Says on the terminal, past the harness, that a case did not run; the count of these lines is pinned in CI.
fn skip(name: &str, reason: &str) -> Result<(), String> {
    writeln!(std::io::stderr(), "SKIP {name}: {reason}").map_err(|error| format!("stderr: {error}"))
}

/// One run of a case, in a folder of the same name each time.
fn run(setting: &Setting, job: &Job, mode: &Mode) -> Result<Outcome, String> {
    let own = setting.folder.join(job.name);
    let work = own.join("w");
    let context = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
    if work.exists() {
        fs::remove_dir_all(&work).map_err(|error| context(&work, error))?;
    }
    fs::create_dir_all(work.join("home")).map_err(|error| context(&work, error))?;
    let script = own.join("script");
    fs::write(&script, job.script.replace("FIXTURES", fixtures()))
        .map_err(|error| context(&script, error))?;
    let (out, err) = (own.join("stdout"), own.join("stderr"));
    let shell = ["bash", "-eu", "-o", "pipefail"].map(OsString::from);
    let mut words: Vec<OsString> = Vec::new();
    match (mode, &setting.sysemu) {
        (Mode::Under(args), Some(sysemu)) => {
            words.push(sysemu.into());
            // The same cases for the other backend: `SYSEMU_BACKEND=ptrace cargo test --test programs`.
            if let Some(backend) = std::env::var_os("SYSEMU_BACKEND") {
                words.extend(["--backend".into(), backend]);
            }
            words.extend(args.iter().map(OsString::from));
            words.push("--".into());
        }
        (Mode::Under(_), None) | (Mode::Bare, _) => {}
    }
    words.extend(shell);
    words.push(script.into());
    // Files and not pipes: a daemon that outlives its script must not keep the run waiting.
    let mut child = Command::new(&words[0])
        .args(&words[1..])
        .current_dir(&work)
        .env_clear()
        .env("PATH", SEARCH)
        .env("HOME", work.join("home"))
        .env("LC_ALL", "C")
        .env("TZ", "UTC")
        .stdin(Stdio::null())
        .stdout(File::create(&out).map_err(|error| context(&out, error))?)
        .stderr(File::create(&err).map_err(|error| context(&err, error))?)
        .process_group(0)
        .spawn()
        .map_err(|error| format!("{}: {error}", words[0].to_string_lossy()))?;
    let group = Pid::from_raw(i32::try_from(child.id()).map_err(|error| error.to_string())?);
    let deadline = Instant::now() + Duration::from_secs(job.timeout);
    let status = loop {
        if let Some(status) = child.try_wait().map_err(|error| format!("wait: {error}"))? {
            break match (status.code(), status.signal()) {
                (Some(code), _) => format!("exit status: {code}"),
                (None, signal) => format!("signal: {signal:?}"),
            };
        }
        if Instant::now() > deadline {
            killpg(group, Signal::SIGKILL).map_err(|error| format!("killpg: {error}"))?;
            child.wait().map_err(|error| format!("wait: {error}"))?;
            break format!("hung, ended after {} s", job.timeout);
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    Ok(Outcome { stdout: normalised(&out, job)?, stderr: normalised(&err, job)?, status })
}

/// The text of a captured stream after the case's own `sed` script.
fn normalised(path: &Path, job: &Job) -> Result<String, String> {
    let text = Command::new("sed")
        .args(["-E", "-e", job.normalise])
        .arg(path)
        .env("LC_ALL", "C")
        .output()
        .map_err(|error| format!("sed: {error}"))?;
    if !text.status.success() {
        return Err(format!("{}: normalise: {}", job.name, String::from_utf8_lossy(&text.stderr)));
    }
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    if job.order == Order::Kept {
        return Ok(text);
    }
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    Ok(lines.join("\n"))
}

/// What a person needs to see: `diff -u` of both streams, and the two statuses.
fn differences(setting: &Setting, job: &Job, want: &Outcome, got: &Outcome) -> String {
    let mut report = String::new();
    for (label, want, got) in [("stdout", &want.stdout, &got.stdout), ("stderr", &want.stderr, &got.stderr)] {
        if want == got {
            continue;
        }
        let (left, right) = (
            setting.folder.join(job.name).join(format!("{label}.wanted")),
            setting.folder.join(job.name).join(format!("{label}.got")),
        );
        let diff = fs::write(&left, want)
            .and_then(|()| fs::write(&right, got))
            .and_then(|()| Command::new("diff").arg("-u").args([&left, &right]).output());
        match diff {
            Ok(diff) => {
                let text = String::from_utf8_lossy(&diff.stdout);
                report.extend(text.lines().take(60).map(|line| format!("  {line}\n")));
            }
            Err(error) => report.push_str(&format!("  {label} differs (diff: {error})\n")),
        }
    }
    if want.status != got.status {
        report.push_str(&format!("  status: wanted {}, got {}\n", want.status, got.status));
    }
    report
}
