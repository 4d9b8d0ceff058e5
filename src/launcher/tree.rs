//! Ending a process tree whose processes are all descendants of this one.

use std::time::Duration;

use nix::errno::Errno as OsErrno;

use crate::emulator::sys::wait;

/// Kills and reaps every child until there is none. The orphans of each become children of this process,
/// which has to be a subreaper (PR_SET_CHILD_SUBREAPER), so the whole tree ends.
pub(super) fn kill_all() {
    loop {
        for child in children() {
            let _ = wait::kill(child, libc::SIGKILL);
        }
        match wait::wait(wait::ANY, libc::__WALL | libc::WNOHANG) {
            Ok(Some(_)) | Err(OsErrno::EINTR) => {}
            // Not without end: a tracer in another thread hears of ends too, and then new orphans are here to be killed.
            Ok(None) => std::thread::sleep(Duration::from_millis(1)),
            Err(_) => return,
        }
    }
}

/// The children of this process: by its own list, or by everybody's parent on kernels without that list.
fn children() -> Vec<i32> {
    let own = std::process::id();
    if let Ok(tasks) = std::fs::read_dir("/proc/self/task") {
        let lists: Vec<String> = tasks
            .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("children")).ok())
            .collect();
        if !lists.is_empty() {
            return lists
                .iter()
                .flat_map(|list| list.split_whitespace())
                .filter_map(|pid| pid.parse().ok())
                .collect();
        }
    }
    let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
    let child = |name: &str| -> Option<i32> {
        let pid = name.parse().ok()?;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let parent: u32 = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
        (parent == own).then_some(pid)
    };
    processes.filter_map(|entry| child(entry.ok()?.file_name().to_str()?)).collect()
}
