//! See `sysemu_fuzz::sysctl_store`.

#![cfg_attr(fuzzing, no_main)]

sysemu_fuzz::target!(sysemu_fuzz::sysctl_store);
