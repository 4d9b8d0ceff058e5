//! See `sysemu_fuzz::tree_ops`.

#![cfg_attr(fuzzing, no_main)]

sysemu_fuzz::target!(sysemu_fuzz::tree_ops);
