//! Written values kept in a file from one run to the next.
//!
//! One line each, between a head and a count, so that a file that was cut or changed is noticed. Only values of the
//! namespaces that the program starts in are kept: others end with their namespaces.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::object::{Object, ObjectKind};
use super::store::Store;
use super::write::is_writable;
use crate::policy::What;

const HEAD: &str = "sysemu-state 1";

/// Why a state file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// It cannot be read.
    #[error("cannot read the state file {0}: {1}")]
    Read(PathBuf, io::Error),
    /// It does not hold what sysemu wrote.
    #[error(
        "the state file {path} is damaged in line {line}: {why}; it is left as it is, and nothing was started"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// 1-based line.
        line: usize,
        /// What is wrong there.
        why: String,
    },
}

/// A state file.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
    /// Values for files that no row makes writable now; kept for a policy that does.
    unused: Vec<(String, Vec<u8>)>,
}

impl StateFile {
    /// Sets the values of a file. One that does not exist has none.
    ///
    /// # Errors
    /// See [`StateError`]; no value was set then.
    pub fn restore(path: &Path, store: &Store) -> Result<Self, StateError> {
        // Absolute, because the supervisor leaves the directory that it was started in.
        let path = std::path::absolute(path).map_err(|error| StateError::Read(path.into(), error))?;
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(StateFile { path, unused: Vec::new() });
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(StateError::Damaged { path, line: 1, why: "it is no text".into() });
            }
            Err(error) => return Err(StateError::Read(path, error)),
        };
        let values =
            parse(&text).map_err(|(line, why)| StateError::Damaged { path: path.clone(), line, why })?;
        let mut good = Vec::new();
        let mut unused = Vec::new();
        for (line, key, content) in values {
            match store.object(&key).filter(is_writable) {
                None => {
                    tracing::info!(path = %key, "no row makes this writable now: its kept value is not used");
                    unused.push((key, content));
                }
                Some(object) if fits(&object, &content) => good.push((object, content)),
                Some(_) => {
                    let why = format!("{key} cannot have the value \"{}\"", encode(&content));
                    return Err(StateError::Damaged { path, line, why });
                }
            }
        }
        for (object, content) in good {
            store.values.set(&object.key, store.scope_of(&object, 0), Bytes::from(content));
        }
        Ok(StateFile { path, unused })
    }

    /// Writes the values of now in place of those in the file: all or, when that fails, none.
    ///
    /// # Errors
    /// As the calls for it; the old file is still there then.
    pub fn save(&self, store: &Store) -> io::Result<()> {
        let mut lines: Vec<(String, Vec<u8>)> = self.unused.clone();
        for value in store.values.all() {
            let Some(object) = store.object(&value.key) else { continue };
            if store.scope_of(&object, 0) == value.scope {
                lines.push((value.key, value.content.to_vec()));
            }
        }
        let mut text = format!("{HEAD}\n");
        for (key, content) in &lines {
            let _ = writeln!(text, "{} \"{}\"", encode(key.as_bytes()), encode(content));
        }
        let _ = writeln!(text, "end {}", lines.len());
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let fresh = folder.join(format!(".{name}.{}", std::process::id()));
        let written = write_new(&fresh, text.as_bytes()).and_then(|()| fs::rename(&fresh, &self.path));
        if written.is_err() {
            let _ = fs::remove_file(&fresh);
        }
        written?;
        // The name must last as well as the content.
        File::open(folder)?.sync_all()
    }
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Whether a value is one that the file's row could have come to.
fn fits(object: &Object, content: &[u8]) -> bool {
    let ObjectKind::File(row) = &object.kind else { return false };
    match &row.what {
        What::File { codec: Some(codec), .. } => match std::str::from_utf8(content) {
            Ok(text) => codec.canonical(text).is_ok_and(|shown| shown == text),
            // Strings can hold any bytes.
            Err(_) => codec.honours_offset() && content.ends_with(b"\n"),
        },
        What::File { codec: None, .. } => true,
        _ => false,
    }
}

type Line = (usize, String, Vec<u8>);

fn parse(text: &str) -> Result<Vec<Line>, (usize, String)> {
    let mut lines = text.lines().enumerate().map(|(at, line)| (at + 1, line));
    match lines.next() {
        Some((_, HEAD)) => {}
        _ => return Err((1, format!("it does not begin with \"{HEAD}\""))),
    }
    let mut values = Vec::new();
    let mut last = 1;
    for (number, line) in lines.by_ref() {
        last = number;
        if let Some(count) = line.strip_prefix("end ") {
            if count.parse() != Ok(values.len()) {
                return Err((number, format!("there are {} values, not {count}", values.len())));
            }
            return match lines.next() {
                Some((number, _)) => Err((number, "something follows the end".into())),
                None if !text.ends_with('\n') => Err((number, "the line is cut".into())),
                None => Ok(values),
            };
        }
        let value = line.strip_suffix('"').and_then(|line| line.split_once(" \""));
        let decoded = value.and_then(|(key, content)| Some((decode(key)?, decode(content)?)));
        let Some((key, content)) = decoded else {
            return Err((number, "it is no path and value".into()));
        };
        match String::from_utf8(key) {
            Ok(key) if key.starts_with('/') => values.push((number, key, content)),
            _ => return Err((number, "it does not begin with a path".into())),
        }
    }
    Err((last, "the end is missing".into()))
}

/// Bytes as visible ASCII without blanks in names and without quotes: `\xNN` stands for the others.
fn encode(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        match byte {
            b'\n' => text.push_str("\\n"),
            b'\t' => text.push_str("\\t"),
            b'\\' | b'"' => {
                let _ = write!(text, "\\x{byte:02x}");
            }
            b' '..=b'~' => text.push(char::from(*byte)),
            _ => {
                let _ = write!(text, "\\x{byte:02x}");
            }
        }
        text
    })
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = match (first, after) {
            (b'\\', [b'n', after @ ..]) => {
                bytes.push(b'\n');
                after
            }
            (b'\\', [b't', after @ ..]) => {
                bytes.push(b'\t');
                after
            }
            (b'\\', [b'x', high, low, after @ ..]) if high.is_ascii_hexdigit() => {
                let digits = [*high, *low];
                bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
                after
            }
            (b' '..=b'~', after) if *first != b'\\' && *first != b'"' => {
                bytes.push(*first);
                after
            }
            _ => return None,
        };
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_survive() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(decode(&encode(&all)), Some(all));
        assert_eq!(decode("\\x+1"), None);
    }

    #[test]
    fn damage_is_found_with_its_line() {
        let good = "sysemu-state 1\n/proc/sys/a \"1\\n\"\n/proc/sys/b \"x\"\nend 2\n";
        assert_eq!(parse(good).map(|values| values.len()), Ok(2));
        for (damaged, line) in [
            ("", 1),
            ("state\n", 1),
            ("sysemu-state 1\n", 1),
            ("sysemu-state 1\n/proc/sys/a \"1\\n\nend 1\n", 2),
            ("sysemu-state 1\n/proc/sys/a \"1\\n\"\nend 2\n", 3),
            ("sysemu-state 1\n/proc/sys/a \"1\\n\"\n", 2),
            ("sysemu-state 1\nend 0\nx\n", 3),
            ("sysemu-state 1\nend 0", 2),
            ("sysemu-state 1\nx \"1\"\nend 1\n", 2),
        ] {
            assert_eq!(parse(damaged).map_err(|(line, _)| line), Err(line), "{damaged:?}");
        }
        for cut in 0..good.len() {
            assert!(parse(&good[..cut]).is_err(), "{cut}");
        }
    }
}
