//! From the text of one policy file to its rows, with every mistake noted.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::{Report, Source, hint};
use super::keys::{self, Kind, SECTIONS, Section};
use super::rows;
use super::{Machine, Options, Origin, Row, Sourced, StatRow, StatfsRow, Uname};

/// One policy file, before includes and expansion.
#[derive(Debug, Default)]
pub struct Document {
    /// `name`, if given.
    pub name: Option<String>,
    /// `doc`.
    pub doc: String,
    /// `include`.
    pub include: Vec<Sourced<String>>,
    /// `[uname]`.
    pub uname: Uname,
    /// `files` of `[uname]`, if given.
    pub uname_files: Option<bool>,
    /// `[machine]`.
    pub machine: Machine,
    /// `[options]`: only what is given.
    pub options: GivenOptions,
    /// Tree rows in the order of the file; `{cpu}` and `{node}` not yet expanded.
    pub rows: Vec<Row>,
    /// `[[stat]]`.
    pub stat: Vec<StatRow>,
    /// `[[statfs]]`.
    pub statfs: Vec<StatfsRow>,
}

/// The switches that a file sets.
#[derive(Clone, Copy, Debug, Default)]
pub struct GivenOptions {
    io_uring: Option<bool>,
    mount_api: Option<super::MountApi>,
    on_fault: Option<super::OnFault>,
}

impl GivenOptions {
    /// Lets these win over `options`.
    pub fn apply(&self, options: &mut Options) {
        options.io_uring = self.io_uring.unwrap_or(options.io_uring);
        options.mount_api = self.mount_api.unwrap_or(options.mount_api);
        options.on_fault = self.on_fault.unwrap_or(options.on_fault);
    }
}

/// Reads a file; what is wrong goes to the report.
pub fn parse(source: &Source, report: &mut Report) -> Document {
    let mut document = Document::default();
    let (table, errors) = DeTable::parse_recoverable(source.text());
    for error in &errors {
        let message = error.message().lines().collect::<Vec<_>>().join(", ");
        report.add(source.origin(&error.span().unwrap_or(0..0)), message);
    }
    if !errors.is_empty() {
        // What is left after recovery would only lead to errors that are none.
        return document;
    }
    let top = table.get_ref();
    let mut rows: Vec<(usize, Row)> = Vec::new();
    for (key, value) in top {
        let name: &str = key.get_ref();
        match keys::section(name) {
            Some(section) if !name.is_empty() => {
                for fields in tables(source, report, section, &key.span(), value) {
                    take_section(source, report, fields, &mut document, &mut rows);
                }
            }
            _ if keys::SECTIONS[0].key(name).is_some() => {}
            _ => {
                let known = SECTIONS
                    .iter()
                    .map(|section| section.name)
                    .chain(SECTIONS[0].keys.iter().map(|k| k.name));
                let hint = hint(name, known.filter(|name| !name.is_empty()));
                report.add(source.origin(&key.span()), format!("unknown key \"{name}\"{hint}"));
            }
        }
    }
    let head = Fields { source, section: &SECTIONS[0], table: top, span: table.span() };
    match head.number(report, "schema") {
        Some(version) if version.value != 1 => {
            let message = format!("schema {} is not known; this version reads schema = 1", version.value);
            report.add(version.origin, message);
        }
        Some(_) => {}
        None if top.keys().any(|key| &**key.get_ref() == "schema") => {}
        None => report.add(source.origin(&(0..0)), "missing key \"schema\"; begin the file with schema = 1"),
    }
    document.name = head.text(report, "name").map(|name| name.value);
    document.doc = head.text(report, "doc").map(|doc| doc.value).unwrap_or_default();
    document.include = head.texts(report, "include");
    rows.sort_by_key(|(at, _)| *at);
    document.rows = rows.into_iter().map(|(_, row)| row).collect();
    document
}

