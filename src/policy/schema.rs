//! The JSON Schema (draft 2020-12) of policy files, for editors.

use serde_json::{Map, Value, json};

use super::keys::{Kind, SECTIONS, Section};

/// The schema.
pub fn json_schema() -> Value {
    let mut schema = object(&SECTIONS[0]);
    let properties = schema["properties"].as_object_mut().expect("made as an object");
    for section in &SECTIONS[1..] {
        let table = object(section);
        let value = if section.is_array { json!({ "type": "array", "items": table }) } else { table };
        properties.insert(section.name.to_owned(), value);
    }
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["title"] = json!("sysemu policy");
    schema["properties"]["schema"] = json!({ "const": 1, "description": "version of the format" });
    schema
}

fn object(section: &Section) -> Value {
    let mut properties = Map::new();
    for key in section.keys {
        let mut value = of_kind(key.kind);
        value["description"] = json!(key.doc);
        properties.insert(key.name.to_owned(), value);
    }
    let required: Vec<&str> = section.keys.iter().filter(|key| key.required).map(|key| key.name).collect();
    json!({
        "type": "object",
        "description": section.doc,
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

fn of_kind(kind: Kind) -> Value {
    let number = json!({ "type": "integer", "minimum": 0 });
    match kind {
        Kind::Text => json!({ "type": "string" }),
        Kind::OneOf(words) => json!({ "enum": words }),
        Kind::Number => number,
        Kind::Size => json!({ "anyOf": [number, { "type": "string", "pattern": "^[0-9]+[KkMmGgTt]?$" }] }),
        Kind::Flag => json!({ "type": "boolean" }),
        Kind::Range => {
            let bound =
                json!({ "anyOf": [{ "type": "integer" }, { "type": "string", "pattern": "^-?[0-9]+$" }] });
            json!({ "type": "array", "items": bound, "minItems": 2, "maxItems": 2 })
        }
        Kind::Texts => json!({ "type": "array", "items": { "type": "string" } }),
        Kind::Mode => json!({ "type": "string", "pattern": "^(0o)?[0-7]{1,5}$" }),
        Kind::Magic => json!({ "type": "string" }),
    }
}
