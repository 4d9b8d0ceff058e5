//! Providers: content that must be computed, by name. A file for each group; to add one, write the function
//! and register it in its group's `register`.

use crate::emulator::provider::Providers;

mod cpu;
mod kernel;
mod memory;
mod random;
mod stat;
mod uname;

/// Every built-in provider.
pub fn all() -> Providers {
    let mut providers = Providers::default();
    uname::register(&mut providers);
    cpu::register(&mut providers);
    memory::register(&mut providers);
    stat::register(&mut providers);
    random::register(&mut providers);
    kernel::register(&mut providers);
    providers
}

/// What the tests of providers stand on.
#[cfg(test)]
pub(crate) mod testing {
    use std::collections::BTreeMap;
    use std::io;

    use crate::emulator::errno::Errno;
    use crate::emulator::provider::{Cx, Host, MachineView, UnameView};

    /// A host made of a few files; an empty one lacks everything, as gVisor does.
    #[derive(Default)]
    pub struct FakeHost(pub BTreeMap<&'static str, &'static str>);

    impl Host for FakeHost {
        fn read(&self, path: &str) -> io::Result<Vec<u8>> {
            self.0
                .get(path)
                .map(|text| text.as_bytes().to_vec())
                .ok_or_else(|| io::ErrorKind::NotFound.into())
        }
        fn list(&self, _path: &str) -> io::Result<Vec<String>> {
            Err(io::ErrorKind::NotFound.into())
        }
    }

    /// What a provider shows for a machine of 3 CPUs and 512 MiB.
    pub fn show(host: &FakeHost, name: &str, path: &str) -> Result<String, Errno> {
        let uname = UnameView {
            sysname: "Linux".into(),
            nodename: "node".into(),
            release: "6.1.0".into(),
            version: "#1 SMP".into(),
            machine: "x86_64".into(),
            domainname: "(none)".into(),
        };
        let machine = MachineView { cpus: 3, cpus_given: true, memory: 512 << 20, memory_given: true };
        let cx = Cx { host, machine, uname: &uname, path, tid: 1 };
        let providers = super::all();
        let provider = providers.get(name).expect("registered");
        Ok(String::from_utf8((provider.show)(&cx)?.to_vec()).expect("text"))
    }
}
