//! Two logs side by side: which calls belong together, in which fields they differ, and what explains it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use similar::{Algorithm, DiffOp, capture_diff_slices};
use sysemu::Policy;
use sysemu::emulator::tree::{Entry, Tree};

use super::record::Record;
use super::rules::{Case, RULES, explains_alone};

/// What explains a difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing: a mistake.
    Undeclared,
    /// The rule of this name.
    Declared(&'static str),
    /// A row of the policy, written there.
    Policy(String),
    /// An earlier difference: any for what the program prints and how it ends; one that is not declared, or that the
    /// policy makes, for another way that it takes.
    Follows,
}

/// One difference.
#[derive(Clone, Debug)]
pub struct Difference {
    /// The call, or what else was compared.
    pub call: String,
    /// The task that made it.
    pub task: String,
    /// What differs in it.
    pub field: String,
    /// Natively; `None` when it was not made.
    pub native: Option<String>,
    /// Under sysemu.
    pub emulated: Option<String>,
    /// What explains it.
    pub verdict: Verdict,
    /// How often it was seen.
    pub times: usize,
}

/// What is known of both runs.
pub struct Knowledge {
    /// What answers under sysemu.
    pub tree: Tree,
    /// Whether uname(2) is answered.
    pub has_uname: bool,
    /// Whether rows have the real values, so that they explain nothing.
    pub is_mirror: bool,
    /// Whether virtual files are memfds.
    pub has_memfds: bool,
}

impl Knowledge {
    /// About a policy.
    pub fn new(policy: &Policy, is_mirror: bool, has_memfds: bool) -> Self {
        let tree = Tree::build(policy, Path::new("/sys"));
        Knowledge { tree, has_uname: policy.uname.is_given(), is_mirror, has_memfds }
    }

    /// The row that answers for a path, by its text.
    fn entry(&self, object: &str) -> Entry {
        let mut names: Vec<&str> = object.split('/').filter(|name| !name.is_empty()).collect();
        if names.first() == Some(&"proc") && names.get(1).is_some_and(|name| name.starts_with(['{', 's'])) {
            let is_process = names[1].starts_with('{') || ["self", "thread-self"].contains(&names[1]);
            names[1] = if is_process { "1" } else { names[1] };
        }
        self.tree.entry(&self.tree.at(&format!("/{}", names.join("/"))))
    }
}

/// What came of a comparison.
#[derive(Debug, Default)]
pub struct Comparison {
    /// Calls that both runs made.
    pub calls: usize,
    /// Tasks.
    pub tasks: usize,
    /// Fields that differ between two native runs, and were set aside.
    pub unsteady: usize,
    /// The differences, each distinct one once.
    pub differences: Vec<Difference>,
}

/// Calls of two runs: made by both, or by one of them.
enum Pair {
    Both(usize, usize),
    Left(usize),
    Right(usize),
}

fn align(left: &[Record], right: &[Record]) -> Vec<Pair> {
    // Numbers for calls, because aligning compares them many times.
    let mut numbers: HashMap<(&str, &[String]), usize> = HashMap::new();
    let mut keys = Vec::with_capacity(left.len() + right.len());
    for record in left.iter().chain(right) {
        let next = numbers.len();
        keys.push(*numbers.entry((&record.call, &record.args)).or_insert(next));
    }
    let (left_keys, right_keys) = keys.split_at(left.len());
    let mut pairs = Vec::new();
    for op in capture_diff_slices(Algorithm::Myers, left_keys, right_keys) {
        match op {
            DiffOp::Equal { old_index, new_index, len } => {
                pairs.extend((0..len).map(|step| Pair::Both(old_index + step, new_index + step)));
            }
            op => {
                pairs.extend(op.old_range().map(Pair::Left));
                pairs.extend(op.new_range().map(Pair::Right));
            }
        }
    }
    pairs
}

