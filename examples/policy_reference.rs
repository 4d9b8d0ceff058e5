//! Prints the tables of `policies/README.md` from the format's own table of keys.

use sysemu::policy::keys::{Kind, SECTIONS};

fn main() {
    println!("## Keys");
    for section in SECTIONS {
        println!("\n### {}\n\n{}.\n", section.heading(), section.doc);
        println!("| key | value | meaning |\n|---|---|---|");
        for key in section.keys {
            let kind = match key.kind {
                Kind::Text => "string".to_owned(),
                Kind::OneOf(words) => {
                    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(" ")
                }
                Kind::Number => "number".into(),
                Kind::Size => "number, or string with K M G T".into(),
                Kind::Flag => "true or false".into(),
                Kind::Range => "[smallest, largest]".into(),
                Kind::Texts => "list of strings".into(),
                Kind::Mode => "octal string".into(),
                Kind::Magic => "file system name or 0x number".into(),
            };
            let required = if key.required { "; required" } else { "" };
            println!("| `{}` | {kind} | {}{required} |", key.name, key.doc.replace('|', "\\|"));
        }
    }
}
