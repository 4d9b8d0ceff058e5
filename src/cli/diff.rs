//! `sysemu diff`: the same program natively and emulated, and every difference in its path calls.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use clap::ValueEnum;
use serde_json::{Value, json};
use sysemu::launcher::OWN_FAILURE;
use sysemu::policy::mirror::{self, Mirror};
use sysemu::policy::{Loader, Policy, show};

use super::args::{CarrierArg, DiffArgs, Format};
use super::{fail, run};
use compare::{Comparison, Difference, END, Knowledge, Verdict};
use record::Record;

mod calls;
mod capture;
mod compare;
mod record;
mod rules;
pub mod tracer;

/// Exit status when a difference is not declared.
const DIFFERENT: u8 = 1;

/// Runs the program three times and prints the differences.
pub fn main(args: &DiffArgs) -> ExitCode {
    if !sysemu::emulator::probe::has_notify() {
        return fail(
            "diff sees calls with ptrace(2), and without user notification sysemu needs that itself: nothing was run",
        );
    }
    let policy = match run::load(&args.policy, None) {
        Ok(policy) => policy,
        Err(error) => return fail(format!("the policy has mistakes:\n{error}")),
    };
    match compared(args, policy) {
        Ok(report) => report.print(args.format),
        Err(message) => fail(message),
    }
}

/// A comparison and what it was made with.
struct Report {
    comparison: Comparison,
    mirror: Option<Mirror>,
    /// How the program ended natively, 128+n for a signal.
    status: i32,
}

fn compared(args: &DiffArgs, policy: Policy) -> Result<Report, String> {
    let scratch = Scratch::new().map_err(|error| format!("cannot make a temporary folder: {error}"))?;
    let is_mirror = args.mirror || policy.is_empty();
    let native = scratch.run(&args.command, None)?;
    // In between, so that what changes meanwhile also differs between the native runs.
    let mirror = is_mirror.then(|| mirrored(&policy)).transpose()?;
    let policy = mirror.as_ref().map_or(&policy, |mirror| &mirror.policy);
    if policy.is_empty() {
        return Err("none of the policy's files exists here: there is nothing to compare".into());
    }
    let emulated = scratch.run(&args.command, Some((policy, args.carrier)))?;
    let second = scratch.run(&args.command, None)?;
    let known = Knowledge::new(policy, is_mirror, has_memfds(args.carrier));
    let status = native.last().and_then(|record| record.result.parse().ok()).unwrap_or(OWN_FAILURE);
    Ok(Report { comparison: compare::compare(native, second, emulated, &known), mirror, status })
}

/// The policy, or the catalogue if it is empty, with the values of the real files.
fn mirrored(policy: &Policy) -> Result<Mirror, String> {
    if !policy.is_empty() {
        return Ok(mirror::of(policy));
    }
    let catalogue = Loader::new().policy("linux").load().map_err(|error| error.to_string())?;
    Ok(mirror::of(&catalogue))
}

fn has_memfds(carrier: CarrierArg) -> bool {
    use sysemu::emulator::probe::{State, all};
    let auto = || !all().iter().any(|finding| finding.topic == "carrier" && finding.state == State::Good);
    carrier == CarrierArg::Memfd || (carrier == CarrierArg::Auto && auto())
}

/// A folder for logs and output, removed again.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Scratch {
    fn new() -> io::Result<Self> {
        Ok(Scratch(nix::unistd::mkdtemp(&std::env::temp_dir().join("sysemu-diff.XXXXXX"))?))
    }

    /// Runs the program once and gives its calls, its output and how it ended. All runs use the same names.
    fn run(
        &self,
        words: &[std::ffi::OsString],
        under: Option<(&Policy, CarrierArg)>,
    ) -> Result<Vec<Record>, String> {
        let [log, out, err, policy] =
            ["calls", "stdout", "stderr", "policy.toml"].map(|name| self.0.join(name));
        let failed = |what: &Path, error: io::Error| format!("{}: {error}", what.display());
        let own =
            std::env::current_exe().map_err(|error| format!("cannot find the own executable: {error}"))?;
        let mut command = Command::new(&own);
        if let Some((rows, carrier)) = under {
            fs::write(&policy, show::policy(rows)).map_err(|error| failed(&policy, error))?;
            let carrier = carrier.to_possible_value().map(|value| value.get_name().to_owned());
            command.args([
                "run",
                "--no-auto",
                "--backend",
                "notify",
                "--carrier",
                &carrier.unwrap_or_default(),
                "-p",
            ]);
            command.arg(&policy).arg("--").arg(&own);
        }
        command.args(["calls", "--output"]).arg(&log).arg("--").args(words);
        let file = |path: &PathBuf| File::create(path).map_err(|error| failed(path, error));
        command.stdin(input()).stdout(file(&out)?).stderr(file(&err)?);
        let _ = fs::remove_file(&log);
        let status = command.status().map_err(|error| failed(&own, error))?;
        let status = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        let text = |path: &Path| fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let (out, err) = (text(&out).unwrap_or_default(), text(&err).unwrap_or_default());
        let mut records = match record::load(&log) {
            Ok(records) if status != OWN_FAILURE => records,
            _ => return Err(format!("the program could not be run: {}", err.trim_end())),
        };
        for (name, text) in [("standard output", out), ("standard error", err)] {
            let mut record = Record::about(END, name, text.len().to_string());
            record.out.insert("data".into(), text);
            records.push(record);
        }
        records.push(Record::about(END, "exit status", status.to_string()));
        Ok(records)
    }
}

