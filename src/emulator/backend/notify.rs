//! The notify backend: seccomp user notification (seccomp_unotify(2)).
//!
//! Several receivers block in the receive ioctl, because a call that is still queued can be interrupted by
//! any signal while one that was received completes (SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV). When the last
//! idle receiver takes a call, another one is started, up to a limit, so that calls that take long do not
//! keep others waiting.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use nix::errno::Errno as OsErrno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::emulator::engine::{Answer, Engine};
use crate::emulator::errno::Errno;
use crate::emulator::sys::seccomp::{Listener, Notification};
use crate::emulator::sys::{OsResult, entries};

/// Receivers are not grown beyond this.
const MAX_RECEIVERS: usize = 64;

/// Serves one listener until nobody uses its filter any more.
pub struct NotifyServer {
    listener: Listener,
    engine: Arc<Engine>,
    idle: AtomicUsize,
    receivers: AtomicUsize,
    grow: bool,
    ended: AtomicBool,
}

/// How the listener is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotifyOptions {
    /// Receivers at the start.
    pub receivers: usize,
    /// Whether receivers are added when all are busy.
    pub grow: bool,
    /// Whether to ask for synchronous wake-ups (Linux 6.6).
    pub sync_wake_up: bool,
}

impl Default for NotifyOptions {
    fn default() -> Self {
        NotifyOptions { receivers: 1, grow: true, sync_wake_up: true }
    }
}

impl NotifyServer {
    /// Starts serving.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(
        listener: Listener,
        engine: Arc<Engine>,
        options: NotifyOptions,
    ) -> std::io::Result<Arc<Self>> {
        if options.sync_wake_up
            && let Err(errno) = listener.set_sync_wake_up()
        {
            tracing::info!("no synchronous wake-ups: {errno}");
        }
        let server = Arc::new(NotifyServer {
            listener,
            engine,
            idle: AtomicUsize::new(0),
            receivers: AtomicUsize::new(0),
            grow: options.grow,
            ended: AtomicBool::new(false),
        });
        for _ in 0..options.receivers.max(1) {
            server.add_receiver()?;
        }
        Ok(server)
    }

    /// Whether nobody uses the filter any more.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst) || is_hung_up(self.listener.as_fd())
    }

    fn add_receiver(self: &Arc<Self>) -> std::io::Result<()> {
        let number = self.receivers.fetch_add(1, Ordering::SeqCst);
        self.idle.fetch_add(1, Ordering::SeqCst);
        let server = self.clone();
        let started =
            std::thread::Builder::new().name(format!("receiver-{number}")).spawn(move || server.receive());
        if started.is_err() {
            self.receivers.fetch_sub(1, Ordering::SeqCst);
            self.idle.fetch_sub(1, Ordering::SeqCst);
        }
        started.map(drop)
    }

    fn receive(self: Arc<Self>) {
        loop {
            let entered = entries();
            match self.listener.receive() {
                Ok(call) => {
                    let was_last_idle = self.idle.fetch_sub(1, Ordering::SeqCst) == 1;
                    if was_last_idle && self.grow && self.receivers.load(Ordering::SeqCst) < MAX_RECEIVERS {
                        // Without another receiver the calls wait for this one; that is slow, not wrong.
                        let _ = self.add_receiver();
                    }
                    self.serve(&call, entered);
                    self.idle.fetch_add(1, Ordering::SeqCst);
                }
                Err(OsErrno::EINTR) => {}
                // The caller died or took a signal between wake-up and receive; or there is no caller left.
                Err(OsErrno::ENOENT) => {
                    if is_hung_up(self.listener.as_fd()) {
                        break;
                    }
                    self.engine.stats.add_interrupted();
                }
                Err(errno) => {
                    tracing::error!("cannot receive calls: {errno}");
                    break;
                }
            }
        }
        self.ended.store(true, Ordering::SeqCst);
    }

    fn serve(&self, call: &Notification, entered: u64) {
        let answer = NotifyAnswer { listener: &self.listener, id: call.id, given: AtomicBool::new(false) };
        self.engine.serve(call, &answer, entered);
    }
}

fn is_hung_up(listener: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(listener, PollFlags::empty())];
    let polled = poll(&mut fds, PollTimeout::ZERO);
    polled.is_ok() && fds[0].revents().is_some_and(|events| events.contains(PollFlags::POLLHUP))
}

/// Answers one notification exactly once: dropped without an answer, it lets the call through.
struct NotifyAnswer<'l> {
    listener: &'l Listener,
    id: u64,
    given: AtomicBool,
}

impl NotifyAnswer<'_> {
    fn give(&self, sent: OsResult<()>) -> OsResult<()> {
        // EINPROGRESS cannot occur with one answer; any other failure leaves nobody who waits.
        self.given.store(true, Ordering::Relaxed);
        sent
    }
}

impl Answer for NotifyAnswer<'_> {
    fn is_valid(&self) -> bool {
        self.listener.is_valid(self.id)
    }

    fn resume(&self) -> OsResult<()> {
        self.give(self.listener.send_continue(self.id))
    }

    fn value(&self, value: i64) -> OsResult<()> {
        self.give(self.listener.send_value(self.id, value))
    }

    fn errno(&self, errno: Errno) -> OsResult<()> {
        self.give(self.listener.send_error(self.id, errno.raw()))
    }

    fn fd(&self, fd: BorrowedFd<'_>, close_on_exec: bool) -> OsResult<()> {
        let sent = self.listener.send_fd(self.id, fd, close_on_exec);
        // A full table answers nothing: the caller still waits for its errno.
        match sent {
            Ok(()) | Err(OsErrno::ENOENT) => self.give(sent),
            Err(_) => sent,
        }
    }
}

impl Drop for NotifyAnswer<'_> {
    fn drop(&mut self) {
        if !self.given.load(Ordering::Relaxed) && self.listener.send_continue(self.id).is_ok() {
            tracing::warn!("a call was left without an answer and let through");
        }
    }
}
