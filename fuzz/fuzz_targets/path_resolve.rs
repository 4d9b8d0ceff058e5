//! See `sysemu_fuzz::path_resolve`.

#![cfg_attr(fuzzing, no_main)]

sysemu_fuzz::target!(sysemu_fuzz::path_resolve);
