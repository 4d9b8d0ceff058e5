//! Path text: reading it from the tracee and taking it apart. Nothing here looks at the file system.

use crate::emulator::errno::Errno;

/// Longest path including its NUL (PATH_MAX).
pub const PATH_MAX: usize = 4096;

/// Reads bytes from the tracee: gives how many of `buf` could be read.
pub trait ReadMemory {
    /// Reads up to `buf.len()` bytes at `addr`; fewer where the memory ends at a page boundary.
    ///
    /// # Errors
    /// EFAULT when the first byte is not mapped.
    fn read(&self, addr: u64, buf: &mut [u8]) -> Result<usize, Errno>;
}

/// First piece read: nearly every path ends within it.
const FIRST: usize = 256;

/// Copies a NUL-terminated path, as getname() of the kernel does.
///
/// # Errors
/// EFAULT: no NUL before unmapped memory. ENAMETOOLONG: no NUL within PATH_MAX bytes.
pub fn read_path(memory: &dyn ReadMemory, addr: u64) -> Result<Vec<u8>, Errno> {
    let mut path = vec![0u8; FIRST];
    let mut have = 0;
    loop {
        let want = path.len() - have;
        let at = addr.checked_add(have as u64).ok_or(Errno::EFAULT)?;
        let got = memory.read(at, &mut path[have..])?;
        if let Some(end) = path[have..have + got].iter().position(|byte| *byte == 0) {
            path.truncate(have + end);
            return Ok(path);
        }
        have += got;
        if have == PATH_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        if got < want {
            // Memory ended without a NUL; the next read says so, or goes on if it was mapped meanwhile.
            path.truncate(have);
        }
        let grow = PATH_MAX - have;
        path.resize(have + grow.min(if got < want { 1 } else { grow }), 0);
    }
}

/// The components of a path, without empty ones and `.`.
pub fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".")
}

/// Whether the path, as text, must name a directory: it ends in `/`, `/.` or `/..`.
pub fn wants_directory(path: &[u8]) -> bool {
    matches!(path.rsplit(|byte| *byte == b'/').next(), Some(b"" | b"." | b".."))
}

/// The path in its plain form: absolute, single slashes, no `.`; `None` when it is relative, has `..`, or
/// names a directory by its ending.
pub fn plain(path: &[u8]) -> Option<Vec<u8>> {
    if path.first() != Some(&b'/') || wants_directory(path) {
        return None;
    }
    let mut plain = Vec::with_capacity(path.len());
    for name in components(path) {
        if name == b".." {
            return None;
        }
        plain.push(b'/');
        plain.extend_from_slice(name);
    }
    Some(plain)
}

/// Whether `path` is `prefix` or below it, by whole components.
pub fn is_below(path: &str, prefix: &str) -> bool {
    let prefix = prefix.trim_end_matches('/');
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The path text inside a captured buffer for fuzzing: memory that is mapped from `base` on.
pub struct Buffer<'a> {
    /// Address of the first byte.
    pub base: u64,
    /// The mapped bytes.
    pub bytes: &'a [u8],
}

impl ReadMemory for Buffer<'_> {
    fn read(&self, addr: u64, buf: &mut [u8]) -> Result<usize, Errno> {
        let offset = addr.checked_sub(self.base).and_then(|offset| usize::try_from(offset).ok());
        let rest = offset.and_then(|offset| self.bytes.get(offset..)).filter(|rest| !rest.is_empty());
        let rest = rest.ok_or(Errno::EFAULT)?;
        let len = rest.len().min(buf.len());
        buf[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Vec<u8>, Errno> {
        read_path(&Buffer { base: 0x1000, bytes }, 0x1000)
    }

    #[test]
    fn string_may_end_on_the_last_mapped_byte() {
        assert_eq!(read(b"/proc\0").as_deref(), Ok(&b"/proc"[..]));
        assert_eq!(read(b"/proc"), Err(Errno::EFAULT));
        assert_eq!(read(b""), Err(Errno::EFAULT));
        assert_eq!(read(b"\0").as_deref(), Ok(&b""[..]));
    }

    #[test]
    fn longest_path_is_4095_bytes() {
        let mut bytes = vec![b'a'; 4095];
        bytes.push(0);
        assert_eq!(read(&bytes).map(|path| path.len()), Ok(4095));
        let mut bytes = vec![b'a'; 4096];
        bytes.push(0);
        assert_eq!(read(&bytes), Err(Errno::ENAMETOOLONG));
        assert_eq!(read(&vec![b'a'; 300]), Err(Errno::EFAULT));
    }

    #[test]
    fn plain_form() {
        assert_eq!(plain(b"//proc//sys/./x").as_deref(), Some(&b"/proc/sys/x"[..]));
        for odd in [&b"proc/x"[..], b"/proc/../x", b"/proc/x/", b"/proc/x/.", b"", b"/"] {
            assert_eq!(plain(odd), None, "{odd:?}");
        }
    }

    #[test]
    fn below_counts_whole_components() {
        assert!(is_below("/a/b", "/a"));
        assert!(is_below("/a", "/a"));
        assert!(is_below("/a", "/"));
        assert!(!is_below("/ab", "/a"));
    }
}
