//! What is wrong with a policy, and where.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::Origin;

/// The text of one policy file, for turning byte offsets into lines and columns.
#[derive(Debug)]
pub struct Source {
    name: Arc<str>,
    text: String,
    line_starts: Vec<usize>,
}

impl Source {
    /// A file of this name with this text.
    pub fn new(name: &str, text: String) -> Self {
        let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        let line_starts = std::iter::once(0).chain(breaks).collect();
        Source { name: name.into(), text, line_starts }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Where a byte range starts.
    pub fn origin(&self, span: &Range<usize>) -> Origin {
        let at = span.start.min(self.text.len());
        let line = self.line_starts.partition_point(|start| *start <= at);
        let start = self.line_starts[line - 1];
        let column = self.text.get(start..at).map_or(0, |before| before.chars().count()) + 1;
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Origin { file: self.name.clone(), line: number(line), column: number(column) }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Where.
    pub origin: Origin,
    /// What, and how to mend it: lower case, without full stop.
    pub message: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Origin { file, line, column } = &self.origin;
        match line {
            0 => write!(f, "{file}: {}", self.message),
            line => write!(f, "{file}:{line}:{column}: {}", self.message),
        }
    }
}

/// Everything that is wrong with a set of policies; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyError {
    /// In the order found.
    pub diagnostics: Vec<Diagnostic>,
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.diagnostics.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            fmt::Display::fmt(diagnostic, f)?;
        }
        Ok(())
    }
}

impl std::error::Error for PolicyError {}

/// Collects diagnostics.
#[derive(Debug, Default)]
pub struct Report {
    diagnostics: Vec<Diagnostic>,
}

impl Report {
    /// Adds one.
    pub fn add(&mut self, origin: Origin, message: impl Into<String>) {
        self.diagnostics.push(Diagnostic { origin, message: message.into() });
    }

    /// The value, unless something was wrong.
    ///
    /// # Errors
    /// Everything that was added.
    pub fn finish<T>(self, value: T) -> Result<T, PolicyError> {
        if self.diagnostics.is_empty() {
            return Ok(value);
        }
        let mut diagnostics = self.diagnostics;
        diagnostics.sort_by(|a, b| {
            (&a.origin.file, a.origin.line, a.origin.column).cmp(&(
                &b.origin.file,
                b.origin.line,
                b.origin.column,
            ))
        });
        diagnostics.dedup();
        Err(PolicyError { diagnostics })
    }
}

/// The known word nearest to a mistyped one, when one is near enough to be meant.
pub fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let scored = known.into_iter().map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate));
    let (distance, candidate) = scored.min()?;
    (distance <= (word.len().max(candidate.len()) / 3).max(2)).then_some(candidate)
}

/// `; did you mean "x"?` or nothing.
pub fn hint<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> String {
    nearest(word, known).map_or_else(String::new, |near| format!("; did you mean \"{near}\"?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters() {
        let source = Source::new("f", "aé = 1\nxy".into());
        let place = |at: usize| {
            let origin = source.origin(&(at..at));
            (origin.line, origin.column)
        };
        assert_eq!(place(0), (1, 1));
        assert_eq!(place(4), (1, 4));
        assert_eq!(place(9), (2, 2));
        assert_eq!(place(999), (2, 3));
    }

    #[test]
    fn hints_only_at_what_is_near() {
        assert_eq!(hint("scpoe", ["scope", "mode"]), "; did you mean \"scope\"?");
        assert_eq!(hint("zzzzzzzz", ["scope", "mode"]), "");
    }
}
