//! What the programs of a judge print, as results of single tests.

use std::collections::BTreeMap;

use serde::Deserialize;

/// The name under which a program's own end is compared.
pub const EXIT: &str = "(exit)";

/// Results by test: the test's name in its program, and the program's word for how it went.
pub type Results = BTreeMap<String, String>;

/// How a program reports its tests.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// Its exit status only.
    Status,
    /// The Linux Test Project: `file.c:12: TPASS: text`, or `name 1 TPASS : text` in its older programs.
    Ltp,
    /// TAP, of pjdfstest and the kernel's selftests: `ok 1 - text`.
    Tap,
    /// `fixtures/judges/each_test.py`: name, tabulator, word.
    Unittest,
    /// `go test -v`: `--- PASS: TestName (0.00s)`.
    Go,
    /// stress-ng: what it calls a failure.
    StressNg,
}

impl Format {
    /// Reads the output of a program that ended with this status. Several results of one name are counted.
    pub fn read(self, output: &str, status: &str) -> Results {
        let mut counts: BTreeMap<String, BTreeMap<String, usize>> = BTreeMap::new();
        for (test, word) in output.lines().filter_map(|line| self.line(line)) {
            *counts.entry(test).or_default().entry(word).or_default() += 1;
        }
        let told = |words: BTreeMap<String, usize>| {
            let one =
                |(word, times): (String, usize)| if times == 1 { word } else { format!("{times} {word}") };
            words.into_iter().map(one).collect::<Vec<_>>().join(", ")
        };
        let mut results: Results = counts.into_iter().map(|(test, words)| (test, told(words))).collect();
        results.insert(EXIT.to_owned(), status.to_owned());
        results
    }

    /// Whether a bare run has told anything that another one could differ from.
    ///
    /// # Errors
    ///
    /// What it lacks.
    pub fn has_told(self, bare: &Results) -> Result<(), String> {
        match self {
            Format::Unittest | Format::Go if bare.len() == 1 => {
                Err(format!("it ended with {} and reported no test", bare[EXIT]))
            }
            Format::StressNg if bare[EXIT] != "0" => Err(format!("it ended with {}", bare[EXIT])),
            _ => Ok(()),
        }
    }

    /// The test and the result in a line that has one.
    fn line(self, line: &str) -> Option<(String, String)> {
        match self {
            Format::Status => None,
            Format::Ltp => ltp(line),
            Format::Tap => tap(line),
            Format::Unittest => {
                let (test, word) = line.split_once('\t')?;
                Some((test.to_owned(), word.to_owned()))
            }
            Format::Go => {
                let (word, rest) = line.trim_start().strip_prefix("--- ")?.split_once(": ")?;
                Some((rest.split_once(" (")?.0.to_owned(), word.to_owned()))
            }
            Format::StressNg => {
                // stress-ng: fail:  [123] open: text
                let (_, rest) = line.strip_prefix("stress-ng: fail:")?.split_once("] ")?;
                let (stressor, text) = rest.split_once(':')?;
                Some((stressor.trim().to_owned(), text.trim().to_owned()))
            }
        }
    }
}

fn ltp(line: &str) -> Option<(String, String)> {
    let verdict = |word: &str| ["TPASS", "TFAIL", "TBROK", "TCONF", "TWARN"].contains(&word);
    let first = |text: &str| text.split([' ', ':']).next().unwrap_or("").to_owned();
    if let Some((place, rest)) = line.split_once(": ")
        && place.contains(".c:")
        && verdict(&first(rest))
    {
        return Some((place.to_owned(), first(rest)));
    }
    let mut words = line.split_whitespace();
    let (name, number, word) = (words.next()?, words.next()?, words.next()?);
    let is_numbered = number.parse::<u32>().is_ok();
    (is_numbered && verdict(word)).then(|| (format!("{name} {number}"), word.to_owned()))
}

fn tap(line: &str) -> Option<(String, String)> {
    let line = line.trim_start_matches(['#', ' ']);
    let (word, rest) = match line.strip_prefix("not ok ") {
        Some(rest) => ("not ok", rest),
        None => ("ok", line.strip_prefix("ok ")?),
    };
    let number: String = rest.chars().take_while(char::is_ascii_digit).collect();
    let (text, note) = rest[number.len()..].split_once('#').unwrap_or((&rest[number.len()..], ""));
    let is_skipped = note.trim_start().to_ascii_uppercase().starts_with("SKIP");
    // The kernel's harness tells `fixture.test`; other texts depend on the result, so that the number is the name.
    let mut words = text.split_whitespace();
    let name = words.next().filter(|word| words.next().is_none() && word.contains('.'));
    let test = name.map_or_else(|| number.clone(), |name| format!("{number} {name}"));
    (!number.is_empty()).then(|| (test, if is_skipped { "skipped" } else { word }.to_owned()))
}
