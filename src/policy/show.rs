//! A merged policy as a policy file again, each row with the place it came from.

use std::fmt::Write;

use super::{
    Content, Policy, Reversed, Rounding, Row, Scope, StatfsMatch, StatfsRow, What, When, WriteRule,
    WriteRules, rules,
};
use crate::emulator::codec::Codec;

/// The whole policy; loading the text gives an equal policy, origins aside.
pub fn policy(policy: &Policy) -> String {
    let mut out = String::from("schema = 1\n");
    let uname = &policy.uname;
    let fields = [
        ("sysname", &uname.sysname),
        ("nodename", &uname.nodename),
        ("release", &uname.release),
        ("version", &uname.version),
        ("machine", &uname.machine),
        ("domainname", &uname.domainname),
    ];
    if uname.is_given() {
        out.push_str("\n[uname]\n");
        for (name, field) in fields {
            if let Some(field) = field {
                let _ = writeln!(out, "{name} = {} # {}", quoted(&field.value), field.origin);
            }
        }
        if !uname.files {
            out.push_str("files = false\n");
        }
    }
    let machine = &policy.machine;
    if machine.cpus.is_some() || machine.memory.is_some() {
        out.push_str("\n[machine]\n");
        if let Some(cpus) = &machine.cpus {
            let _ = writeln!(out, "cpus = {} # {}", cpus.value, cpus.origin);
        }
        if let Some(memory) = &machine.memory {
            let _ = writeln!(out, "memory = {} # {}", memory.value, memory.origin);
        }
    }
    let options = &policy.options;
    if *options != super::Options::default() {
        out.push_str("\n[options]\n");
        let _ = writeln!(out, "io_uring = {}", quoted(if options.io_uring { "allow" } else { "off" }));
        let mount_api = if options.mount_api == super::MountApi::Enosys { "enosys" } else { "emulate" };
        let _ = writeln!(out, "mount_api = {}", quoted(mount_api));
        let on_fault = if options.on_fault == super::OnFault::Eio { "eio" } else { "continue" };
        let _ = writeln!(out, "on_fault = {}", quoted(on_fault));
    }
    for item in &policy.rows {
        let _ = write!(out, "\n# {}\n{}", item.origin, row(item));
    }
    for item in &policy.stat {
        let _ = write!(out, "\n# {}\n[[stat]]\npath = {}\n", item.origin, quoted(&item.path));
        let _ = writeln!(out, "inode = {}", item.inode);
    }
    for item in &policy.statfs {
        let _ = write!(out, "\n# {}\n{}", item.origin, statfs(item));
    }
    out
}

/// One row.
pub fn row(row: &Row) -> String {
    let mut out = String::new();
    let mut put = |key: &str, value: String| {
        let _ = writeln!(out, "{key} = {value}");
    };
    let heading = match &row.what {
        What::File { content, codec, scope, write, rules } => {
            // A dot in the first component would be taken for the separator of the key.
            let has_key = codec.is_some() && matches!(content, Content::Fixed(_) | Content::Provider(_));
            let first_has_dot =
                |inside: &str| inside.split('/').next().is_some_and(|first| first.contains('.'));
            let sysctl =
                row.path.strip_prefix("/proc/sys/").filter(|inside| has_key && !first_has_dot(inside));
            match sysctl {
                Some(inside) => put("key", quoted(&key(inside))),
                None => put("path", quoted(&row.path)),
            }
            match content {
                Content::Fixed(bytes) => {
                    let text = String::from_utf8_lossy(bytes);
                    // Codecs add the final newline by themselves.
                    let text = if codec.is_some() { text.strip_suffix('\n').unwrap_or(&text) } else { &text };
                    put(if sysctl.is_some() { "value" } else { "content" }, quoted(text));
                }
                Content::Provider(name) => put("provider", quoted(name)),
                Content::Like(path) => put("like", quoted(path)),
            }
            if let Some(codec) = codec {
                put_codec(codec, &mut put);
            }
            put("mode", quoted(&format!("{:04o}", row.mode)));
            if *scope != Scope::Global {
                put("scope", quoted(scope_name(*scope)));
            }
            let usual = if sysctl.is_some() { WriteRule::Keep } else { WriteRule::Deny };
            if *write != usual {
                put("write", quoted(write_name(*write)));
            }
            put_rules(rules, &mut put);
            if sysctl.is_some() { "[[sysctl]]" } else { "[[file]]" }
        }
        What::Dir => {
            put("path", quoted(&row.path));
            put("mode", quoted(&format!("{:04o}", row.mode)));
            "[[dir]]"
        }
        What::Link { target } => {
            put("path", quoted(&row.path));
            put("target", quoted(target));
            "[[link]]"
        }
        What::Absent => {
            put("path", quoted(&row.path));
            "[[absent]]"
        }
    };
    if row.when == When::Missing {
        put("when", quoted("missing"));
    }
    for (name, text) in [("doc", &row.doc), ("source", &row.source)] {
        if !text.is_empty() {
            put(name, quoted(text));
        }
    }
    format!("{heading}\n{out}")
}