fn tables<'t>(
    source: &'t Source,
    report: &mut Report,
    section: &'static Section,
    key_span: &Range<usize>,
    value: &'t Spanned<DeValue<'t>>,
) -> Vec<Fields<'t>> {
    let fields = |table: &'t DeTable<'t>, span: Range<usize>| Fields { source, section, table, span };
    match (section.is_array, value.get_ref()) {
        (false, DeValue::Table(table)) => vec![fields(table, key_span.clone())],
        (true, DeValue::Array(array)) => {
            let mut all = Vec::new();
            for item in array.iter() {
                match item.get_ref() {
                    DeValue::Table(table) => all.push(fields(table, item.span())),
                    other => report.add(
                        source.origin(&item.span()),
                        format!("expected a table in {}, found {}", section.heading(), other.type_str()),
                    ),
                }
            }
            all
        }
        (_, other) => {
            let found =
                if other.is_table() { format!("[{}]", section.name) } else { other.type_str().to_owned() };
            let message = format!("expected {}, found {found}", section.heading());
            report.add(source.origin(key_span), message);
            Vec::new()
        }
    }
}

fn take_section(
    source: &Source,
    report: &mut Report,
    fields: Fields<'_>,
    document: &mut Document,
    rows: &mut Vec<(usize, Row)>,
) {
    fields.check_keys(report);
    let at = fields.span.start;
    let mut add = |row: Option<Row>| rows.extend(row.map(|row| (at, row)));
    match fields.section.name {
        "uname" => {
            document.uname = rows::uname(&fields, report);
            document.uname_files = fields.flag(report, "files");
        }
        "machine" => document.machine = rows::machine(&fields, report),
        "options" => {
            let word = |report: &mut Report, name| fields.text(report, name).map(|word| word.value);
            document.options = GivenOptions {
                io_uring: word(report, "io_uring").map(|word| word == "allow"),
                mount_api: word(report, "mount_api").map(|word| match word.as_str() {
                    "enosys" => super::MountApi::Enosys,
                    _ => super::MountApi::Emulate,
                }),
                on_fault: word(report, "on_fault").map(|word| match word.as_str() {
                    "eio" => super::OnFault::Eio,
                    _ => super::OnFault::Continue,
                }),
            };
        }
        "sysctl" => add(rows::sysctl(&fields, report)),
        "file" => add(rows::file(&fields, report)),
        "dir" => add(rows::dir(&fields, report)),
        "link" => add(rows::link(&fields, report)),
        "absent" => add(rows::absent(&fields, report)),
        "stat" => document.stat.extend(rows::stat(&fields, report)),
        "statfs" => document.statfs.extend(rows::statfs(&fields, report)),
        other => report.add(source.origin(&fields.span), format!("unknown table \"{other}\"")),
    }
}

/// The fields of one table.
pub struct Fields<'t> {
    /// The file.
    pub source: &'t Source,
    /// Which table.
    pub section: &'static Section,
    table: &'t DeTable<'t>,
    /// Where it starts.
    pub span: Range<usize>,
}

impl<'t> Fields<'t> {
    /// Where the table starts.
    pub fn origin(&self) -> Origin {
        self.source.origin(&self.span)
    }

    fn get(&self, name: &str) -> Option<(&'t DeValue<'t>, Origin)> {
        let value = self.table.get(name)?;
        Some((value.get_ref(), self.source.origin(&value.span())))
    }

    /// Whether a key is given.
    pub fn has(&self, name: &str) -> bool {
        self.table.contains_key(name)
    }

    /// Notes unknown keys, missing ones, and words that are not in their set.
    fn check_keys(&self, report: &mut Report) {
        for (key, value) in self.table {
            let name: &str = key.get_ref();
            let Some(known) = self.section.key(name) else {
                let hint = hint(name, self.section.keys.iter().map(|key| key.name));
                let message = format!("unknown key \"{name}\" in {}{hint}", self.section.heading());
                report.add(self.source.origin(&key.span()), message);
                continue;
            };
            if let (Kind::OneOf(words), DeValue::String(word)) = (known.kind, value.get_ref())
                && !words.contains(&&**word)
            {
                let near = hint(word, words.iter().copied());
                let message = format!("{name} cannot be \"{word}\"; it is one of {}{near}", words.join(", "));
                report.add(self.source.origin(&value.span()), message);
            }
        }
        for key in self.section.keys.iter().filter(|key| key.required && !self.has(key.name)) {
            report.add(self.origin(), format!("missing key \"{}\" in {}", key.name, self.section.heading()));
        }
    }

