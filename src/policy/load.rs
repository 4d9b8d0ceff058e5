//! Loading: built-ins, files and includes, the command line's shorthands, and merging them into one
//! [`Policy`].

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::check;
use super::diagnostic::{PolicyError, Report, Source, hint};
use super::parse::{Document, parse};
use super::rows::{check_path, check_uname, describe, sysctl_path};
use super::{
    Content, Origin, Policy, Row, Sourced, StatfsMatch, StatfsRow, What, When, builtin, expand, keys,
};
use crate::emulator::codec::Codec;
use crate::emulator::provider::Providers;

/// What the command line is called in messages.
const COMMAND_LINE: &str = "command line";

/// Collects what a policy is made from.
#[derive(Default)]
pub struct Loader<'p> {
    texts: Vec<(String, String)>,
    policies: Vec<String>,
    sets: Vec<(Shorthand, String)>,
    providers: Option<&'p Providers>,
}

#[derive(Clone, Copy)]
enum Shorthand {
    Set,
    File,
    Hide,
    UnameRelease,
    Statfs,
}

impl<'p> Loader<'p> {
    /// An empty loader, which gives the empty policy.
    pub fn new() -> Self {
        Loader::default()
    }

    /// Checks provider names against these.
    pub fn providers(mut self, providers: &'p Providers) -> Self {
        self.providers = Some(providers);
        self
    }

    /// The text of a policy file, under a name for messages; it comes before all others.
    pub fn text(mut self, name: impl Into<String>, text: impl Into<String>) -> Self {
        self.texts.push((name.into(), text.into()));
        self
    }

    /// A built-in policy by name, or a file (anything with a `/`, or ending in `.toml`).
    pub fn policy(mut self, name: impl Into<String>) -> Self {
        self.policies.push(name.into());
        self
    }

    /// `KEY=VALUE`: a sysctl.
    pub fn set(mut self, text: impl Into<String>) -> Self {
        self.sets.push((Shorthand::Set, text.into()));
        self
    }

    /// `PATH=CONTENT`: a file; a final newline is added when there is none.
    pub fn file(mut self, text: impl Into<String>) -> Self {
        self.sets.push((Shorthand::File, text.into()));
        self
    }

    /// `PATH`: hidden.
    pub fn hide(mut self, path: impl Into<String>) -> Self {
        self.sets.push((Shorthand::Hide, path.into()));
        self
    }

    /// The release that uname(2) reports.
    pub fn uname_release(mut self, release: impl Into<String>) -> Self {
        self.sets.push((Shorthand::UnameRelease, release.into()));
        self
    }

    /// `FROM=TO`: a path or a file system type, and the type reported instead.
    pub fn statfs(mut self, text: impl Into<String>) -> Self {
        self.sets.push((Shorthand::Statfs, text.into()));
        self
    }

    /// The built-in policy that goes with a program, by the last component of its name.
    pub fn auto(program: &str) -> Option<&'static str> {
        let name = Path::new(program).file_name()?.to_str()?;
        builtin::NAMED
            .iter()
            .find(|(known, _)| *known == name && !builtin::is_fragment(known))
            .map(|(known, _)| *known)
    }

    /// Loads and merges everything.
    ///
    /// # Errors
    /// Everything that is wrong, at once.
    pub fn load(self) -> Result<Policy, PolicyError> {
        let mut report = Report::default();
        let mut merge = Merge::on(Policy::default());
        merge.policy.uname.files = true;
        for (name, text) in &self.texts {
            let document = parse(&Source::new(name, text.clone()), &mut report);
            check::document(&document, &mut report);
            merge.add(document);
        }
        for name in &self.policies {
            let origin = Origin::synthetic(COMMAND_LINE);
            merge.loaded.clear();
            merge.load(name, None, &origin, &mut report);
            merge.policy.names.push(name.clone());
        }
        for (kind, text) in &self.sets {
            merge.shorthand(*kind, text, &mut report);
        }
        let policy = expand::implied(merge, &mut report);
        check::merged(&policy, self.providers, &mut report);
        report.finish(policy)
    }
}

