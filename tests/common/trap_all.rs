//! A policy that traps every family of calls and changes nothing.

use std::fs;

/// The policy's fixed part.
const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/policies/trap-all.toml");

/// The policy's text, with a `[uname]` table of what uname(2) says here, so that the call is trapped and answered with
/// the same. The host name is left out: it belongs to the UTS namespace of the caller, which a case may change.
///
/// # Errors
///
/// The fixture cannot be read, or uname(2) fails.
pub fn text() -> Result<String, String> {
    let names = nix::sys::utsname::uname().map_err(|error| format!("uname: {error}"))?;
    let mut text = fs::read_to_string(PATH).map_err(|error| format!("{PATH}: {error}"))?;
    text.push_str("\n[uname]\n");
    for (key, value) in [
        ("sysname", names.sysname()),
        ("release", names.release()),
        ("version", names.version()),
        ("machine", names.machine()),
    ] {
        text.push_str(&format!("{key} = {}\n", toml::Value::from(value.to_string_lossy().as_ref())));
    }
    Ok(text)
}
