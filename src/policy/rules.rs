//! From the fields of one table to what writes have to obey.

use super::diagnostic::Report;
use super::parse::Fields;
use super::rows::{check_path, sysctl_path};
use super::{Reversed, Rounding, Sourced, WriteRules};
use crate::emulator::codec::Codec;

/// Capabilities by number, as far as rows can ask for them (capabilities(7)).
const CAPABILITIES: [(&str, u32); 5] = [
    ("CAP_NET_ADMIN", 12),
    ("CAP_SYS_PTRACE", 19),
    ("CAP_SYS_ADMIN", 21),
    ("CAP_SYS_RESOURCE", 24),
    ("CAP_SYSLOG", 34),
];

/// Their names.
pub const CAPABILITY_NAMES: &[&str] = &{
    let mut names = [""; CAPABILITIES.len()];
    let mut at = 0;
    while at < names.len() {
        names[at] = CAPABILITIES[at].0;
        at += 1;
    }
    names
};

/// The name of a capability.
pub fn capability_name(number: u32) -> Option<&'static str> {
    CAPABILITIES.iter().find(|(_, known)| *known == number).map(|(name, _)| *name)
}

/// The rules of a table; what is wrong goes to the report.
pub(super) fn of(fields: &Fields<'_>, report: &mut Report, codec: Option<&Codec>) -> WriteRules {
    let mut file = |name| fields.text(report, name).and_then(|text| file_of(report, name, text));
    let (not_below, not_above, follows) = (file("not_below"), file("not_above"), file("follows"));
    let mut files = |name| {
        let texts = fields.texts(report, name).into_iter();
        texts.filter_map(|text| file_of(report, name, text)).collect()
    };
    let (also, zeroes, zeroes_on_change) = (files("also"), files("zeroes"), files("zeroes_on_change"));
    WriteRules {
        choices: choices(fields, report, codec),
        other_is_enoent: word(fields, "otherwise").as_deref() == Some("ENOENT"),
        reversed: reversed(fields, report, codec),
        not_below,
        not_above,
        also,
        zeroes,
        zeroes_on_change,
        follows,
        except: fields.texts(report, "except").into_iter().map(|name| name.value).collect(),
        rounding: rounding(fields, report, codec),
        needs: word(fields, "needs")
            .and_then(|word| CAPABILITIES.iter().find(|(name, _)| *name == word))
            .map(|(_, number)| *number),
        poll: fields.flag(report, "poll").unwrap_or(false),
    }
}

/// Words outside their sets were reported already.
fn word(fields: &Fields<'_>, name: &str) -> Option<String> {
    fields.text(&mut Report::default(), name).map(|word| word.value)
}

fn file_of(report: &mut Report, name: &str, text: Sourced<String>) -> Option<String> {
    file_path(&text.value).map_err(|why| report.add(text.origin, format!("{name}: {why}"))).ok()
}

/// A path, or a key as sysctl(8) spells it.
fn file_path(text: &str) -> Result<String, String> {
    if text.starts_with('/') { check_path(text).map(|()| text.to_owned()) } else { sysctl_path(text) }
}

fn choices(fields: &Fields<'_>, report: &mut Report, codec: Option<&Codec>) -> Vec<String> {
    let mut choices = Vec::new();
    for text in fields.texts(report, "choices") {
        match line(codec, &text.value) {
            Ok(line) => choices.push(line),
            Err(why) => report.add(text.origin, format!("choice \"{}\" {why}", text.value.escape_default())),
        }
    }
    choices
}

fn reversed(fields: &Fields<'_>, report: &mut Report, codec: Option<&Codec>) -> Option<Reversed> {
    let text = fields.text(report, "reversed")?;
    if !matches!(codec, Some(Codec::IntList { len: 2, .. } | Codec::UlongList { len: 2, .. })) {
        report.add(text.origin, "reversed needs a list with len = 2");
        return None;
    }
    if text.value == "refuse" {
        return Some(Reversed::Refuse);
    }
    match line(codec, &text.value) {
        Ok(line) => Some(Reversed::Becomes(line)),
        Err(why) => {
            report
                .add(text.origin, format!("reversed is \"refuse\" or two values; \"{}\" {why}", text.value));
            None
        }
    }
}

fn rounding(fields: &Fields<'_>, report: &mut Report, codec: Option<&Codec>) -> Option<Rounding> {
    let (up, down) = (fields.number(report, "round_up"), fields.number(report, "round_down"));
    let (step, make) = match (up, down) {
        (None, None) => return None,
        (Some(up), None) => (up, Rounding::Up as fn(u32) -> Rounding),
        (None, Some(down)) => (down, Rounding::Down as fn(u32) -> Rounding),
        (Some(_), Some(down)) => {
            report.add(down.origin, "give one of round_up, round_down");
            return None;
        }
    };
    let is_number = !matches!(codec, None | Some(Codec::Str { .. } | Codec::Bool));
    match u32::try_from(step.value) {
        Ok(step) if step > 0 && is_number => Some(make(step)),
        _ => {
            report.add(step.origin, "rounding needs a type of numbers and a step from 1 to 4294967295");
            None
        }
    }
}

/// A value as it shows, without the final newline.
fn line(codec: Option<&Codec>, text: &str) -> Result<String, &'static str> {
    match codec {
        Some(codec) => match codec.canonical(text) {
            Ok(shown) => Ok(shown.trim_end_matches('\n').to_owned()),
            Err(_) => Err("does not fit the type"),
        },
        None => Ok(text.trim_end_matches('\n').to_owned()),
    }
}
