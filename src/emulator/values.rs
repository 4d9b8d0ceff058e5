//! Values that tracees wrote: by the file (or the pattern of a `*` row) and the namespace they belong to.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use dashmap::DashMap;
use serde::{Deserialize, Serialize};

use super::scope::ScopeId;

/// Namespaces whose values of one file are kept; of more, those that were written first are forgotten.
const MAX_SCOPES: usize = 1024;

/// Hears of a file whose value changed, by its key.
pub type Listener = dyn Fn(&str) + Send + Sync;

/// The values.
#[derive(Default)]
pub struct Values {
    written: DashMap<String, HashMap<ScopeId, (u64, Bytes)>>,
    /// Counts changes of all values: a later one has a greater number.
    order: AtomicU64,
    is_used: AtomicBool,
    changing: Mutex<()>,
    /// Changes of files that can be polled.
    events: DashMap<String, u64>,
    listeners: Mutex<Vec<Box<Listener>>>,
}

/// One value that was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Value {
    /// The file, or the pattern of a `*` row.
    pub key: String,
    /// The namespace.
    pub scope: ScopeId,
    /// The content.
    #[serde(with = "as_text")]
    pub content: Bytes,
}

impl Values {
    /// Whether anything was ever written: if not, there is nothing to look for.
    pub fn is_used(&self) -> bool {
        self.is_used.load(Ordering::Acquire)
    }

    /// Whether a file or pattern has a value in any namespace.
    pub fn has(&self, key: &str) -> bool {
        self.is_used() && self.written.contains_key(key)
    }

    /// The value of a file or pattern, with its place in the order of all changes.
    pub fn get(&self, key: &str, scope: ScopeId) -> Option<(u64, Bytes)> {
        if !self.is_used() {
            return None;
        }
        self.written.get(key)?.get(&scope).cloned()
    }

    /// Sets a value.
    pub fn set(&self, key: &str, scope: ScopeId, content: Bytes) {
        let order = self.order.fetch_add(1, Ordering::AcqRel) + 1;
        let mut scopes = self.written.entry(key.to_owned()).or_default();
        scopes.insert(scope, (order, content));
        if scopes.len() > MAX_SCOPES
            && let Some(oldest) = scopes.iter().min_by_key(|(_, (order, _))| *order).map(|(scope, _)| *scope)
        {
            scopes.remove(&oldest);
        }
        self.is_used.store(true, Ordering::Release);
    }

    /// Forgets a value.
    pub fn forget(&self, key: &str, scope: ScopeId) {
        if let Some(mut scopes) = self.written.get_mut(key) {
            scopes.remove(&scope);
        }
    }

    /// The number of the last change.
    pub fn order(&self) -> u64 {
        self.order.load(Ordering::Acquire)
    }

    /// Keeps others from changing values; [`Values::order`] then stays as it is.
    pub fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All values, in the order in which they were set.
    pub fn all(&self) -> Vec<Value> {
        let mut all: Vec<(u64, Value)> = Vec::new();
        for file in &self.written {
            let values = file.value().iter().map(|(scope, (order, content))| {
                (*order, Value { key: file.key().clone(), scope: *scope, content: content.clone() })
            });
            all.extend(values);
        }
        all.sort_by_key(|(order, _)| *order);
        all.into_iter().map(|(_, value)| value).collect()
    }

    /// Sets these values and no others.
    pub fn replace(&self, values: Vec<Value>) {
        self.written.clear();
        self.is_used.store(false, Ordering::Release);
        for value in values {
            self.set(&value.key, value.scope, value.content);
        }
    }

    /// How often a file that can be polled changed.
    pub fn event(&self, key: &str) -> u64 {
        self.events.get(key).map_or(0, |event| *event)
    }

    /// Notes a change of a file that can be polled, and tells who listens.
    pub fn raise(&self, key: &str) {
        *self.events.entry(key.to_owned()).or_insert(0) += 1;
        for listener in self.listeners.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            listener(key);
        }
    }

    /// Has `listener` told of changes of files that can be polled.
    pub fn listen(&self, listener: Box<Listener>) {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).push(listener);
    }
}

/// Content in a record.
mod as_text {
    use bytes::Bytes;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::emulator::sys::tape;

    pub fn serialize<S: Serializer>(content: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
        tape::text(content).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = tape::untext(&text).ok_or_else(|| serde::de::Error::custom("bad %XX"))?;
        Ok(bytes.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_do_not_see_each_others_values() {
        let values = Values::default();
        assert!(!values.is_used());
        values.set("/proc/sys/a", 1, "x\n".into());
        values.set("/proc/sys/a", 2, "y\n".into());
        assert_eq!(values.get("/proc/sys/a", 1).map(|(_, content)| content), Some("x\n".into()));
        assert_eq!(values.get("/proc/sys/a", 3), None);
        assert_eq!(values.all().len(), 2);
    }

    #[test]
    fn many_namespaces_do_not_grow_without_bound() {
        let values = Values::default();
        for scope in 0..5000 {
            values.set("/proc/sys/a", scope, "x\n".into());
        }
        assert_eq!(values.all().len(), MAX_SCOPES);
        assert!(values.get("/proc/sys/a", 4999).is_some());
    }
}
