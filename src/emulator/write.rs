//! Writing virtual files: the codec, then what the row demands, then the value and what follows from it.

use bytes::Bytes;

use super::codec::write::{Written, write_text};
use super::errno::Errno;
use super::object::{Object, ObjectKind};
use super::scope::{self, ScopeId};
use super::store::Store;
use super::sys::file;
use super::sys::{OsResult, process, tape};
use crate::emulator::tree::Entry;
use crate::policy::{Reversed, Rounding, Row, Scope, What, When, WriteRule, WriteRules};
use nix::errno::Errno as OsErrno;
use nix::sched::{CloneFlags, setns};
use std::os::fd::{AsFd, OwnedFd};

/// Whether a file can be opened for writing, permission aside.
pub fn is_writable(object: &Object) -> bool {
    match &object.kind {
        ObjectKind::File(row) => matches!(&row.what, What::File { write, .. } if *write != WriteRule::Deny),
        _ => false,
    }
}

/// The file whose written value shows in an object.
fn followed<'r>(object: &Object, rules: &'r WriteRules) -> Option<&'r str> {
    let is_excepted = |name| rules.except.iter().any(|except| except == name);
    rules.follows.as_deref().filter(|_| !object.key.split('/').any(is_excepted))
}

fn refused(errno: Errno) -> Written {
    Written { content: None, result: Err(errno), moves: false }
}

impl Store {
    /// The scope that an open file is bound to; `None` for values that belong to whoever reads or writes.
    pub fn bound_scope(&self, object: &Object, tid: u32) -> Option<ScopeId> {
        let ObjectKind::File(row) = &object.kind else { return Some(scope::GLOBAL) };
        match row.what {
            What::File { scope: Scope::Uts, .. } => None,
            What::File { scope, .. } => Some(self.scope(scope, tid)),
            _ => Some(scope::GLOBAL),
        }
    }

    /// The namespace of a task; the supervisor's for a task that is gone or not to be seen.
    pub fn scope(&self, scope: Scope, tid: u32) -> ScopeId {
        let own = || scope::of(&self.views, tape::own_process(), scope).unwrap_or(scope::GLOBAL);
        if tid == 0 {
            return own();
        }
        scope::of(&self.views, tid, scope).unwrap_or_else(|_| own())
    }

    /// Whether what a file shows may come from a write, to it or elsewhere.
    pub fn has_written(&self, object: &Object) -> bool {
        let ObjectKind::File(row) = &object.kind else { return false };
        let What::File { rules, .. } = &row.what else { return false };
        self.values.is_used()
            && [Some(&*object.key), Some(row.path.as_str()), followed(object, rules)]
                .iter()
                .flatten()
                .any(|key| self.values.has(key))
    }

    /// What was written to a file, or shows in it because it was written elsewhere.
    pub fn written(&self, object: &Object, row: &Row, tid: u32, bound: Option<ScopeId>) -> Option<Bytes> {
        let What::File { scope, rules, .. } = &row.what else { return None };
        let follows = followed(object, rules);
        let keys = [&*object.key, row.path.as_str()];
        if !self.has_written(object) {
            return None;
        }
        let scope = bound.unwrap_or_else(|| self.scope(*scope, tid));
        let own = keys.iter().filter_map(|key| self.values.get(key, scope));
        let value = own.max_by_key(|(order, _)| *order);
        let value = value.or_else(|| self.values.get(follows?, scope));
        value.map(|(_, content)| content)
    }

    /// The namespace of a task that values of a file belong to.
    pub fn scope_of(&self, object: &Object, tid: u32) -> ScopeId {
        match &object.kind {
            ObjectKind::File(row) => match row.what {
                What::File { scope, .. } => self.scope(scope, tid),
                _ => scope::GLOBAL,
            },
            _ => scope::GLOBAL,
        }
    }

    /// Whether a task has the capability that a row asks of writers.
    pub fn may_write(&self, object: &Object, tid: u32) -> bool {
        let ObjectKind::File(row) = &object.kind else { return false };
        match &row.what {
            What::File { scope, rules, .. } => {
                rules.needs.is_none_or(|capability| self.is_capable(tid, *scope, capability))
            }
            _ => false,
        }
    }

    /// Writes `data` at `offset` for a task that has the permission. `bound` is the scope of its open file.
    pub fn write(
        &self,
        object: &Object,
        tid: u32,
        bound: Option<ScopeId>,
        data: &[u8],
        offset: u64,
    ) -> Written {
        if !self.may_write(object, tid) {
            return refused(Errno::EPERM);
        }
        self.apply(object, tid, bound, data, offset)
    }

