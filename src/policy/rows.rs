//! From the fields of one table to its row.

use super::diagnostic::{Report, hint};
use super::keys;
use super::parse::Fields;
use super::rules;
use super::{
    Content, Machine, Row, Scope, Sourced, StatRow, StatfsMatch, StatfsRow, Uname, What, When, WriteRule,
    WriteRules,
};
use crate::emulator::codec::Codec;

/// Capacity of strings when the row gives none: a page without the final newline.
const STRING_LEN: usize = 4095;
/// Longest list.
const MAX_LEN: u64 = 1024;
/// Most CPUs.
const MAX_CPUS: u64 = 8192;
/// Least memory.
const MIN_MEMORY: u64 = 4 << 20;

/// `[uname]`.
pub(super) fn uname(fields: &Fields<'_>, report: &mut Report) -> Uname {
    let mut field = |name| {
        let text = fields.text(report, name)?;
        if let Err(why) = check_uname(&text.value) {
            report.add(text.origin, format!("{name} {why}"));
            return None;
        }
        Some(text)
    };
    Uname {
        sysname: field("sysname"),
        nodename: field("nodename"),
        release: field("release"),
        version: field("version"),
        machine: field("machine"),
        domainname: field("domainname"),
        files: true,
    }
}

/// Whether a text fits a field of uname(2).
///
/// # Errors
/// What is wrong, for a message.
pub(super) fn check_uname(text: &str) -> Result<(), &'static str> {
    let fits = (1..=64).contains(&text.len()) && !text.contains(['\n', '\0']);
    if fits { Ok(()) } else { Err("must be one line of 1 to 64 bytes, as uname(2) can hold") }
}

/// `[machine]`.
pub(super) fn machine(fields: &Fields<'_>, report: &mut Report) -> Machine {
    let cpus = fields.number(report, "cpus").and_then(|cpus| match cpus.value {
        count @ 1..=MAX_CPUS => Some(Sourced { value: count as u32, origin: cpus.origin }),
        count => {
            report.add(cpus.origin, format!("cpus must be 1 to {MAX_CPUS}, not {count}"));
            None
        }
    });
    let memory = fields.size(report, "memory").and_then(|memory| {
        if memory.value < MIN_MEMORY {
            report.add(memory.origin, "memory must be at least 4M");
            return None;
        }
        Some(Sourced { value: memory.value / 4096 * 4096, origin: memory.origin })
    });
    Machine { cpus, memory }
}

/// `[[sysctl]]`.
pub(super) fn sysctl(fields: &Fields<'_>, report: &mut Report) -> Option<Row> {
    let key = fields.text(report, "key");
    let path = key.as_ref().and_then(|key| match sysctl_path(&key.value) {
        Ok(path) => Some(path),
        Err(why) => {
            report.add(key.origin.clone(), format!("bad key \"{}\": {why}", key.value));
            None
        }
    });
    let codec = codec(fields, report);
    let content = content(fields, report, &["value", "provider"], codec.as_ref());
    let rules = rules::of(fields, report, codec.as_ref());
    Some(row(fields, report, path?, file_of(fields, content?, codec, rules), 0o644))
}

/// `[[file]]`.
pub(super) fn file(fields: &Fields<'_>, report: &mut Report) -> Option<Row> {
    let path = path(fields, report);
    let codec = codec(fields, report);
    let content = content(fields, report, &["content", "provider", "like"], codec.as_ref());
    if !fields.has("type") {
        for name in ["len", "range"].into_iter().filter(|name| fields.has(name)) {
            report.add(fields.origin(), format!("{name} needs a type"));
        }
    }
    let rules = rules::of(fields, report, codec.as_ref());
    Some(row(fields, report, path?, file_of(fields, content?, codec, rules), 0o444))
}

/// `[[dir]]`.
pub(super) fn dir(fields: &Fields<'_>, report: &mut Report) -> Option<Row> {
    let path = path(fields, report)?;
    Some(row(fields, report, path, What::Dir, 0o555))
}

