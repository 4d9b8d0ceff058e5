//! The notify backend: seccomp user notification (seccomp_unotify(2)).
//!
//! Receivers block in the receive ioctl, because a call that is still queued can be interrupted by any
//! signal while one that was received completes (SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV). The kernel wakes
//! every thread that waits there for each call, so one more than needed costs a wake-up each time: only as
//! many as asked for wait there. A receiver whose call takes long is replaced by a standby, woken by a
//! watchdog that looks every few milliseconds while there are calls; when it is done it becomes a standby itself.

use std::cell::{Cell, RefCell};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::thread::Thread;
use std::time::Duration;

use nix::errno::Errno as OsErrno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::emulator::engine::{Answer, Engine};
use crate::emulator::errno::Errno;
use crate::emulator::sys::seccomp::{Listener, Notification};
use crate::emulator::sys::{OsResult, Spent, file, memory, process, spent};
use crate::emulator::tracee::Tracee;

/// Receivers are not grown beyond this.
const MAX_RECEIVERS: usize = 64;

/// How often the watchdog looks.
const TICK: Duration = Duration::from_millis(4);

/// Ticks that a call may take before its receiver is replaced.
const PATIENCE: u64 = 1;

/// Ticks without calls after which the watchdog sleeps until the next call.
const REST: u64 = 10;

/// How the listener is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotifyOptions {
    /// Threads that wait for calls at any time.
    pub receivers: usize,
    /// Whether to ask for synchronous wake-ups (Linux 6.6).
    pub sync_wake_up: bool,
}

impl Default for NotifyOptions {
    fn default() -> Self {
        NotifyOptions { receivers: 1, sync_wake_up: true }
    }
}

/// What the watchdog knows of one receiver.
#[derive(Default)]
struct Slot {
    /// The tick in which it took its call, plus one; 0 while it has none.
    since: AtomicU64,
    /// Somebody else waits in its place.
    is_replaced: AtomicBool,
}

