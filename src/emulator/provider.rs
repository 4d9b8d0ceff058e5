//! Content that must be computed: named providers.
//!
//! A provider is a plain function from what it may look at ([`Cx`]) to the whole content of the file. It is
//! called once for each open of the file (and for each stat that needs the size), never under a lock.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::errno::Errno;

/// The host's own files, as the supervisor sees them. A trait so that providers can be tested on hosts that
/// lack things (gVisor) without being there.
pub trait Host: Send + Sync {
    /// The whole content of an absolute path.
    ///
    /// # Errors
    /// As open(2) and read(2).
    fn read(&self, path: &str) -> io::Result<Vec<u8>>;
    /// The names in a directory, without `.` and `..`, in directory order.
    ///
    /// # Errors
    /// As open(2) and getdents64(2).
    fn list(&self, path: &str) -> io::Result<Vec<String>>;
}

/// The machine as the policy describes it, with the host's own numbers where it does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MachineView {
    /// Number of CPUs, at least 1.
    pub cpus: u32,
    /// Whether `cpus` comes from the policy (and not from the host).
    pub cpus_given: bool,
    /// Bytes of memory.
    pub memory: u64,
    /// Whether `memory` comes from the policy (and not from the host).
    pub memory_given: bool,
}

/// uname(2) as the tracee sees it, all six fields filled.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[allow(missing_docs, reason = "the fields are those of uname(2)")]
pub struct UnameView {
    pub sysname: String,
    pub nodename: String,
    pub release: String,
    pub version: String,
    pub machine: String,
    pub domainname: String,
}

/// What a provider may look at.
pub struct Cx<'a> {
    /// The host's files.
    pub host: &'a dyn Host,
    /// The machine.
    pub machine: MachineView,
    /// uname(2).
    pub uname: &'a UnameView,
    /// The absolute path that is being read, every `*` replaced by the name that matched.
    pub path: &'a str,
    /// Thread id of the caller in the supervisor's pid namespace; 0 when there is no caller (`policy show`).
    pub tid: u32,
}

/// Computes the whole content of a file.
pub type ProviderFn = dyn Fn(&Cx<'_>) -> Result<Bytes, Errno> + Send + Sync;

/// One registered provider.
#[derive(Clone)]
pub struct Provider {
    /// One sentence for `sysemu policy providers` and the documentation.
    pub doc: &'static str,
    /// The function.
    pub show: Arc<ProviderFn>,
}

/// All providers by name.
#[derive(Clone, Default)]
pub struct Providers {
    map: BTreeMap<String, Provider>,
}

impl Providers {
    /// Adds or replaces a provider.
    pub fn register<F>(&mut self, name: &str, doc: &'static str, show: F)
    where
        F: Fn(&Cx<'_>) -> Result<Bytes, Errno> + Send + Sync + 'static,
    {
        self.map.insert(name.to_owned(), Provider { doc, show: Arc::new(show) });
    }

    /// The provider of this name.
    pub fn get(&self, name: &str) -> Option<&Provider> {
        self.map.get(name)
    }

    /// All names with their one-sentence descriptions, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &'static str)> {
        self.map.iter().map(|(name, provider)| (name.as_str(), provider.doc))
    }
}