/// `[[link]]`.
pub(super) fn link(fields: &Fields<'_>, report: &mut Report) -> Option<Row> {
    let path = path(fields, report);
    let target = fields.text(report, "target")?;
    if target.value.is_empty() || target.value.contains('\0') || target.value.len() > 4095 {
        report.add(target.origin, "target must be a path of 1 to 4095 bytes");
        return None;
    }
    Some(row(fields, report, path?, What::Link { target: target.value }, 0o777))
}

/// `[[absent]]`.
pub(super) fn absent(fields: &Fields<'_>, report: &mut Report) -> Option<Row> {
    let path = path(fields, report)?;
    Some(row(fields, report, path, What::Absent, 0))
}

fn row(fields: &Fields<'_>, report: &mut Report, path: String, what: What, default_mode: u16) -> Row {
    let mode = fields.text(report, "mode").and_then(|mode| {
        let digits = mode.value.trim_start_matches("0o");
        let bits = u16::from_str_radix(digits, 8).ok().filter(|_| !digits.starts_with('+'));
        if bits.is_none_or(|bits| bits > 0o7777) {
            report.add(
                mode.origin,
                format!("mode \"{}\" is not octal permission bits such as 0644", mode.value),
            );
        }
        bits
    });
    let when = match fields.text(report, "when") {
        Some(word) if word.value == "missing" => When::Missing,
        _ => When::Always,
    };
    Row {
        path,
        what,
        mode: mode.unwrap_or(default_mode),
        when,
        doc: fields.text(report, "doc").map(|text| text.value).unwrap_or_default(),
        source: fields.text(report, "source").map(|text| text.value).unwrap_or_default(),
        origin: fields.origin(),
    }
}

fn file_of(fields: &Fields<'_>, content: Content, codec: Option<Codec>, rules: WriteRules) -> What {
    // Words outside their sets were reported already; these have no place for a second report.
    let mut quiet = Report::default();
    let scope = match fields.text(&mut quiet, "scope").as_ref().map(|word| word.value.as_str()) {
        Some("net") => Scope::Net,
        Some("uts") => Scope::Uts,
        Some("ipc") => Scope::Ipc,
        Some("user") => Scope::User,
        Some("pid") => Scope::Pid,
        _ => Scope::Global,
    };
    let write = match fields.text(&mut quiet, "write").as_ref().map(|word| word.value.as_str()) {
        Some("ignore") => WriteRule::Ignore,
        Some("deny") => WriteRule::Deny,
        Some("forward") => WriteRule::Forward,
        Some(_) => WriteRule::Keep,
        None if fields.section.name == "sysctl" => WriteRule::Keep,
        None => WriteRule::Deny,
    };
    What::File { content, codec, scope, write, rules: rules.into() }
}

fn content(
    fields: &Fields<'_>,
    report: &mut Report,
    keys: &[&str],
    codec: Option<&Codec>,
) -> Option<Content> {
    let given: Vec<&str> = keys.iter().copied().filter(|key| fields.has(key)).collect();
    let [key] = given[..] else {
        let found = if given.is_empty() { "none".to_owned() } else { given.join(" and ") };
        report.add(fields.origin(), format!("give exactly one of {}; found {found}", keys.join(", ")));
        return None;
    };
    let text = fields.text(report, key)?;
    match key {
        "provider" => Some(Content::Provider(text.value)),
        "like" => match check_path(&text.value) {
            Ok(()) => Some(Content::Like(text.value)),
            Err(why) => {
                report.add(text.origin, format!("bad path \"{}\": {why}", text.value));
                None
            }
        },
        _ => {
            // Values with placeholders are checked once these are numbers.
            let is_pattern = IN_CONTENT.iter().any(|placeholder| text.value.contains(placeholder));
            let Some(codec) = codec.filter(|_| !is_pattern) else {
                return Some(Content::Fixed(text.value.into()));
            };
            match codec.canonical(&text.value) {
                Ok(shown) => Some(Content::Fixed(shown.into())),
                Err(_) => {
                    let message =
                        format!("{key} \"{}\" is not {}", text.value.escape_default(), describe(codec));
                    report.add(text.origin, message);
                    None
                }
            }
        }
    }
}