/// Documents merged so far.
pub(super) struct Merge {
    pub policy: Policy,
    /// Where the row for a path pattern is.
    slots: HashMap<(String, When), usize>,
    /// Files being included, outermost first.
    stack: Vec<String>,
    /// Files that were loaded for the policy named last: what two of its parts include counts once, in its
    /// first place.
    loaded: HashSet<String>,
}

impl Merge {
    /// Goes on merging into a policy whose rows were taken out.
    pub fn on(policy: Policy) -> Self {
        Merge { policy, slots: HashMap::new(), stack: Vec::new(), loaded: HashSet::new() }
    }

    /// Loads a policy with its includes; the including policy's folder comes first for relative files.
    pub fn load(&mut self, name: &str, folder: Option<&Path>, origin: &Origin, report: &mut Report) {
        let Some((source, folder)) = find(name, folder, origin, report) else { return };
        // The same file by another path is the same file.
        let identity = std::fs::canonicalize(source.name())
            .map_or_else(|_| source.name().to_owned(), |path| path.to_string_lossy().into_owned());
        if self.stack.contains(&identity) {
            let chain = self.stack.join(" includes ");
            report.add(origin.clone(), format!("include cycle: {chain} includes {}", source.name()));
            return;
        }
        if !self.loaded.insert(identity.clone()) {
            return;
        }
        self.stack.push(identity);
        let document = parse(&source, report);
        check::document(&document, report);
        for include in &document.include {
            self.load(&include.value, folder.as_deref(), &include.origin, report);
        }
        self.add(document);
        self.stack.pop();
    }

    fn add(&mut self, document: Document) {
        let uname = document.uname;
        let slots = [
            (&mut self.policy.uname.sysname, uname.sysname),
            (&mut self.policy.uname.nodename, uname.nodename),
            (&mut self.policy.uname.release, uname.release),
            (&mut self.policy.uname.version, uname.version),
            (&mut self.policy.uname.machine, uname.machine),
            (&mut self.policy.uname.domainname, uname.domainname),
        ];
        for (slot, given) in slots {
            if given.is_some() {
                *slot = given;
            }
        }
        self.policy.uname.files = document.uname_files.unwrap_or(self.policy.uname.files);
        if document.machine.cpus.is_some() {
            self.policy.machine.cpus = document.machine.cpus;
        }
        if document.machine.memory.is_some() {
            self.policy.machine.memory = document.machine.memory;
        }
        document.options.apply(&mut self.policy.options);
        for row in document.rows {
            self.add_row(row);
        }
        for row in document.stat {
            self.policy.stat.retain(|other| other.path != row.path);
            self.policy.stat.push(row);
        }
        for row in document.statfs {
            self.add_statfs(row);
        }
    }

    /// Adds a row on top of all others; one with the same pattern and condition is replaced. A row for every
    /// case also replaces one for the missing case only.
    pub fn add_row(&mut self, row: Row) {
        let replaced = match row.when {
            When::Always => vec![When::Always, When::Missing],
            When::Missing => vec![When::Missing],
        };
        for when in replaced {
            if let Some(at) = self.slots.remove(&(row.path.clone(), when)) {
                // Later rows win by position, so the place of the old one must not be reused.
                self.policy.rows[at].path.clear();
            }
        }
        self.slots.insert((row.path.clone(), row.when), self.policy.rows.len());
        self.policy.rows.push(row);
    }

    fn add_statfs(&mut self, row: StatfsRow) {
        self.policy.statfs.retain(|other| other.from != row.from);
        self.policy.statfs.push(row);
    }

    fn shorthand(&mut self, kind: Shorthand, text: &str, report: &mut Report) {
        let origin = Origin::synthetic(COMMAND_LINE);
        let result = match kind {
            Shorthand::Set => self.set(text, &origin),
            Shorthand::File => self.file(text, &origin),
            Shorthand::Hide => {
                check_path(text).map(|()| self.add_row(Row::new(text, What::Absent, 0, origin.clone())))
            }
            Shorthand::UnameRelease => {
                check_uname(text).map_err(|why| format!("the release {why}")).map(|()| {
                    self.policy.uname.release =
                        Some(Sourced { value: text.to_owned(), origin: origin.clone() });
                })
            }
            Shorthand::Statfs => self.statfs(text, &origin),
        };
        let option = match kind {
            Shorthand::Set => "--set",
            Shorthand::File => "--file",
            Shorthand::Hide => "--hide",
            Shorthand::UnameRelease => "--uname-release",
            Shorthand::Statfs => "--statfs",
        };
        if let Err(why) = result {
            report.add(origin, format!("{option} \"{text}\": {why}"));
        }
    }

