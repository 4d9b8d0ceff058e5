//! Everything that handlers consult: the store, the resolver, the carrier and the policy's switches.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::abi::layout::Attr;
use super::carrier::taped::TapedCarrier;
use super::carrier::{self, Carrier, CarrierChoice, fuse};
use super::errno::Errno;
use super::failure::{Failure, OrFault};
use super::host;
use super::object::{Object, ObjectKind};
use super::provider::{Host, MachineView, Providers, UnameView};
use super::resolve::in_root::open_in_root;
use super::resolve::view::Views;
use super::resolve::{Identify, Names, Real, Resolver};
use super::scope;
use super::store::{self, Store};
use super::sys::file::{self, Stat};
use super::sys::{OsResult, tape};
use super::tree::Tree;
use crate::policy::{Content, Options, Policy, StatRow, StatfsRow};
use nix::errno::Errno as OsErrno;

/// What handlers consult.
pub struct Emulator {
    /// Metadata and content of virtual objects.
    pub store: Arc<Store>,
    /// Paths.
    pub resolver: Resolver,
    /// Descriptors.
    pub carrier: Arc<dyn Carrier>,
    /// Why the best carrier is not in use.
    pub fuse_error: Option<(fuse::Step, OsErrno)>,
    /// Switches of the policy.
    pub options: Options,
    /// stat(2) of root directories.
    pub stat: Vec<StatRow>,
    /// statfs(2) replacements.
    pub statfs: Vec<StatfsRow>,
    record_paths: AtomicBool,
}

/// What an emulator is made from besides the policy.
pub struct Parts {
    /// Content providers.
    pub providers: Providers,
    /// The host's files.
    pub host: Arc<dyn Host>,
    /// Names for `*` rows.
    pub names: Arc<dyn Names>,
    /// The machine.
    pub machine: MachineView,
    /// uname(2).
    pub uname: UnameView,
    /// Which carrier to use.
    pub carrier: CarrierChoice,
}

/// Why an emulator cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum EmulatorError {
    /// No carrier.
    #[error("cannot {0}: {1}; another carrier can be chosen with --carrier")]
    Carrier(fuse::Step, OsErrno),
    /// No `/proc`.
    #[error("cannot look at /proc: {0}; sysemu needs procfs mounted at /proc")]
    Proc(OsErrno),
}

impl Emulator {
    /// Makes the emulator of a policy. Starts the carrier's threads.
    ///
    /// # Errors
    /// See [`EmulatorError`].
    pub fn new(policy: &Policy, parts: Parts) -> Result<Self, EmulatorError> {
        let tree = Arc::new(Tree::build(policy, std::path::Path::new("/sys")));
        let views = Arc::new(Views::new().map_err(EmulatorError::Proc)?);
        let store = Arc::new(Store {
            tree: tree.clone(),
            views: views.clone(),
            values: Default::default(),
            given: policy.uname.clone(),
            start: host::uts_names(),
            inodes: Default::default(),
            providers: parts.providers,
            machine: parts.machine,
            uname: parts.uname,
            host: parts.host,
            names: parts.names.clone(),
            device: Default::default(),
            time: Store::now(),
        });
        let choice = if tree.is_empty() { CarrierChoice::Memfd } else { parts.carrier };
        let mut chosen = tape::aside(|| carrier::choose(&store, choice))
            .map_err(|(step, errno)| EmulatorError::Carrier(step, errno))?;
        if tape::is_on() {
            chosen.carrier = Arc::new(TapedCarrier { inner: chosen.carrier, store: store.clone() });
        }
        let identify: Arc<dyn Identify> = Arc::new(Carried(chosen.carrier.clone()));
        let resolver = Resolver::new(tree, identify, parts.names, views).map_err(EmulatorError::Proc)?;
        Ok(Emulator {
            store,
            resolver,
            carrier: chosen.carrier,
            fuse_error: chosen.fuse_error,
            options: policy.options,
            stat: policy.stat.clone(),
            statfs: policy.statfs.clone(),
            record_paths: AtomicBool::new(false),
        })
    }

    /// Whether calls should remember the path they were about.
    pub fn records_paths(&self) -> bool {
        self.record_paths.load(Ordering::Relaxed)
    }

    /// Makes calls remember the path they were about, for logs and the summary.
    pub fn record_paths(&self) {
        self.record_paths.store(true, Ordering::Relaxed);
    }

    /// Metadata of a virtual object, the same by path and by descriptor.
    pub fn attr(&self, object: &Object) -> Attr {
        let mut attr = self.store.attr(object);
        if let Some((dev, ino)) = self.carrier.identity(object) {
            (attr.dev, attr.ino) = (dev, ino);
        }
        attr.mount = self.carrier.mount();
        attr
    }

    /// The inode number that a row gives a real object, which has to be the root directory of a procfs or sysfs.
    pub fn root_inode(&self, real: &Real) -> Option<u64> {
        let key = real.kind.prefix().filter(|_| real.is_root())?;
        self.stat.iter().find(|row| row.path == key).map(|row| row.inode)
    }

    /// Metadata of a real object, as programs are to see it.
    pub fn real_attr(&self, real: &Real) -> Attr {
        let attr = Attr::of(&real.stat.raw);
        Attr { ino: self.root_inode(real).unwrap_or(attr.ino), ..attr }
    }

    /// Whether the caller may do `want` (bits of R_OK, W_OK, X_OK) to an object.
    ///
    /// # Errors
    /// EACCES as the kernel; failures to read the caller's credentials.
    pub fn permit(&self, tid: u32, object: &Object, want: u32, who: Who) -> Result<(), Failure> {
        scope::permit(&self.resolver.views, tid, object, want, who)
    }

    /// The real object that a `like` row stands for, as the task sees it.
    ///
    /// # Errors
    /// The errno of opening it, for the tracee.
    pub fn like(&self, tid: u32, object: &Object) -> Result<Option<OwnedFd>, Failure> {
        let ObjectKind::File(row) = &object.kind else { return Ok(None) };
        let Some(Content::Like(path)) = store::content_of(row) else { return Ok(None) };
        let root = self.resolver.views.open_root(tid).or_gone("open the root directory of a task")?;
        open_in_root(root.as_fd(), path.as_bytes(), 0)
            .map(Some)
            .map_err(|errno| Errno::from_raw(errno as i32).into())
    }

    /// Opens a real object anew with other flags.
    ///
    /// # Errors
    /// As open(2).
    pub fn reopen(&self, real: &Real, flags: i32) -> OsResult<OwnedFd> {
        file::open(None, &file::self_fd_path(real.fd.as_fd()), flags)
    }
}

/// Whose rights count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The effective (file system) ids: open(2), faccessat2(2) with AT_EACCESS.
    Effective,
    /// The real ids: access(2).
    Real,
}

/// The resolver's view of a carrier.
struct Carried(Arc<dyn Carrier>);

impl Identify for Carried {
    fn identify(&self, stat: &Stat) -> Option<Arc<str>> {
        self.0.identify(stat)
    }
}