    /// As [`Store::write`], without a look at capabilities.
    pub fn apply(
        &self,
        object: &Object,
        tid: u32,
        bound: Option<ScopeId>,
        data: &[u8],
        offset: u64,
    ) -> Written {
        let ObjectKind::File(row) = &object.kind else { return refused(Errno::EISDIR) };
        let What::File { scope: kind, write: rule, rules, codec, .. } = &row.what else {
            return refused(Errno::EINVAL);
        };
        match rule {
            WriteRule::Deny => return refused(Errno::EROFS),
            WriteRule::Forward if !data.is_empty() => {
                if let Some(written) = self.forward(object, tid, *kind, data, offset) {
                    return self.settle(object, row, (tid, bound), written, true);
                }
            }
            WriteRule::Forward | WriteRule::Ignore | WriteRule::Keep => {}
        }
        loop {
            let order = self.values.order();
            let old = match self.content_in(object, tid, bound) {
                Ok(old) => old,
                Err(errno) => return refused(errno),
            };
            let offset = if offset == 0 || self.is_strict(tid) { offset } else { 0 };
            let written = match codec {
                Some(codec) => codec.write(&old, data, offset),
                None => write_text(&old, data, offset),
            };
            let written = self.obey(rules, tid, written);
            let changing = self.values.changing();
            if self.values.order() == order {
                let written = self.settle(object, row, (tid, bound), written, false);
                drop(changing);
                return written;
            }
        }
    }

    /// Whether the offset of a write(2) counts, by `kernel.sysctl_writes_strict` as the program sees it.
    fn is_strict(&self, tid: u32) -> bool {
        const STRICT: &str = "/proc/sys/kernel/sysctl_writes_strict";
        let real = || self.host.read(STRICT).ok();
        let content = match self.object(STRICT) {
            Some(Object { kind: ObjectKind::File(row), .. }) if row.when == When::Missing => real(),
            Some(object) => self.content(&object, tid).ok().map(|content| content.to_vec()),
            None => real(),
        };
        content.is_none_or(|content| content.trim_ascii() == b"1")
    }

    fn is_capable(&self, tid: u32, kind: Scope, capability: u32) -> bool {
        let status = self.views.status(tid);
        status
            .and_then(|status| scope::is_capable(&self.views, tid, &status, kind, capability))
            .unwrap_or(false)
    }

    /// What the row's rules make of a write.
    fn obey(&self, rules: &WriteRules, tid: u32, mut written: Written) -> Written {
        if let (Some(rounding), Some(content)) = (rules.rounding, &written.content) {
            written.content = Some(rounded(content, rounding));
        }
        let Some(content) = &written.content else { return written };
        if !rules.is_whole() {
            return written;
        }
        if written.result.is_err() {
            written.content = None;
            return written;
        }
        let line = String::from_utf8_lossy(content.strip_suffix(b"\n").unwrap_or(content)).into_owned();
        if !rules.choices.is_empty() && !rules.choices.contains(&line) {
            return refused(if rules.other_is_enoent { Errno::ENOENT } else { Errno::EINVAL });
        }
        let numbers = numbers(&line);
        let bound = |file: &Option<String>| {
            let object = self.object(file.as_deref()?)?;
            let content = self.content(&object, tid).ok()?;
            self::numbers(&String::from_utf8_lossy(&content)).first().copied()
        };
        if let Some(first) = numbers.first()
            && (bound(&rules.not_below).is_some_and(|least| *first < least)
                || bound(&rules.not_above).is_some_and(|most| *first > most))
        {
            return refused(Errno::EINVAL);
        }
        if let (Some(reversed), [low, high]) = (&rules.reversed, &numbers[..])
            && low > high
        {
            match reversed {
                Reversed::Refuse => return refused(Errno::EINVAL),
                Reversed::Becomes(line) => written.content = Some(format!("{line}\n").into_bytes()),
            }
        }
        written
    }

    /// Takes over what a write changed, and sets the files that change with it.
    fn settle(
        &self,
        object: &Object,
        row: &Row,
        (tid, bound): (u32, Option<ScopeId>),
        mut written: Written,
        is_real: bool,
    ) -> Written {
        let What::File { scope: kind, write: rule, rules, .. } = &row.what else { return written };
        if *rule == WriteRule::Ignore {
            written.content = None;
        }
        if let Some(content) = written.content.clone() {
            let content = Bytes::from(content);
            let scope = bound.unwrap_or_else(|| self.scope(*kind, tid));
            let is_new = || self.content_in(object, tid, bound).as_ref() != Ok(&content);
            let on_change =
                (!rules.zeroes_on_change.is_empty() && is_new()).then_some(&rules.zeroes_on_change);
            if is_real {
                // What shows the real value anyhow must not stay at this one.
                self.values.forget(&object.key, scope);
            }
            if !is_real || is_new() {
                self.values.set(&object.key, scope, content.clone());
            }
            for path in &rules.also {
                self.set_other(path, tid, &content);
            }
            for path in rules.zeroes.iter().chain(on_change.into_iter().flatten()) {
                self.set_other(path, tid, &Bytes::from_static(b"0\n"));
            }
        }
        if rules.poll && written.result.is_ok() {
            self.values.raise(&object.key);
        }
        written
    }