/// Serves one listener until nobody uses its filter any more.
pub struct NotifyServer {
    listener: Listener,
    engine: Arc<Engine>,
    slots: Vec<Slot>,
    started: AtomicUsize,
    /// Standbys that were told to receive and have not begun.
    calls_for_standby: Mutex<usize>,
    standby: Condvar,
    standbys: AtomicUsize,
    tick: AtomicU64,
    watchdog: OnceLock<Thread>,
    watchdog_rests: AtomicBool,
    ended: AtomicBool,
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
        let mut slots = Vec::new();
        slots.resize_with(MAX_RECEIVERS, Slot::default);
        let server = Arc::new(NotifyServer {
            listener,
            engine,
            slots,
            started: AtomicUsize::new(0),
            calls_for_standby: Mutex::new(0),
            standby: Condvar::new(),
            standbys: AtomicUsize::new(0),
            tick: AtomicU64::new(1),
            watchdog: OnceLock::new(),
            watchdog_rests: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        });
        for _ in 0..options.receivers.clamp(1, MAX_RECEIVERS) {
            server.add_receiver()?;
        }
        let watched = server.clone();
        let watchdog = std::thread::Builder::new().name("watchdog".into()).spawn(move || watched.watch())?;
        let _ = server.watchdog.set(watchdog.thread().clone());
        Ok(server)
    }

    /// Waits a little until the calls being served are counted: an answer reaches the program before that.
    pub fn settle(&self) {
        let is_busy = || self.slots.iter().any(|slot| slot.since.load(Ordering::SeqCst) != 0);
        for _ in 0..100 {
            if !is_busy() {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Whether nobody uses the filter any more.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst) || is_hung_up(self.listener.as_fd())
    }

    fn add_receiver(self: &Arc<Self>) -> std::io::Result<()> {
        let number = self.started.fetch_add(1, Ordering::SeqCst);
        if number >= MAX_RECEIVERS {
            self.started.store(MAX_RECEIVERS, Ordering::SeqCst);
            return Err(std::io::Error::other("all receivers are busy"));
        }
        let server = self.clone();
        let spawned = std::thread::Builder::new()
            .name(format!("receiver-{number}"))
            .spawn(move || server.receive(number));
        spawned.map(drop)
    }

    /// Replaces receivers that have been busy for long. Ends with the filter's last user.
    fn watch(self: Arc<Self>) {
        let mut quiet = 0;
        while !self.ended.load(Ordering::SeqCst) {
            let now = self.tick.fetch_add(1, Ordering::SeqCst);
            let mut is_quiet = true;
            for slot in &self.slots {
                let since = slot.since.load(Ordering::SeqCst);
                is_quiet &= since == 0;
                if since != 0 && since + PATIENCE <= now && !slot.is_replaced.swap(true, Ordering::SeqCst) {
                    self.replace();
                }
            }
            quiet = if is_quiet { quiet + 1 } else { 0 };
            if quiet < REST {
                std::thread::sleep(TICK);
                continue;
            }
            self.watchdog_rests.store(true, Ordering::SeqCst);
            std::thread::park_timeout(Duration::from_secs(1));
            self.watchdog_rests.store(false, Ordering::SeqCst);
            quiet = 0;
        }
    }

    fn replace(self: &Arc<Self>) {
        if self.standbys.load(Ordering::SeqCst) > 0 {
            *self.calls_for_standby.lock().unwrap_or_else(PoisonError::into_inner) += 1;
            self.standby.notify_one();
        } else if let Err(error) = self.add_receiver() {
            // Calls wait until a receiver is done: slow, not wrong.
            tracing::debug!("no further receiver: {error}");
        }
    }

    /// Waits until a receiver is to be replaced, or there is nobody left to serve.
    fn stand_by(&self) {
        self.standbys.fetch_add(1, Ordering::SeqCst);
        let mut calls = self.calls_for_standby.lock().unwrap_or_else(PoisonError::into_inner);
        while *calls == 0 && !self.ended.load(Ordering::SeqCst) {
            calls = self.standby.wait(calls).unwrap_or_else(PoisonError::into_inner);
        }
        *calls = calls.saturating_sub(1);
        self.standbys.fetch_sub(1, Ordering::SeqCst);
    }

    fn receive(self: Arc<Self>, number: usize) {
        let slot = &self.slots[number];
        loop {
            let before = spent();
            match self.listener.receive() {
                Ok(call) => {
                    slot.since.store(self.tick.load(Ordering::SeqCst) + 1, Ordering::SeqCst);
                    if self.watchdog_rests.swap(false, Ordering::SeqCst)
                        && let Some(watchdog) = self.watchdog.get()
                    {
                        watchdog.unpark();
                    }
                    self.serve(&call, before);
                    slot.since.store(0, Ordering::SeqCst);
                    if slot.is_replaced.swap(false, Ordering::SeqCst) {
                        self.stand_by();
                    }
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
        let calls = self.calls_for_standby.lock().unwrap_or_else(PoisonError::into_inner);
        self.ended.store(true, Ordering::SeqCst);
        drop(calls);
        self.standby.notify_all();
    }

    fn serve(&self, call: &Notification, before: Spent) {
        let answer =
            NotifyAnswer { server: self, call, given: Cell::new(false), duplicate: RefCell::new(None) };
        self.engine.serve(call, &answer, before);
    }
}

fn is_hung_up(listener: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(listener, PollFlags::empty())];
    let polled = poll(&mut fds, PollTimeout::ZERO);
    polled.is_ok() && fds[0].revents().is_some_and(|events| events.contains(PollFlags::POLLHUP))
}

/// Answers one notification exactly once: dropped without an answer, it lets the call through.
struct NotifyAnswer<'s> {
    server: &'s NotifyServer,
    call: &'s Notification,
    given: Cell<bool>,
    /// A descriptor of the caller, and the supervisor's duplicate of it.
    duplicate: RefCell<Option<(i32, OwnedFd)>>,
}

impl NotifyAnswer<'_> {
    fn give(&self, sent: OsResult<()>) -> OsResult<()> {
        // EINPROGRESS cannot occur with one answer; any other failure leaves nobody who waits.
        self.given.set(true);
        sent
    }

    /// Does something with a duplicate of one of the caller's descriptors, which is made once for each call.
    fn with_duplicate<T>(&self, fd: i32, act: impl FnOnce(BorrowedFd<'_>) -> OsResult<T>) -> OsResult<T> {
        let mut duplicate = self.duplicate.borrow_mut();
        if duplicate.as_ref().is_none_or(|(of, _)| *of != fd) {
            let tid = self.call.tid;
            let pidfd = process::pidfd_open_thread(tid).or_else(|_| {
                // Before Linux 6.9 only a leader can be named; threads share its descriptors but for rare exceptions.
                let task = self.server.engine.emulator.resolver.views.task(tid)?;
                process::pidfd_open_thread(task.status.tgid)
            })?;
            *duplicate = Some((fd, process::pidfd_getfd(pidfd.as_fd(), fd).map_err(|_| OsErrno::EBADF)?));
        }
        match duplicate.as_ref() {
            Some((_, duplicate)) => act(duplicate.as_fd()),
            None => Err(OsErrno::EBADF),
        }
    }
}

impl Tracee for NotifyAnswer<'_> {
    fn seek(&self, fd: i32, offset: i64, whence: i32) -> OsResult<i64> {
        self.with_duplicate(fd, |duplicate| file::seek(duplicate, offset, whence))
    }

    fn watch(&self, inotify: i32, target: BorrowedFd<'_>, mask: u32) -> OsResult<i32> {
        let path = file::self_fd_path(target);
        self.with_duplicate(inotify, |duplicate| file::inotify_add_watch(duplicate, &path, mask))
    }

    /// A listener has one filter, which traps them from the start.
    fn watch_looks(&self) {}
}

impl Answer for NotifyAnswer<'_> {
    fn backend(&self) -> &'static str {
        "notify"
    }

    fn is_valid(&self) -> bool {
        self.server.listener.is_valid(self.call.id)
    }

    fn store(&self, addr: u64, bytes: &[u8]) -> OsResult<()> {
        if !self.is_valid() {
            return Err(OsErrno::ENOENT);
        }
        memory::write(self.call.tid, addr, bytes)
    }

    fn resume(&self) -> OsResult<()> {
        self.give(self.server.listener.send_continue(self.call.id))
    }

    fn value(&self, value: i64) -> OsResult<()> {
        self.give(self.server.listener.send_value(self.call.id, value))
    }

    fn errno(&self, errno: Errno) -> OsResult<()> {
        self.give(self.server.listener.send_error(self.call.id, errno.raw()))
    }

    fn fd(&self, fd: BorrowedFd<'_>, close_on_exec: bool) -> OsResult<()> {
        let sent = self.server.listener.send_fd(self.call.id, fd, close_on_exec);
        // A full table answers nothing: the caller still waits for its errno.
        match sent {
            Ok(()) | Err(OsErrno::ENOENT) => self.give(sent),
            Err(_) => sent,
        }
    }
}

impl Drop for NotifyAnswer<'_> {
    fn drop(&mut self) {
        if !self.given.get() && self.server.listener.send_continue(self.call.id).is_ok() {
            tracing::warn!("a call was left without an answer and let through");
        }
    }
}
