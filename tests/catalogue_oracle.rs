//! `sysemu diff` over every sysctl of the catalogue that exists on the kernel that runs the test: whatever differs from
//! the real file is declared, or a mistake of the emulation or of the row.

mod common;

use std::collections::BTreeSet;
use std::fmt::Write as _;

use common::{Run, Scratch, guest, is_long, is_root, skip, sysemu_program};
use sysemu::emulator::codec::Codec;
use sysemu::policy::{Content, Loader, Rounding, Row, Scope, What, WriteRule, mirror};

/// Rows, and the steps that look at them.
fn script(rows: &[Row], is_writing: bool) -> String {
    let mut steps = String::new();
    let mut folders = BTreeSet::new();
    for row in rows {
        let path = &row.path;
        folders.extend(path.rsplit_once('/').map(|(folder, _)| folder));
        looks(&mut steps, path);
        if is_writing && can_be_written(row) {
            writes(&mut steps, row);
        }
    }
    for folder in folders {
        let _ = writeln!(steps, "open 0 {folder} 0x10000\nlist 0\nfstat 0\nstat {folder}\nclose 0");
    }
    steps
}

fn looks(steps: &mut String, path: &str) {
    let _ = writeln!(steps, "# {path}\nopen 0 {path} 0\nfstat 0\nfstatfs 0\nfdlink 0\nflags 0");
    let _ = writeln!(steps, "read 0 65536\nread 0 65536\nseek 0 0 0\nread 0 65536\nclose 0");
    // In pieces.
    let _ = writeln!(steps, "open 0 {path} 0\nread 0 1\nread 0 2\nread 0 65536\nclose 0");
    let _ = writeln!(steps, "open 0 {path} 0\nread 0 0\nread 0 3\nseek 0 0 1\nclose 0");
    let _ = writeln!(steps, "open 0 {path} 0");
    for at in [0, 1, 2, 4096] {
        let _ = writeln!(steps, "pread 0 100 {at}");
    }
    let _ = writeln!(
        steps,
        "pread 0 100 -1\nseek 0 0 2\nseek 0 -1 0\nseek 0 3 0\nread 0 100\nsendfile 0 9000\nclose 0"
    );
    let _ = writeln!(
        steps,
        "stat {path}\nlstat {path}\nstatfs {path}\nreadlink {path}\nstat {path}/\nopen 0 {path}/x 0"
    );
    for mode in [0, 1, 2, 4] {
        let _ = writeln!(steps, "access {path} {mode}");
    }
    // Directory, no following, no time, not blocking, synchronous, exclusive creation, temporary file, direct, path.
    for flags in
        ["0x10000", "0x20000", "0x40000", "0x800", "0x101000", "0xc0", "0x410002", "0x4000", "0x200000"]
    {
        let _ = writeln!(steps, "open 0 {path} {flags}\nflags 0");
    }
}

/// What belongs to a namespace of the test's own. Setting these back or reading them depends on the machine.
fn can_be_written(row: &Row) -> bool {
    const ODD: &[&str] = &[
        "/mtu",
        "nf_conntrack",
        "unres_qlen",
        "tcp_allowed_congestion",
        "nf_hooks_lwtunnel",
        "msg_next_id",
        "sem_next_id",
        "shm_next_id",
    ];
    let What::File { content: Content::Fixed(_), scope, .. } = &row.what else {
        return false;
    };
    let is_own = matches!(scope, Scope::Net | Scope::Uts | Scope::Ipc);
    is_own && row.mode & 0o200 != 0 && !ODD.iter().any(|name| row.path.contains(name))
}

/// Whether sysctls of the whole machine are written too, with values that the kernel has to refuse.
fn writes_to_host() -> bool {
    std::env::var_os("SYSEMU_WRITE_HOST").is_some_and(|value| value == "1")
}

/// Values that a sysctl of the whole machine refuses, if the row is right.
fn refusals(steps: &mut String, row: &Row) {
    // Their handlers take what comes, or have their own errors.
    const ODD: &[&str] = &[
        "/cad_pid",
        "/ns_last_pid",
        "/usermodehelper/",
        "/tainted",
        "/nf_conntrack_buckets",
        "/lowmem_reserve_ratio",
    ];
    let What::File { codec: Some(codec), scope: Scope::Global, write: WriteRule::Keep, .. } = &row.what
    else {
        return;
    };
    if row.mode & 0o200 == 0 || ODD.iter().any(|name| row.path.contains(name)) {
        return;
    }
    let Some((min, max)) = limits(codec) else { return };
    let ends = [min - 1, max + 1].map(|end| end.to_string());
    for text in ["junk", "-"].into_iter().chain(ends.iter().map(String::as_str)) {
        let _ = writeln!(steps, "set {} {}", row.path, escape(text));
    }
}

/// The least and the greatest number that can be written; `None` for text.
fn limits(codec: &Codec) -> Option<(i128, i128)> {
    Some(match codec {
        Codec::Int { min, max } | Codec::IntList { min, max, .. } => ((*min).into(), (*max).into()),
        Codec::Uint { min, max } => ((*min).into(), (*max).into()),
        Codec::Ulong { min, max } | Codec::UlongList { min, max, .. } => ((*min).into(), (*max).into()),
        Codec::Bool => (i32::MIN.into(), i32::MAX.into()),
        Codec::Str { .. } => return None,
    })
}

