//! See `sysemu_fuzz::sysctl_write`.

#![cfg_attr(fuzzing, no_main)]

sysemu_fuzz::target!(sysemu_fuzz::sysctl_write);
