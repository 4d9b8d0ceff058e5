//! What the running kernel can do, found out by asking it.

use crate::emulator::errno::Errno;
use crate::emulator::provider::Providers;
use crate::emulator::sys::process::knows_capability;

/// Capability sets are two words of 32 bits (capset(2)).
const CAPABILITIES: u32 = 64;

pub(super) fn register(providers: &mut Providers) {
    providers.register("cap-last-cap", "the highest capability that the kernel knows", |_| {
        let last = (0..CAPABILITIES).take_while(|number| knows_capability(*number)).last();
        Ok(format!("{}\n", last.ok_or(Errno::EIO)?).into())
    });
}

#[cfg(test)]
mod tests {
    use super::super::testing::{FakeHost, show};

    #[test]
    fn the_last_capability_is_the_one_that_the_kernel_shows() {
        let host = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap").expect("Linux has it");
        assert_eq!(show(&FakeHost::default(), "cap-last-cap", "/x"), Ok(host));
    }
}