/// As the guest takes texts.
fn escape(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-+./_".contains(&byte);
    let shown = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("\\x{byte:02x}") };
    if text.is_empty() { "\\e".into() } else { text.bytes().map(shown).collect() }
}

fn writes(steps: &mut String, row: &Row) {
    let What::File { content: Content::Fixed(bytes), codec: Some(codec), rules, .. } = &row.what else {
        return;
    };
    let (path, value) = (&row.path, String::from_utf8_lossy(bytes));
    let mut texts =
        vec![String::new(), " ".into(), "\n".into(), "junk".into(), "-".into(), "0x".into(), "\0".into()];
    let ends =
        |min: i128, max: i128| [min - 1, min, min + 1, max - 1, max, max + 1].map(|end| end.to_string());
    match (codec, limits(codec)) {
        // Kept in ticks of the clock the kernel's values overflow; the row says 32 bits.
        _ if matches!(rules.rounding, Some(Rounding::Down(_))) => texts.extend(ends(1, 1_000_000)),
        (Codec::Bool, _) => texts.extend(ends(0, 1)),
        (Codec::Str { max }, _) if *max < 4000 => {
            texts.extend(["a b".into(), "x".repeat(*max), "x".repeat(max + 9)])
        }
        (Codec::Str { .. }, _) => texts.push("a b".into()),
        (_, limits) => texts.extend(limits.into_iter().flat_map(|(min, max)| ends(min, max))),
    }
    if !matches!(codec, Codec::Str { .. }) {
        let text = value.trim_end();
        texts.extend([
            format!(" {text} "),
            format!("{text} 7"),
            format!("{text} junk"),
            format!("{text}junk"),
        ]);
    }
    for text in &texts {
        let _ = writeln!(steps, "set {path} {}", escape(text));
    }
    let _ = writeln!(steps, "set {path} {}", escape(&value));
}

#[test]
fn every_sysctl_of_the_catalogue_is_as_the_kernels() {
    let catalogue = Loader::new().policy("linux").load().expect("the built-in policy is good");
    let mut rows = mirror::of(&catalogue).policy.rows;
    if !is_long() {
        // One row of the catalogue stands for each interface: here for the loopback interface, and for "all".
        rows.retain(|row| !row.path.contains("/default/") && !row.path.contains("/eth"));
    }
    let is_writing = is_root();
    if !is_writing {
        skip(
            "every_sysctl_of_the_catalogue_is_as_the_kernels (writing)",
            "namespaces with sysctls of their own need root",
        );
    }
    eprintln!("{} files of the catalogue are looked at", rows.len());
    let scratch = Scratch::new();
    let script = scratch.write("steps", &script(&rows, is_writing));
    let options: &[&[&str]] =
        if is_long() && is_writing { &[&["--carrier", "fuse"], &["--carrier", "memfd"]] } else { &[&[]] };
    let starter: &[&str] = if is_writing { &["unshare", "-n", "-i", "-u"] } else { &[] };
    for options in options {
        let (files, calls) = compared(&[starter, &[sysemu_program()]].concat(), options, &script);
        assert!(files > 500 && calls > 50 * files, "{files} files, {calls} calls");
    }
    if is_writing && writes_to_host() {
        let mut steps = String::new();
        rows.iter().for_each(|row| refusals(&mut steps, row));
        let (_, calls) = compared(&[sysemu_program()], &[], &scratch.write("refusals", &steps));
        assert!(calls > 1000, "{calls} calls");
    }
}

/// Runs the steps bare and under sysemu, and gives how many files were virtual and how many calls were compared.
fn compared(starter: &[&str], options: &[&str], script: &str) -> (u64, u64) {
    let guest = guest("steps");
    let words = [starter, &["diff", "--format", "json"], options, &["--", &guest, script]].concat();
    let outcome = Run::new(&words).limit(300).go();
    let report: serde_json::Value = serde_json::from_str(&outcome.stdout).expect(&outcome.stderr);
    let count = |name: &str| report[name].as_u64().unwrap_or(0);
    eprintln!(
        "{options:?}: {} files virtual, {} calls compared, {} differences declared, {} not; {} rows cannot be read",
        count("rows"),
        count("calls"),
        count("declared"),
        count("undeclared"),
        count("unreadable"),
    );
    assert_eq!(count("status"), 0, "{options:?}: not all steps were made");
    let differences = report["differences"].as_array().expect("a list");
    let undeclared: Vec<String> = differences
        .iter()
        .filter(|one| one["verdict"] == "undeclared")
        .take(60)
        .map(|one| format!("{} {}: {} -> {}", one["call"], one["field"], one["native"], one["emulated"]))
        .collect();
    assert_eq!(
        (outcome.status, undeclared.len()),
        (0, 0),
        "{}\n{}",
        report["refused"],
        undeclared.join("\n")
    );
    (count("rows"), count("calls"))
}
