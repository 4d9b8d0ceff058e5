//! Building a [`Supervisor`]: the policy, and what a program that embeds sysemu adds to it.

use std::sync::Arc;

use bytes::Bytes;

use crate::emulator::backend::BackendChoice;
use crate::emulator::backend::notify::NotifyOptions;
use crate::emulator::carrier::CarrierChoice;
use crate::emulator::context::{Emulator, EmulatorError, Parts};
use crate::emulator::errno::Errno;
use crate::emulator::filter::FilterError;
use crate::emulator::host::{self, OsHost};
use crate::emulator::provider::{Cx, Host, Providers};
use crate::emulator::supervisor::Supervisor;
use crate::emulator::syscall::Syscall;
use crate::handlers;
use crate::policy::Policy;

/// Why a supervisor cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The emulator cannot be made.
    #[error(transparent)]
    Emulator(#[from] EmulatorError),
    /// The filter cannot be made.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// A row names a provider that nobody registered.
    #[error(
        "{origin}: unknown provider \"{name}\" for {path}; register it, or see `sysemu policy providers`"
    )]
    Provider {
        /// Where the row was written.
        origin: String,
        /// The provider.
        name: String,
        /// The row's path.
        path: String,
    },
}

/// Collects what a [`Supervisor`] is made from. See [`Supervisor::builder`].
pub struct Builder {
    policy: Policy,
    providers: Providers,
    rows: Vec<Syscall>,
    host: Arc<dyn Host>,
    carrier: CarrierChoice,
    backend: BackendChoice,
    notify: NotifyOptions,
}

impl Supervisor {
    /// A builder with an empty policy, all built-in providers and handlers.
    pub fn builder() -> Builder {
        Builder {
            policy: Policy::default(),
            providers: handlers::providers::all(),
            rows: handlers::all(),
            host: Arc::new(OsHost),
            carrier: CarrierChoice::default(),
            backend: BackendChoice::default(),
            notify: NotifyOptions::default(),
        }
    }
}

impl Builder {
    /// The policy to supervise programs under.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Adds or replaces a provider of computed content.
    pub fn provider<F>(mut self, name: &str, doc: &'static str, show: F) -> Self
    where
        F: Fn(&Cx<'_>) -> Result<Bytes, Errno> + Send + Sync + 'static,
    {
        self.providers.register(name, doc, show);
        self
    }

    /// Adds a system call, or replaces the handler of one.
    pub fn handler(mut self, row: Syscall) -> Self {
        self.rows.push(row);
        self
    }

    /// Chooses how descriptors of virtual files are made.
    pub fn carrier(mut self, carrier: CarrierChoice) -> Self {
        self.carrier = carrier;
        self
    }

    /// Chooses how calls are intercepted.
    pub fn backend(mut self, backend: BackendChoice) -> Self {
        self.backend = backend;
        self
    }

    /// Chooses how notifications are received.
    pub fn notify(mut self, notify: NotifyOptions) -> Self {
        self.notify = notify;
        self
    }

    /// Builds the supervisor: makes the tree, starts the carrier, compiles the filter.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub fn build(mut self) -> Result<Supervisor, BuildError> {
        check_providers(&self.policy, &self.providers)?;
        // Each row makes every look at a descriptor a call to be answered.
        self.policy.stat.retain(|row| host::inode(&row.path) != Some(row.inode));
        let backend = self.backend.resolved();
        // A tracee that cannot see the supervisor gets a copy, which only a memfd can be.
        let carrier = match (backend, self.carrier) {
            (BackendChoice::Ptrace, CarrierChoice::Auto) => CarrierChoice::Memfd,
            (_, carrier) => carrier,
        };
        let parts = Parts {
            machine: host::machine(&self.policy, &*self.host),
            uname: host::uname(&self.policy),
            names: Arc::new(handlers::names::Interfaces { host: self.host.clone() }),
            host: self.host,
            providers: self.providers,
            carrier,
        };
        let emulator = Emulator::new(&self.policy, parts)?;
        Ok(Supervisor::new(&self.policy, emulator, self.rows, backend, self.notify)?)
    }
}

fn check_providers(policy: &Policy, providers: &Providers) -> Result<(), BuildError> {
    use crate::emulator::store::{BLOCKING, content_of};
    use crate::policy::Content;
    for row in &policy.rows {
        if let Some(Content::Provider(name)) = content_of(row)
            && name != BLOCKING
            && providers.get(name).is_none()
        {
            let (name, path) = (name.clone(), row.path.clone());
            return Err(BuildError::Provider { origin: row.origin.to_string(), name, path });
        }
    }
    Ok(())
}
