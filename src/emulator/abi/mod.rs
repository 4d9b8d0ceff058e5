//! System call ABIs: one value of [`Abi`] for each calling convention a tracee can use.
//!
//! Numbers come from libseccomp by name; everything else that differs between ABIs (structure layouts, flag
//! bits) is in one place each: [`layout`] for structures, [`OpenFlags`] for open(2) flags. A new architecture
//! adds a value here and its layouts there.

pub mod layout;

use libseccomp::ScmpArch;

/// Which of two layouts families the structures follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// x86_64 (and x32, which shares the structures used here).
    X86_64,
    /// i386 programs.
    I386,
}

/// A calling convention.
#[derive(Debug)]
pub struct Abi {
    /// Name for logs.
    pub name: &'static str,
    /// AUDIT_ARCH_* as a notification reports it.
    pub audit_arch: u32,
    /// Bits that are set in each number of this ABI (x32).
    pub nr_bits: u32,
    /// libseccomp's name for it.
    pub scmp: ScmpArch,
    /// Structure layouts.
    pub layout: Layout,
}

const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
const AUDIT_ARCH_I386: u32 = 0x4000_0003;
const X32_BIT: u32 = 0x4000_0000;

/// What uname(2) calls the machine under the personality PER_LINUX32 (COMPAT_UTS_MACHINE of the kernel).
pub const COMPAT_MACHINE: &str = "i686";

/// The ABIs of this machine, native first. aarch64 is an addition here.
pub static ABIS: [Abi; 3] = [
    Abi {
        name: "x86_64",
        audit_arch: AUDIT_ARCH_X86_64,
        nr_bits: 0,
        scmp: ScmpArch::X8664,
        layout: Layout::X86_64,
    },
    Abi { name: "i386", audit_arch: AUDIT_ARCH_I386, nr_bits: 0, scmp: ScmpArch::X86, layout: Layout::I386 },
    Abi {
        name: "x32",
        audit_arch: AUDIT_ARCH_X86_64,
        nr_bits: X32_BIT,
        scmp: ScmpArch::X32,
        layout: Layout::X86_64,
    },
];

impl Abi {
    /// The ABI of a call with this architecture and number.
    pub fn of(audit_arch: u32, nr: u32) -> Option<&'static Abi> {
        ABIS.iter().find(|abi| abi.audit_arch == audit_arch && abi.nr_bits == nr & X32_BIT)
    }

    /// Whether pointers and registers have 32 bits.
    pub fn is_32bit(&self) -> bool {
        self.layout == Layout::I386
    }
}

/// open(2) flags, decoded from the tracee's bit values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenFlags {
    /// The flag word in the supervisor's own (native) bit values.
    pub native: i32,
}

impl OpenFlags {
    /// From a flag word of any x86 ABI, whose bits are all the same. (On aarch64 O_DIRECTORY, O_NOFOLLOW,
    /// O_DIRECT and O_LARGEFILE differ.)
    pub fn decode(_abi: &Abi, word: u64) -> Self {
        // Only the low word is significant to the kernel: `int flags`.
        OpenFlags { native: (word as u32).cast_signed() }
    }

    /// Whether all these native bits are set.
    pub fn has(self, bits: i32) -> bool {
        self.native & bits == bits
    }

    /// Whether the access mode asks for writing.
    pub fn writes(self) -> bool {
        self.native & libc::O_ACCMODE != libc::O_RDONLY
    }

    /// Whether the access mode asks for reading.
    pub fn reads(self) -> bool {
        self.native & libc::O_ACCMODE != libc::O_WRONLY
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_x32_bit_selects_the_abi() {
        assert_eq!(Abi::of(AUDIT_ARCH_X86_64, 257).map(|abi| abi.name), Some("x86_64"));
        assert_eq!(Abi::of(AUDIT_ARCH_X86_64, X32_BIT | 257).map(|abi| abi.name), Some("x32"));
        assert_eq!(Abi::of(AUDIT_ARCH_I386, 295).map(|abi| abi.name), Some("i386"));
        assert_eq!(Abi::of(0xc000_00b7, 56).map(|abi| abi.name), None);
    }
}