fn put_codec(codec: &Codec, put: &mut impl FnMut(&str, String)) {
    let mut numbers = |name: &str, (min, max): (i128, i128), (low, high): (i128, i128)| {
        put("type", quoted(name));
        if (min, max) != (low, high) {
            // TOML integers end at 2^63.
            let number =
                |n: i128| if i64::try_from(n).is_ok() { n.to_string() } else { quoted(&n.to_string()) };
            put("range", format!("[{}, {}]", number(min), number(max)));
        }
    };
    let int = (i32::MIN.into(), i32::MAX.into());
    let uint = (0, u32::MAX.into());
    let ulong = (0, u64::MAX.into());
    match codec {
        Codec::Int { min, max } => numbers("int", ((*min).into(), (*max).into()), int),
        Codec::Uint { min, max } => numbers("uint", ((*min).into(), (*max).into()), uint),
        Codec::Ulong { min, max } => numbers("ulong", ((*min).into(), (*max).into()), ulong),
        Codec::Bool => put("type", quoted("bool")),
        Codec::Str { max } => {
            put("type", quoted("string"));
            put("len", max.to_string());
        }
        Codec::IntList { len, min, max } => {
            numbers("int-list", ((*min).into(), (*max).into()), int);
            put("len", len.to_string());
        }
        Codec::UlongList { len, min, max } => {
            numbers("ulong-list", ((*min).into(), (*max).into()), ulong);
            put("len", len.to_string());
        }
    }
}

fn put_rules(rules: &WriteRules, put: &mut impl FnMut(&str, String)) {
    let list = |texts: &[String]| {
        let texts: Vec<String> = texts.iter().map(|text| quoted(text)).collect();
        format!("[{}]", texts.join(", "))
    };
    if !rules.choices.is_empty() {
        put("choices", list(&rules.choices));
    }
    if rules.other_is_enoent {
        put("otherwise", quoted("ENOENT"));
    }
    match &rules.reversed {
        Some(Reversed::Refuse) => put("reversed", quoted("refuse")),
        Some(Reversed::Becomes(line)) => put("reversed", quoted(line)),
        None => {}
    }
    let files =
        [("not_below", &rules.not_below), ("not_above", &rules.not_above), ("follows", &rules.follows)];
    for (name, path) in files {
        if let Some(path) = path {
            put(name, quoted(path));
        }
    }
    let lists = [
        ("also", &rules.also),
        ("zeroes", &rules.zeroes),
        ("zeroes_on_change", &rules.zeroes_on_change),
        ("except", &rules.except),
    ];
    for (name, texts) in lists.into_iter().filter(|(_, texts)| !texts.is_empty()) {
        put(name, list(texts));
    }
    match rules.rounding {
        Some(Rounding::Up(step)) => put("round_up", step.to_string()),
        Some(Rounding::Down(step)) => put("round_down", step.to_string()),
        None => {}
    }
    if let Some(capability) = rules.needs.and_then(rules::capability_name) {
        put("needs", quoted(capability));
    }
    if rules.poll {
        put("poll", "true".into());
    }
}

fn statfs(row: &StatfsRow) -> String {
    let mut out = String::from("[[statfs]]\n");
    let _ = match &row.from {
        StatfsMatch::Path(path) => writeln!(out, "path = {}", quoted(path)),
        StatfsMatch::Type(magic) => writeln!(out, "from = \"{magic:#x}\""),
    };
    let _ = writeln!(out, "type = \"{:#x}\"", row.f_type);
    let numbers = [("blocks", row.blocks), ("bfree", row.bfree), ("files", row.files), ("ffree", row.ffree)];
    for (name, number) in numbers {
        if let Some(number) = number {
            let _ = writeln!(out, "{name} = {number}");
        }
    }
    if let Some(readonly) = row.readonly {
        let _ = writeln!(out, "readonly = {readonly}");
    }
    out
}

/// The sysctl(8) spelling of a path below `/proc/sys`: dots, or slashes where a name has dots.
fn key(inside: &str) -> String {
    if inside.contains('.') { inside.to_owned() } else { inside.replace('/', ".") }
}

fn scope_name(scope: Scope) -> &'static str {
    match scope {
        Scope::Global => "global",
        Scope::Net => "net",
        Scope::Uts => "uts",
        Scope::Ipc => "ipc",
        Scope::User => "user",
        Scope::Pid => "pid",
    }
}

fn write_name(write: WriteRule) -> &'static str {
    match write {
        WriteRule::Keep => "keep",
        WriteRule::Ignore => "ignore",
        WriteRule::Deny => "deny",
        WriteRule::Forward => "forward",
    }
}

/// A TOML basic string.
pub fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04X}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