/// A codec in words.
pub(super) fn describe(codec: &Codec) -> String {
    match codec {
        Codec::Int { min, max } => format!("an int from {min} to {max}"),
        Codec::Uint { min, max } => format!("a uint from {min} to {max}"),
        Codec::Ulong { min, max } => format!("a ulong from {min} to {max}"),
        Codec::Bool => "a bool: 0 or 1".into(),
        Codec::Str { max } => format!("one line of at most {max} bytes"),
        Codec::IntList { len, min, max } => format!("{len} ints from {min} to {max}"),
        Codec::UlongList { len, min, max } => format!("{len} ulongs from {min} to {max}"),
    }
}

fn codec(fields: &Fields<'_>, report: &mut Report) -> Option<Codec> {
    let name = match fields.text(report, "type") {
        Some(word) if keys::TYPES.contains(&word.value.as_str()) => word.value,
        Some(_) => return None,
        // A sysctl without a type is a string; a file without one is free text.
        None if fields.section.name == "sysctl" => "string".into(),
        None => return None,
    };
    let range = fields.pair(report, "range");
    let len = fields.number(report, "len");
    let is_list = name.ends_with("-list");
    if let Some((.., origin)) = &range
        && matches!(name.as_str(), "string" | "bool")
    {
        report.add(origin.clone(), format!("range does not go with type {name}"));
    }
    let len = match len {
        Some(len) if !is_list && name != "string" => {
            report.add(len.origin, format!("len does not go with type {name}"));
            None
        }
        Some(len) if len.value == 0 || len.value > if is_list { MAX_LEN } else { 65536 } => {
            report.add(len.origin, format!("len {} is out of range", len.value));
            None
        }
        None if is_list => {
            report.add(fields.origin(), format!("type {name} needs len = N"));
            None
        }
        len => len.map(|len| len.value as usize),
    };
    let mut bounds = |min: i128, max: i128| match &range {
        Some((low, high, origin)) if *low < min || *high > max => {
            report.add(
                origin.clone(),
                format!("range is outside of what type {name} can hold: {min} to {max}"),
            );
            (min, max)
        }
        Some((low, high, _)) => (*low, *high),
        None => (min, max),
    };
    let int = (i128::from(i32::MIN), i128::from(i32::MAX));
    let ulong = (0, i128::from(u64::MAX));
    Some(match name.as_str() {
        "int" | "int-list" => {
            let (min, max) = bounds(int.0, int.1);
            let (min, max) = (min as i32, max as i32);
            if is_list { Codec::IntList { len: len.unwrap_or(1), min, max } } else { Codec::Int { min, max } }
        }
        "uint" => {
            let (min, max) = bounds(0, i128::from(u32::MAX));
            Codec::Uint { min: min as u32, max: max as u32 }
        }
        "ulong" | "ulong-list" => {
            let (min, max) = bounds(ulong.0, ulong.1);
            let (min, max) = (min as u64, max as u64);
            if is_list {
                Codec::UlongList { len: len.unwrap_or(1), min, max }
            } else {
                Codec::Ulong { min, max }
            }
        }
        "bool" => Codec::Bool,
        _ => Codec::Str { max: len.unwrap_or(STRING_LEN) },
    })
}

fn path(fields: &Fields<'_>, report: &mut Report) -> Option<String> {
    let path = fields.text(report, "path")?;
    match check_path(&path.value) {
        Ok(()) => Some(path.value),
        Err(why) => {
            report.add(path.origin, format!("bad path \"{}\": {why}", path.value));
            None
        }
    }
}

/// Placeholders of fixed content.
const IN_CONTENT: [&str; 4] = ["{cpu}", "{node}", "{cpus}", "{cpu-last}"];

/// Placeholders of paths.
const PLACEHOLDERS: [&str; 3] = ["{cpu}", "{node}", "{hidden-cpu}"];

