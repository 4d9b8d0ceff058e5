//! A carrier whose answers are facts of the call that is being recorded or played. See [`tape`].

use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::{Carrier, Opening};
use crate::emulator::codec::write::Written;
use crate::emulator::object::Object;
use crate::emulator::resolve::Identify;
use crate::emulator::store::Store;
use crate::emulator::sys::file::Stat;
use crate::emulator::sys::{OsResult, tape};
use crate::emulator::values::Value;

/// The carrier.
pub struct TapedCarrier {
    /// Who is asked while a call is recorded.
    pub inner: Arc<dyn Carrier>,
    /// Whose values change when writes are looked for.
    pub store: Arc<Store>,
}

impl Identify for TapedCarrier {
    fn identify(&self, stat: &Stat) -> Option<Arc<str>> {
        let question = || format!("carried {:?} {}", stat.dev, stat.ino);
        let key: Option<String> =
            tape::fact(question, || self.inner.identify(stat).map(|key| (*key).to_owned()));
        key.map(Into::into)
    }
}

impl Carrier for TapedCarrier {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn open_file(&self, object: &Object, opening: Opening, flags: i32) -> OsResult<OwnedFd> {
        tape::act(|| format!("open file {} {flags:#x} {}", object.key, tape::text(&opening.content)));
        let question = || format!("file:{flags:#x} virtual:{}", object.key);
        tape::fd(question, || self.inner.open_file(object, opening, flags))
    }

    fn open_dir(&self, object: &Object, flags: i32) -> OsResult<OwnedFd> {
        tape::act(|| format!("open directory {} {flags:#x}", object.key));
        let question = || format!("directory:{flags:#x} virtual:{}", object.key);
        tape::fd(question, || self.inner.open_dir(object, flags))
    }

    fn open_path(&self, object: &Object) -> OsResult<OwnedFd> {
        tape::fd(|| format!("path virtual:{}", object.key), || self.inner.open_path(object))
    }

    fn identity(&self, object: &Object) -> Option<((u32, u32), u64)> {
        tape::fact(|| format!("identity of {}", object.key), || self.inner.identity(object))
    }

    fn adopt(&self, copy: &Stat, key: &Arc<str>) {
        self.inner.adopt(copy, key);
    }

    /// What is found is told as all values that there are afterwards.
    fn look(&self, looker: u32) {
        if !tape::is_on() {
            return self.inner.look(looker);
        }
        let values: Vec<Value> = tape::fact(
            || "written".to_owned(),
            || {
                self.inner.look(looker);
                self.store.values.all()
            },
        );
        if tape::is_playing() {
            self.store.values.replace(values);
        }
    }

    fn is_staged(&self, file: &Stat) -> bool {
        self.inner.is_staged(file)
    }

    fn stage_copy(&self, original: &Stat, copy: OwnedFd) -> OsResult<bool> {
        self.inner.stage_copy(original, copy)
    }

    fn write(&self, file: &Stat, tid: u32, data: &[u8], offset: u64) -> Option<Written> {
        self.inner.write(file, tid, data, offset)
    }

    fn mount(&self) -> Option<u64> {
        tape::fact(|| "mount of the carrier".to_owned(), || self.inner.mount())
    }

    fn shows_path(&self) -> bool {
        tape::fact(|| "carrier shows paths".to_owned(), || self.inner.shows_path())
    }
}