/// What each run reads: the file that standard input is, from its start, or nothing.
fn input() -> Stdio {
    let stdin = io::stdin();
    let is_file =
        nix::sys::stat::fstat(stdin.as_fd()).is_ok_and(|stat| stat.st_mode & libc::S_IFMT == libc::S_IFREG);
    match File::open("/proc/self/fd/0") {
        Ok(file) if is_file => file.into(),
        _ => Stdio::null(),
    }
}

impl Report {
    fn print(&self, format: Format) -> ExitCode {
        match format {
            Format::Text => self.print_text(),
            Format::Json => out!("{:#}", self.to_json()),
        }
        let is_different = self.count("UNDECLARED") > 0 || !self.refused().is_empty();
        if is_different { ExitCode::from(DIFFERENT) } else { ExitCode::SUCCESS }
    }

    /// Rows of the catalogue that do not take the kernel's own text.
    fn refused(&self) -> Vec<String> {
        let refused = self.mirror.iter().flat_map(|mirror| &mirror.refused);
        refused.map(|(row, text)| format!("{} ({}): {:?}", row.path, row.origin, text)).collect()
    }

    fn count(&self, word: &str) -> usize {
        let of_kind = self.comparison.differences.iter().filter(|one| mark(&one.verdict).0 == word);
        of_kind.map(|one| one.times).sum()
    }

    fn print_text(&self) {
        for one in self.refused() {
            out!("UNDECLARED  the type does not take the real text: {one}");
        }
        let is_one_line =
            |a: &Difference, b: &Difference| a.call == b.call && a.verdict == b.verdict && a.times == b.times;
        for group in self.comparison.differences.chunk_by(is_one_line) {
            print_line(group);
        }
        for rule in rules::RULES.iter().filter(|rule| self.uses(rule.name)) {
            out!("rule {}: {}", rule.name, rule.reason);
        }
        let Comparison { calls, tasks, unsteady, differences } = &self.comparison;
        let rows = self.mirror.as_ref().map_or(String::new(), |mirror| {
            let rows = mirror.policy.rows.len();
            format!("{rows} rows with their real values ({} more cannot be read), ", mirror.unreadable.len())
        });
        out!(
            "{rows}{calls} calls of {tasks} tasks compared, {} differences: {} undeclared, {} declared, {} by the \
             policy, {} that follow; {unsteady} fields differ between native runs too",
            differences.iter().map(|one| one.times).sum::<usize>(),
            self.count("UNDECLARED"),
            self.count("declared"),
            self.count("policy"),
            self.count("follows"),
        );
    }

    fn uses(&self, rule: &str) -> bool {
        self.comparison
            .differences
            .iter()
            .any(|one| matches!(one.verdict, Verdict::Declared(name) if name == rule))
    }

    fn to_json(&self) -> Value {
        let Comparison { calls, tasks, unsteady, differences } = &self.comparison;
        let rules = rules::RULES.iter().filter(|rule| self.uses(rule.name));
        json!({
            "status": self.status,
            "rows": self.mirror.as_ref().map(|mirror| mirror.policy.rows.len()),
            "unreadable": self.mirror.as_ref().map(|mirror| mirror.unreadable.len()),
            "refused": self.refused(),
            "calls": calls,
            "tasks": tasks,
            "unsteady": unsteady,
            "undeclared": self.count("UNDECLARED"),
            "declared": self.count("declared"),
            "policy": self.count("policy"),
            "follows": self.count("follows"),
            "rules": rules.map(|rule| json!({ "name": rule.name, "reason": rule.reason })).collect::<Vec<_>>(),
            "differences": differences.iter().map(item).collect::<Vec<_>>(),
        })
    }
}

/// Differences in fields of one call that have one explanation.
fn print_line(group: &[Difference]) {
    let (word, why) = mark(&group[0].verdict);
    let why = if why.is_empty() { String::new() } else { format!("  [{why}]") };
    let times = if group[0].times > 1 { format!("  ({} times)", group[0].times) } else { String::new() };
    let side = |value: &Option<String>| value.as_ref().map_or("not made".into(), |text| abridged(text));
    let field = |one: &Difference| format!("{} {} -> {}", one.field, side(&one.native), side(&one.emulated));
    let fields: Vec<String> = group.iter().map(field).collect();
    out!("{word:<10}  {}: {}{why}{times}", group[0].call, fields.join(", "));
}

fn item(one: &Difference) -> Value {
    let Difference { call, task, field, native, emulated, verdict, times } = one;
    let (word, why) = mark(verdict);
    json!({
        "verdict": word.to_lowercase(), "why": why, "task": task, "call": call, "field": field,
        "native": native, "emulated": emulated, "times": times,
    })
}

/// The word for a verdict, and what it names.
fn mark(verdict: &Verdict) -> (&'static str, &str) {
    match verdict {
        Verdict::Undeclared => ("UNDECLARED", ""),
        Verdict::Declared(rule) => ("declared", rule),
        Verdict::Policy(origin) => ("policy", origin),
        Verdict::Follows => ("follows", ""),
    }
}

/// A value on one line.
fn abridged(text: &str) -> String {
    let shown = text.escape_debug().to_string();
    let is_plain = !shown.is_empty() && !shown.contains(' ');
    let cut: String = shown.chars().take(200).collect();
    let more = if cut.len() < shown.len() { "..." } else { "" };
    if is_plain { format!("{cut}{more}") } else { format!("\"{cut}\"{more}") }
}
