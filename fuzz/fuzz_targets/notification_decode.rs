//! See `sysemu_fuzz::notification_decode`.

#![cfg_attr(fuzzing, no_main)]

sysemu_fuzz::target!(sysemu_fuzz::notification_decode);