/// Whether a row's path is absolute and in its plain form.
///
/// # Errors
/// What is wrong, for a message.
pub fn check_path(path: &str) -> Result<(), String> {
    let Some(inside) = path.strip_prefix('/') else {
        return Err("it must be absolute".into());
    };
    if path.len() > 4000 {
        return Err("it is longer than 4000 bytes".into());
    }
    for name in inside.split('/') {
        match name {
            "" if inside.is_empty() => return Err("the root directory cannot be replaced".into()),
            "" => return Err("it has an empty component; write single slashes and none at the end".into()),
            "." | ".." => return Err(format!("it has a component \"{name}\"")),
            "*" => {}
            name if name.contains('*') => {
                return Err(format!("\"{name}\": * matches exactly one component and stands alone"));
            }
            name if name.contains('\0') => return Err("it has a NUL byte".into()),
            name if name.len() > 255 => return Err("it has a component of more than 255 bytes".into()),
            name => check_placeholders(name)?,
        }
    }
    Ok(())
}

fn check_placeholders(name: &str) -> Result<(), String> {
    let rest = PLACEHOLDERS.iter().fold(name.to_owned(), |name, placeholder| name.replace(placeholder, ""));
    if rest.contains(['{', '}']) {
        return Err(format!("\"{name}\": the placeholders are {}", PLACEHOLDERS.join(", ")));
    }
    Ok(())
}

/// The path of a sysctl key. As in sysctl.d(5), the first separator decides: after `.` a `/` is part of a
/// name's dot, and the other way round.
///
/// # Errors
/// What is wrong, for a message.
pub fn sysctl_path(key: &str) -> Result<String, String> {
    let first = key.find(['.', '/']).map(|at| &key[at..=at]);
    let inside: String = match first {
        Some(".") => key
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                c => c,
            })
            .collect(),
        _ => key.to_owned(),
    };
    let path = format!("/proc/sys/{inside}");
    check_path(&path)?;
    Ok(path)
}

/// `[[stat]]`.
pub(super) fn stat(fields: &Fields<'_>, report: &mut Report) -> Option<StatRow> {
    let path = fields.text(report, "path")?;
    let inode = fields.number(report, "inode")?;
    if inode.value == 0 {
        report.add(inode.origin, "no inode has the number 0");
        return None;
    }
    Some(StatRow { path: path.value, inode: inode.value, origin: fields.origin() })
}

/// `[[statfs]]`.
pub(super) fn statfs(fields: &Fields<'_>, report: &mut Report) -> Option<StatfsRow> {
    let mut magic = |name| {
        let text = fields.text(report, name)?;
        let number = keys::magic(&text.value);
        if number.is_none() {
            let near = hint(&text.value, keys::MAGICS.iter().map(|(name, _)| *name));
            let message = format!("{name}: unknown file system type \"{}\"{near}", text.value);
            report.add(text.origin, message);
        }
        number
    };
    let (from_type, f_type) = (magic("from"), magic("type"));
    let from = match (fields.has("path"), fields.has("from")) {
        (true, false) => path(fields, report).map(StatfsMatch::Path),
        (false, true) => from_type.map(StatfsMatch::Type),
        _ => {
            report.add(fields.origin(), "give exactly one of path, from");
            None
        }
    };
    let mut number = |name| fields.number(report, name).map(|number| number.value);
    Some(StatfsRow {
        blocks: number("blocks"),
        bfree: number("bfree"),
        files: number("files"),
        ffree: number("ffree"),
        readonly: fields.flag(report, "readonly"),
        from: from?,
        f_type: f_type?,
        origin: fields.origin(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_separator_of_a_key_decides() {
        for (key, path) in [
            ("vm.swappiness", "/proc/sys/vm/swappiness"),
            ("net/ipv4/conf/eth0.1/rp_filter", "/proc/sys/net/ipv4/conf/eth0.1/rp_filter"),
            ("net.ipv4.conf.eth0/1.rp_filter", "/proc/sys/net/ipv4/conf/eth0.1/rp_filter"),
            ("net.ipv4.conf.*.rp_filter", "/proc/sys/net/ipv4/conf/*/rp_filter"),
        ] {
            assert_eq!(sysctl_path(key).as_deref(), Ok(path), "{key}");
        }
        for bad in ["", ".x", "a..b", "a.*x", "a/"] {
            assert!(sysctl_path(bad).is_err(), "{bad}");
        }
    }
}