    /// A value for a key that the policies know keeps its type, range, mode and so on.
    fn set(&mut self, text: &str, origin: &Origin) -> Result<(), String> {
        let (key, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
        let path = sysctl_path(key.trim())?;
        let known = self.policy.rows.iter().rev().find(|row| row.path == path).cloned();
        let known = known.or_else(|| builtin::catalogue_row(&path));
        let mut row = match known {
            Some(row) if matches!(row.what, What::File { .. }) => row,
            _ => Row::new(path.as_str(), fixed(""), 0o644, origin.clone()),
        };
        let What::File { content, codec, .. } = &mut row.what else {
            return Err("the key is a directory".into());
        };
        let codec = codec.get_or_insert(Codec::Str { max: 4095 });
        let shown = codec.canonical(value).map_err(|_| format!("\"{value}\" is not {}", describe(codec)))?;
        *content = Content::Fixed(shown.into());
        row.when = When::Always;
        row.origin = origin.clone();
        self.add_row(row);
        Ok(())
    }

    fn file(&mut self, text: &str, origin: &Origin) -> Result<(), String> {
        let (path, content) = text.split_once('=').ok_or("write PATH=CONTENT")?;
        check_path(path)?;
        let newline = if content.ends_with('\n') { "" } else { "\n" };
        let known = self.policy.rows.iter().rev().find(|row| row.path == path);
        let mode = known.filter(|row| matches!(row.what, What::File { .. })).map_or(0o644, |row| row.mode);
        self.add_row(Row::new(path, fixed(&format!("{content}{newline}")), mode, origin.clone()));
        Ok(())
    }

    fn statfs(&mut self, text: &str, origin: &Origin) -> Result<(), String> {
        let (from, to) = text.split_once('=').ok_or("write FROM=TO, such as 9p=tmpfs or /data=ext4")?;
        let magic = |name: &str| {
            let near = hint(name, keys::MAGICS.iter().map(|(name, _)| *name));
            keys::magic(name).ok_or_else(|| format!("unknown file system type \"{name}\"{near}"))
        };
        let from = if from.starts_with('/') {
            check_path(from)?;
            StatfsMatch::Path(from.to_owned())
        } else {
            StatfsMatch::Type(magic(from)?)
        };
        let f_type = magic(to)?;
        let origin = origin.clone();
        let none = None;
        self.add_statfs(StatfsRow {
            from,
            f_type,
            blocks: none,
            bfree: none,
            files: none,
            ffree: none,
            readonly: None,
            origin,
        });
        Ok(())
    }
}

fn fixed(text: &str) -> What {
    What::file(Content::Fixed(text.to_owned().into()))
}

/// Finds the text of a policy: a file, or a built-in. Gives the folder that its own includes start from.
fn find(
    name: &str,
    folder: Option<&Path>,
    origin: &Origin,
    report: &mut Report,
) -> Option<(Source, Option<PathBuf>)> {
    let is_file = name.contains('/') || name.ends_with(".toml");
    if !is_file {
        if let Some((known, text)) = builtin::NAMED.iter().find(|(known, _)| *known == name) {
            return Some((Source::new(&format!("policies/{known}.toml"), (*text).to_owned()), None));
        }
        let near = hint(name, builtin::NAMED.iter().map(|(known, _)| *known));
        let message = format!(
            "no built-in policy is called \"{name}\"{near}; `sysemu policy list` lists them, and a file is named \
             with a / or .toml"
        );
        report.add(origin.clone(), message);
        return None;
    }
    let path = folder.map_or_else(|| PathBuf::from(name), |folder| folder.join(name));
    match std::fs::read_to_string(&path) {
        Ok(text) => {
            let folder = path.parent().map(Path::to_path_buf);
            Some((Source::new(&path.to_string_lossy(), text), folder))
        }
        Err(error) => {
            report.add(origin.clone(), format!("cannot read the policy file {}: {error}", path.display()));
            None
        }
    }
}