    fn mismatch(
        &self,
        report: &mut Report,
        name: &str,
        wanted: &str,
        (found, origin): (&DeValue<'_>, Origin),
    ) {
        report.add(origin, format!("{name} must be {wanted}, not {}", found.type_str()));
    }

    /// A string.
    pub fn text(&self, report: &mut Report, name: &str) -> Option<Sourced<String>> {
        match self.get(name)? {
            (DeValue::String(text), origin) => Some(Sourced { value: text.to_string(), origin }),
            other => {
                self.mismatch(report, name, "a string", other);
                None
            }
        }
    }

    /// `true` or `false`.
    pub fn flag(&self, report: &mut Report, name: &str) -> Option<bool> {
        match self.get(name)? {
            (DeValue::Boolean(flag), _) => Some(*flag),
            other => {
                self.mismatch(report, name, "true or false", other);
                None
            }
        }
    }

    /// A whole number that is not negative.
    pub fn number(&self, report: &mut Report, name: &str) -> Option<Sourced<u64>> {
        let (value, origin) = self.get(name)?;
        let number = match value {
            DeValue::Integer(number) => u64::from_str_radix(number.as_str(), number.radix()).ok(),
            _ => None,
        };
        match number {
            Some(value) => Some(Sourced { value, origin }),
            None => {
                self.mismatch(report, name, "a whole number that is not negative", (value, origin));
                None
            }
        }
    }

    /// A number, or a string with a suffix.
    pub fn size(&self, report: &mut Report, name: &str) -> Option<Sourced<u64>> {
        match self.get(name)? {
            (DeValue::String(text), origin) => match parse_size(text) {
                Some(value) => Some(Sourced { value, origin }),
                None => {
                    report.add(
                        origin,
                        format!("{name} cannot be \"{text}\"; write a number with K, M, G or T"),
                    );
                    None
                }
            },
            _ => self.number(report, name),
        }
    }

    /// A list of strings.
    pub fn texts(&self, report: &mut Report, name: &str) -> Vec<Sourced<String>> {
        match self.get(name) {
            None => Vec::new(),
            Some((DeValue::Array(array), _)) => {
                let mut texts = Vec::new();
                for item in array.iter() {
                    let origin = self.source.origin(&item.span());
                    match item.get_ref() {
                        DeValue::String(text) => texts.push(Sourced { value: text.to_string(), origin }),
                        other => self.mismatch(report, name, "a list of strings", (other, origin)),
                    }
                }
                texts
            }
            Some(other) => {
                self.mismatch(report, name, "a list of strings", other);
                Vec::new()
            }
        }
    }

    /// A pair of numbers as texts, because they may be negative or need 64 bits.
    pub fn pair(&self, report: &mut Report, name: &str) -> Option<(i128, i128, Origin)> {
        let (value, origin) = self.get(name)?;
        let number = |value: &DeValue<'_>| match value {
            DeValue::Integer(number) => i128::from_str_radix(number.as_str(), number.radix()).ok(),
            DeValue::String(text) => text.parse().ok(),
            _ => None,
        };
        let pair = match value {
            DeValue::Array(array) if array.len() == 2 => {
                let mut numbers = array.iter().map(|item| number(item.get_ref()));
                numbers.next().flatten().zip(numbers.next().flatten())
            }
            _ => None,
        };
        match pair {
            Some((min, max)) if min <= max => Some((min, max, origin)),
            Some((min, max)) => {
                report.add(origin, format!("{name} is empty: {min} is greater than {max}"));
                None
            }
            None => {
                self.mismatch(report, name, "a pair of whole numbers such as [0, 2]", (value, origin));
                None
            }
        }
    }
}

/// A number with an optional binary suffix.
pub fn parse_size(text: &str) -> Option<u64> {
    let (digits, shift) = match text.char_indices().next_back()? {
        (at, 'K' | 'k') => (&text[..at], 10),
        (at, 'M' | 'm') => (&text[..at], 20),
        (at, 'G' | 'g') => (&text[..at], 30),
        (at, 'T' | 't') => (&text[..at], 40),
        _ => (text, 0),
    };
    let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse::<u64>().ok().filter(|_| is_plain)?.checked_mul(1 << shift)
}
