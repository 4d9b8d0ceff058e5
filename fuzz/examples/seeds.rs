//! Makes seeds of a record: `cargo run -p sysemu-fuzz --example seeds -- FILE FOLDER` writes an input for `decode` and
//! one for `filter_eval` for each call, and the policy for `policy_parse`, to folders of these names below FOLDER.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};

use sysemu::replay::Record;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(file), Some(folder)) = (args.next(), args.next()) else {
        return Err("usage: seeds FILE FOLDER".into());
    };
    let record = Record::read(&file)?;
    let put = |target: &str, name: &str, seed: &[u8]| -> std::io::Result<()> {
        let folder: &Path = &folder.join(target);
        std::fs::create_dir_all(folder)?;
        std::fs::write(folder.join(name), seed)
    };
    let stem = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    put("policy_parse", &format!("{stem}.toml"), record.header.policy.as_bytes())?;
    let mut numbers = BTreeMap::new();
    let mut seeds = 0;
    for call in &record.calls {
        let number = numbers.entry(call.call.as_str()).and_modify(|number| *number += 1).or_insert(1);
        let name = format!("{}-{number}", call.call);
        if let Some(seed) = sysemu_fuzz::seed(call) {
            put("decode", &name, &seed)?;
            seeds += 1;
        }
        put("filter_eval", &name, &sysemu_fuzz::filter_seed(call))?;
    }
    println!("{seeds} of {} calls became seeds of decode", record.calls.len());
    Ok(())
}
