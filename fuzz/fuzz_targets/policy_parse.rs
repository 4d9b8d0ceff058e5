//! See `sysemu_fuzz::policy_parse`.

#![cfg_attr(fuzzing, no_main)]

sysemu_fuzz::target!(sysemu_fuzz::policy_parse);