    fn set_other(&self, path: &str, tid: u32, content: &Bytes) {
        if let Entry::File(row) = self.tree.entry(&self.tree.at(path))
            && let What::File { scope, .. } = &row.what
        {
            self.values.set(path, self.scope(*scope, tid), content.clone());
        }
    }

    /// Writes the real file with the task's namespaces; `None` when that cannot be done, so that the value is kept
    /// virtually.
    fn forward(&self, object: &Object, tid: u32, kind: Scope, data: &[u8], offset: u64) -> Option<Written> {
        let namespace = scope::link(kind).and_then(|link| {
            let is_own = self.views.namespace(tid, link) == self.views.namespace(tape::own_process(), link);
            (!is_own).then(|| self.views.open_namespace(tid, link))
        });
        let namespace = namespace.transpose().ok()?;
        // A thread cannot enter these.
        if namespace.is_some() && matches!(kind, Scope::User | Scope::Pid) {
            return None;
        }
        let path = file::c_path(object.key.as_bytes()).ok()?;
        let write = || -> OsResult<(usize, Vec<u8>)> {
            let target = file::open(None, &path, libc::O_WRONLY)?;
            let count = nix::sys::uio::pwrite(&target, data, i64::try_from(offset).unwrap_or(i64::MAX))?;
            Ok((count, file::read_bytes(file::open(None, &path, libc::O_RDONLY)?.as_fd())?))
        };
        match in_namespace(namespace, write) {
            Ok((count, content)) => Some(Written { content: Some(content), result: Ok(count), moves: true }),
            Err(errno @ (OsErrno::EINVAL | OsErrno::ERANGE | OsErrno::E2BIG | OsErrno::EBUSY)) => {
                Some(refused(Errno::from_raw(errno as i32)))
            }
            Err(errno) => {
                tracing::debug!(path = %object.key, %errno, "a write cannot go to the real file and is kept");
                None
            }
        }
    }
}

/// Runs `act` in a network, UTS or IPC namespace, by a thread that enters it for good.
fn in_namespace<T: Send>(
    namespace: Option<OwnedFd>,
    act: impl FnOnce() -> OsResult<T> + Send,
) -> OsResult<T> {
    let Some(namespace) = namespace else { return act() };
    let enter = || {
        setns(namespace, CloneFlags::empty())?;
        act()
    };
    std::thread::scope(|scope| scope.spawn(enter).join().unwrap_or(Err(OsErrno::EIO)))
}

/// Which name of a UTS namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UtsName {
    /// sethostname(2).
    Host,
    /// setdomainname(2).
    Domain,
}

impl UtsName {
    /// The file that shows it.
    pub fn path(self) -> &'static str {
        match self {
            UtsName::Host => "/proc/sys/kernel/hostname",
            UtsName::Domain => "/proc/sys/kernel/domainname",
        }
    }
}

impl Store {
    /// Sets a name of the task's UTS namespace, really.
    ///
    /// # Errors
    /// EPERM for the task; the supervisor's own as [`OsErrno`] inside.
    pub fn set_uts_name(&self, tid: u32, which: UtsName, name: &[u8]) -> Result<OsResult<()>, Errno> {
        if !self.is_capable(tid, Scope::Uts, scope::CAP_SYS_ADMIN) {
            return Err(Errno::EPERM);
        }
        let set = || match which {
            UtsName::Host => process::set_host_name(name),
            UtsName::Domain => process::set_domain_name(name),
        };
        let namespace = match self.views.shares_uts(tid) {
            Ok(true) => None,
            _ => Some(match self.views.open_namespace(tid, "uts") {
                Ok(namespace) => namespace,
                Err(errno) => return Ok(Err(errno)),
            }),
        };
        let question = || format!("set the {which:?} name {}", tape::text(name));
        let result = tape::os(question, || in_namespace(namespace, set));
        if result.is_ok() {
            let scope = self.scope(Scope::Uts, tid);
            self.values.forget(which.path(), scope);
            let shown = self.uname(tid).map(|view| match which {
                UtsName::Host => view.nodename,
                UtsName::Domain => view.domainname,
            });
            if shown.is_ok_and(|shown| shown.as_bytes() != name) {
                self.values.set(which.path(), scope, [name, b"\n"].concat().into());
            }
            self.values.raise(which.path());
        }
        Ok(result)
    }
}

fn rounded(content: &[u8], rounding: Rounding) -> Vec<u8> {
    let numbers = numbers(&String::from_utf8_lossy(content)).into_iter().map(|number| match rounding {
        Rounding::Up(step) => (number + i128::from(step) - 1).div_euclid(step.into()) * i128::from(step),
        Rounding::Down(step) => number.div_euclid(step.into()) * i128::from(step),
    });
    let words: Vec<String> = numbers.map(|number| number.to_string()).collect();
    format!("{}\n", words.join("\t")).into_bytes()
}

fn numbers(line: &str) -> Vec<i128> {
    line.split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect()
}