/// Everything of a record that can differ. Content is compared line by line where both have as many lines.
fn fields<'r>(left: &'r Record, right: &'r Record) -> Vec<(String, &'r str, &'r str)> {
    let mut fields = vec![("result".to_owned(), left.result.as_str(), right.result.as_str())];
    for (name, before) in &left.out {
        let Some(after) = right.out.get(name) else {
            continue;
        };
        let lines = |text: &str| text.matches('\n').count();
        if name == "data" && lines(before) == lines(after) {
            let pairs = before.split('\n').zip(after.split('\n')).enumerate();
            fields.extend(pairs.map(|(line, (before, after))| (format!("data {}", line + 1), before, after)));
        } else {
            fields.push((name.clone(), before, after));
        }
    }
    fields.retain(|(_, before, after)| before != after);
    fields
}

/// The task of what is compared at the end: output and exit status. It sorts behind all others.
pub const END: &str = "end";

type ByTask = BTreeMap<String, Vec<Record>>;

/// Splits a log by tasks, each listing in one record whatever its pieces were.
fn by_task(records: Vec<Record>) -> ByTask {
    let mut tasks = ByTask::new();
    for record in records {
        let task = tasks.entry(record.task.clone()).or_default();
        match task.last_mut() {
            Some(last) if record.call == "getdents64" && last.is_same_call(&record) => join(last, record),
            _ => task.push(record),
        }
    }
    tasks
}

/// Adds a piece of a listing. How many bytes a name takes is the same everywhere, but not which names come first.
fn join(last: &mut Record, next: Record) {
    let names = |record: &Record| record.out.get("names").cloned().unwrap_or_default();
    let all = format!("{}\n{}", names(last), names(&next));
    let mut all: Vec<&str> = all.split('\n').filter(|name| !name.is_empty()).collect();
    all.sort_unstable();
    last.out.insert("names".into(), all.join("\n"));
    match (last.result.parse::<i64>(), next.result.parse::<i64>()) {
        (Ok(before), Ok(more)) => last.result = (before + more).to_string(),
        _ => last.result = next.result,
    }
}

/// What differs between two native runs of a task: fields by position, and names of calls that only one made.
#[derive(Default)]
struct Unsteady {
    fields: BTreeSet<(usize, String)>,
    calls: BTreeSet<String>,
}

impl Unsteady {
    fn of(first: &[Record], second: &[Record]) -> Self {
        let mut unsteady = Unsteady::default();
        for pair in align(first, second) {
            match pair {
                Pair::Both(a, b) => {
                    let fields = fields(&first[a], &second[b]).into_iter();
                    unsteady.fields.extend(fields.map(|(name, _, _)| (a, name)));
                }
                Pair::Left(at) => {
                    unsteady.calls.insert(first[at].call.clone());
                }
                Pair::Right(at) => {
                    unsteady.calls.insert(second[at].call.clone());
                }
            }
        }
        unsteady
    }

    /// Content that has as many lines now and not then is unsteady in all of them.
    fn has(&self, at: usize, field: &str) -> bool {
        let has = |name: &str| self.fields.contains(&(at, name.to_owned()));
        has(field) || (field.starts_with("data") && has("data")) || (field == "data" && self.has_data(at))
    }

    fn has_data(&self, at: usize) -> bool {
        let range = (at, "data".to_owned())..(at, "datb".to_owned());
        self.fields.range(range).next().is_some()
    }
}

/// Compares a run under sysemu with a native one. What differs between that and a second native one is set aside.
pub fn compare(
    native: Vec<Record>,
    second: Vec<Record>,
    emulated: Vec<Record>,
    known: &Knowledge,
) -> Comparison {
    let (native, second, emulated) = (by_task(native), by_task(second), by_task(emulated));
    let tasks: BTreeSet<&String> = native.keys().chain(emulated.keys()).collect();
    let mut work = Work { known, comparison: Comparison::default(), strays: false, index: HashMap::new() };
    let none = Vec::new();
    for task in tasks {
        let of = |run: &'_ ByTask| -> Vec<Record> { run.get(task).unwrap_or(&none).clone() };
        let (before, after) = (of(&native), of(&emulated));
        let unsteady = Unsteady::of(&before, &of(&second));
        work.task(&before, &after, &unsteady);
    }
    work.comparison.tasks = native.keys().filter(|task| *task != END).count();
    work.comparison
}

struct Work<'k> {
    known: &'k Knowledge,
    comparison: Comparison,
    /// Whether something was seen that may lead a program another way.
    strays: bool,
    index: HashMap<(String, String, Option<String>, Option<String>), usize>,
}

