//! The fuzz targets as ordinary functions over bytes, so that a test replays the corpus on stable. `fuzz/README.md` says
//! how to add one.

mod decode;
mod encode;
mod filter;
mod input;
mod model;
mod path;
mod policy;
mod sysctl;
mod tree;

pub use decode::{decode, seed};
pub use encode::encode;
pub use filter::{filter_eval, filter_seed};
pub use model::clean_up;
pub use path::path_resolve;
pub use policy::policy_parse;
pub use sysctl::sysctl_store;
pub use tree::tree_ops;

/// Makes a fuzz target of a function: driven by libFuzzer under `cfg(fuzzing)`, otherwise a program that
/// runs the files it is given.
#[macro_export]
macro_rules! target {
    ($function:path) => {
        #[cfg(fuzzing)]
        libfuzzer_sys::fuzz_target!(|data: &[u8]| $function(data));

        #[cfg(not(fuzzing))]
        fn main() -> std::io::Result<()> {
            for file in std::env::args_os().skip(1) {
                $function(&std::fs::read(&file)?);
            }
            Ok(())
        }
    };
}
