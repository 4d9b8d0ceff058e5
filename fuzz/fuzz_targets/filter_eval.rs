//! See `sysemu_fuzz::filter_eval`.

#![cfg_attr(fuzzing, no_main)]

sysemu_fuzz::target!(sysemu_fuzz::filter_eval);
