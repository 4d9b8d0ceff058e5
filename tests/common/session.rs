//! A sandbox that runs many programs one after another: starting it costs a second, a program in it milliseconds.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::{Value, json};

use super::gvisor::{Sandbox, Setup};
use super::{Outcome, Run, Scratch};

/// How much longer than its program's limit an answer may take.
const GRACE: Duration = Duration::from_secs(30);

/// The sandbox with `fixtures/guests/agent.py` in it.
pub struct Session {
    sandbox: Sandbox,
    child: Child,
    /// `None` once the sandbox is to end.
    jobs: Option<ChildStdin>,
    answers: Receiver<String>,
    _scratch: Scratch,
}

impl Session {
    /// A sandbox of this kind that waits for programs.
    pub fn new(setup: Setup) -> Self {
        let words = ["python3", concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/guests/agent.py")];
        let sandbox = Sandbox::new(setup).without_static().command(&words).limit(10);
        let scratch = Scratch::new();
        let mut child = sandbox.start(&scratch);
        let jobs = child.stdin.take();
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let (sender, answers) = channel();
        std::thread::spawn(move || {
            lines.map_while(Result::ok).try_for_each(|line| sender.send(line)).ok();
        });
        super::gvisor::reader(child.stderr.take().expect("piped"));
        Session { sandbox, child, jobs, answers, _scratch: scratch }
    }

    /// What a program did; the reason when there is none, after which the session cannot be used any more.
    ///
    /// # Errors
    /// It took too long, or the sandbox ended.
    pub fn go(&mut self, run: &Run) -> Result<Outcome, String> {
        let environment: serde_json::Map<String, Value> =
            run.environment.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        let job = json!({
            "words": run.words,
            "input": run.input,
            "directory": run.directory,
            "environment": environment,
            "limit": run.limit.as_secs(),
        });
        let jobs = self.jobs.as_mut().ok_or("the session is over")?;
        writeln!(jobs, "{job}").map_err(|error| format!("the sandbox takes no more programs: {error}"))?;
        let line = self
            .answers
            .recv_timeout(run.limit + GRACE)
            .map_err(|error| format!("no answer from the sandbox: {error}: {:?}", run.words))?;
        let answer: Value = serde_json::from_str(&line).map_err(|error| format!("{line}: {error}"))?;
        let text = |name: &str| answer[name].as_str().map(str::to_owned);
        let status = answer["status"].as_i64().and_then(|status| i32::try_from(status).ok());
        match (text("stdout"), text("stderr"), status) {
            (Some(stdout), Some(stderr), Some(status)) => Ok(Outcome { stdout, stderr, status }),
            _ => Err(format!("hung: {:?}", run.words)),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // The agent ends when there is nothing more to read, and the sandbox with it; else it is killed.
        drop(self.jobs.take());
        self.sandbox.wait(&mut self.child);
    }
}
