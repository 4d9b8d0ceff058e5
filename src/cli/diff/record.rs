//! What is kept of one call: a line of JSON in the log of a run.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// One call of a program, with everything in it that can be compared between two runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The task by its descent: `0` is the program, `0.2` the second task that it made.
    pub task: String,
    /// Name of the call.
    pub call: String,
    /// Its arguments as text, pointers left out.
    pub args: Vec<String>,
    /// The absolute path that it is about, links not followed.
    pub object: String,
    /// The descriptor that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fd: Option<i32>,
    /// The number or the errno's name.
    pub result: String,
    /// What it stored, field by field.
    pub out: BTreeMap<String, String>,
}

impl Record {
    /// A record without arguments.
    pub fn about(task: &str, call: &str, result: String) -> Self {
        let (task, call, object) = (task.to_owned(), call.to_owned(), String::new());
        Record { task, call, args: Vec::new(), object, fd: None, result, out: BTreeMap::new() }
    }

    /// What makes two records the same call of two runs.
    pub fn is_same_call(&self, other: &Record) -> bool {
        self.call == other.call && self.args == other.args
    }

    /// As a program would write it.
    pub fn shown(&self) -> String {
        if self.args.is_empty() {
            self.call.clone()
        } else {
            format!("{}({})", self.call, self.args.join(", "))
        }
    }
}

/// Reads a log.
///
/// # Errors
/// As reading the file; InvalidData for a line that is no record.
pub fn load(path: &Path) -> io::Result<Vec<Record>> {
    let text = std::fs::read_to_string(path)?;
    text.lines().map(|line| serde_json::from_str(line).map_err(io::Error::from)).collect()
}
