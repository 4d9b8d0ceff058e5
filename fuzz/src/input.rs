//! Values taken from the front of an input; zeros once it is used up.

/// The rest of an input.
pub struct Input<'d>(pub &'d [u8]);

impl Input<'_> {
    /// One byte.
    pub fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    /// A number below `end`, which is at most 256.
    pub fn below(&mut self, end: usize) -> usize {
        usize::from(self.byte()) % end
    }

    /// One of these.
    pub fn one<'l, T>(&mut self, list: &'l [T]) -> &'l T {
        &list[self.below(list.len())]
    }

    /// Eight bytes.
    pub fn word(&mut self) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|_| self.byte()))
    }

    /// A register: what tests and limits compare with, small numbers, and anything.
    pub fn register(&mut self) -> u64 {
        match self.byte() % 8 {
            0 => libc::AT_FDCWD as u32 as u64,
            1 => libc::AT_FDCWD as i64 as u64,
            2 => libc::AT_EMPTY_PATH as u64,
            3 => u64::from(self.byte()) << 32,
            4 => 1 << (self.byte() % 64),
            5 => u64::MAX - u64::from(self.byte()),
            6 => self.word(),
            _ => u64::from(self.byte()),
        }
    }

    /// Whether anything is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