impl Work<'_> {
    fn task(&mut self, native: &[Record], emulated: &[Record], unsteady: &Unsteady) {
        let mut opened: HashMap<String, String> = HashMap::new();
        for pair in align(native, emulated) {
            match pair {
                Pair::Both(a, b) => {
                    self.comparison.calls += 1;
                    self.both(&native[a], &emulated[b], (a, unsteady), &opened);
                    if native[a].call.starts_with("open") {
                        opened.insert(emulated[b].result.clone(), native[a].args.join(" "));
                    }
                }
                Pair::Left(at) if unsteady.calls.contains(&native[at].call) => self.comparison.unsteady += 1,
                Pair::Right(at) if unsteady.calls.contains(&emulated[at].call) => {
                    self.comparison.unsteady += 1;
                }
                Pair::Left(at) => self.alone(&native[at], Some(native[at].result.clone()), None),
                Pair::Right(at) => self.alone(&emulated[at], None, Some(emulated[at].result.clone())),
            }
        }
    }

    fn both(
        &mut self,
        native: &Record,
        emulated: &Record,
        (at, unsteady): (usize, &Unsteady),
        opened: &HashMap<String, String>,
    ) {
        let opened = native.fd.and_then(|fd| opened.get(&fd.to_string())).map_or("", String::as_str);
        for (field, before, after) in fields(native, emulated) {
            if unsteady.has(at, &field) {
                self.comparison.unsteady += 1;
                continue;
            }
            let verdict = self.verdict(native, emulated, (&field, before, after), opened);
            self.add(native, &field, Some(before.to_owned()), Some(after.to_owned()), verdict);
        }
    }

    fn verdict(
        &self,
        native: &Record,
        emulated: &Record,
        (field, before, after): (&str, &str, &str),
        opened: &str,
    ) -> Verdict {
        let entry = self.known.entry(&native.object);
        let row = match &entry {
            Entry::File(row) | Entry::Link(row) | Entry::Absent(row) | Entry::Dir(Some(row)) => Some(row),
            Entry::Nothing | Entry::Dir(None) => None,
        };
        let shows_policy =
            field == "result" || field.starts_with("data") || ["mode", "text"].contains(&field);
        let is_uname = native.call == "uname" && self.known.has_uname;
        let is_merged = field == "names" && !matches!(entry, Entry::Nothing);
        match row {
            _ if self.known.is_mirror => {}
            Some(row) if shows_policy => return Verdict::Policy(row.origin.to_string()),
            _ if is_uname => return Verdict::Policy("[uname]".into()),
            _ if is_merged => return Verdict::Policy(format!("rows below {}", native.object)),
            _ => {}
        }
        let (is_virtual, has_memfds) = (row.is_some(), self.known.has_memfds);
        let case = Case { field, native, emulated, before, after, is_virtual, has_memfds, opened };
        if let Some(rule) = RULES.iter().find(|rule| (rule.explains)(&case)) {
            return Verdict::Declared(rule.name);
        }
        // What a program prints and how it ends follows from what it saw.
        let is_result = native.task == END && !self.comparison.differences.is_empty();
        if is_result { Verdict::Follows } else { Verdict::Undeclared }
    }

    fn alone(&mut self, record: &Record, native: Option<String>, emulated: Option<String>) {
        let is_virtual = matches!(self.known.entry(&record.object), Entry::File(_) | Entry::Link(_));
        let verdict = match explains_alone(record, is_virtual) {
            Some(rule) => Verdict::Declared(rule),
            None if self.strays => Verdict::Follows,
            None => Verdict::Undeclared,
        };
        self.add(record, "call", native, emulated, verdict);
    }

    fn add(
        &mut self,
        record: &Record,
        field: &str,
        native: Option<String>,
        emulated: Option<String>,
        verdict: Verdict,
    ) {
        self.strays |= matches!(verdict, Verdict::Undeclared | Verdict::Policy(_));
        let call = record.shown();
        let key = (call.clone(), field.to_owned(), native.clone(), emulated.clone());
        if let Some(at) = self.index.get(&key) {
            self.comparison.differences[*at].times += 1;
            return;
        }
        self.index.insert(key, self.comparison.differences.len());
        let (task, field) = (record.task.clone(), field.to_owned());
        self.comparison.differences.push(Difference {
            call,
            task,
            field,
            native,
            emulated,
            verdict,
            times: 1,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sysemu::policy::{Content, Origin, Row, What};

    fn record(call: &str, path: &str, result: &str, out: &[(&str, &str)]) -> Record {
        let out = out.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let about = Record::about("0", call, result.into());
        Record { args: vec![format!("\"{path}\"")], object: path.into(), out, ..about }
    }

    fn known(is_mirror: bool) -> Knowledge {
        let what = What::file(Content::Fixed("1\n".into()));
        let rows = vec![Row::new("/proc/sys/vm/one", what, 0o644, Origin::synthetic("here"))];
        Knowledge::new(&Policy { rows, ..Policy::default() }, is_mirror, false)
    }

    fn verdicts(
        native: &[Record],
        second: &[Record],
        emulated: &[Record],
        is_mirror: bool,
    ) -> Vec<(String, Verdict)> {
        let of = |records: &[Record]| records.to_vec();
        let found = compare(of(native), of(second), of(emulated), &known(is_mirror));
        found
            .differences
            .into_iter()
            .map(|one| (format!("{} {}", one.call, one.field), one.verdict))
            .collect()
    }

    #[test]
    fn differences_are_told_apart_by_what_explains_them() {
        let native = [
            record("stat", "/proc/sys/vm/one", "0", &[("ino", "7"), ("size", "0"), ("mode", "100644")]),
            record("read", "/proc/sys/vm/one", "2", &[("data", "5\n")]),
            record("stat", "/etc/passwd", "0", &[("ino", "9")]),
        ];
        let mut emulated = native.clone();
        emulated[0].out.insert("ino".into(), "8".into());
        emulated[1].out.insert("data".into(), "1\n".into());
        emulated[2].result = "ENOENT".into();
        let stat = |path: &str, field: &str| format!("stat(\"{path}\") {field}");
        let read = "read(\"/proc/sys/vm/one\") data 1".to_owned();
        let mut expected = vec![
            (stat("/proc/sys/vm/one", "ino"), Verdict::Declared("identity")),
            (read, Verdict::Policy("here".into())),
            (stat("/etc/passwd", "result"), Verdict::Undeclared),
        ];
        assert_eq!(verdicts(&native, &native, &emulated, false), expected);
        expected[1].1 = Verdict::Undeclared;
        assert_eq!(verdicts(&native, &native, &emulated, true), expected);
    }

    #[test]
    fn what_varies_by_itself_is_set_aside() {
        let native = [record("read", "/proc/uptime", "2", &[("data", "1\nsame")])];
        let second = [record("read", "/proc/uptime", "2", &[("data", "2\nsame")])];
        let emulated = [record("read", "/proc/uptime", "2", &[("data", "3\nother")])];
        let found = verdicts(&native, &second, &emulated, true);
        assert_eq!(found, [("read(\"/proc/uptime\") data 2".to_owned(), Verdict::Undeclared)]);
    }

    #[test]
    fn calls_of_one_run_only_follow_from_what_was_undeclared() {
        let both = [record("open", "/a", "3", &[]), record("open", "/c", "3", &[])];
        let mut more = both.to_vec();
        more.insert(1, record("open", "/b", "3", &[]));
        let found = verdicts(&both, &both, &more, true);
        assert_eq!(found, [("open(\"/b\") call".to_owned(), Verdict::Undeclared)]);
        more[0].result = "ENOENT".into();
        assert_eq!(verdicts(&both, &both, &more, true)[1].1, Verdict::Follows);
    }

    #[test]
    fn listings_are_compared_as_wholes() {
        let piece = |names: &str| record("getdents64", "/proc", "24", &[("names", names)]);
        let native = [piece("a file\nb file"), piece("c file"), record("getdents64", "/proc", "0", &[])];
        let emulated = [piece("a file\nc file"), piece("b file"), record("getdents64", "/proc", "0", &[])];
        assert_eq!(verdicts(&native, &native, &emulated, true), []);
    }
}
