//! What a token says that it permits.
//!
//! A token of Amplience is a JSON Web Token, whose claim `permissions` is base64 of gzip of JSON. That is not
//! documented and may change, so it is read as an explanation for people, and nothing is decided by it. The signature
//! is not checked: the token is our own.

use amp_token::sanitize::sanitize;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use flate2::read::GzDecoder;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

/// The largest claim that is unpacked, in bytes. Some kilobytes of gzip may be gigabytes of zeros.
const MAX_UNPACKED: usize = 1024 * 1024;

/// The objects and rights that a token lists.
#[derive(Debug)]
pub struct Permissions(Vec<Area>);

/// The names are Amplience's.
#[derive(Debug, Deserialize)]
struct Area {
    #[serde(rename = "n")]
    name: String,
    #[serde(rename = "t", default)]
    types: Vec<Type>,
}

#[derive(Debug, Deserialize)]
struct Type {
    #[serde(rename = "n")]
    name: String,
    #[serde(rename = "e", default)]
    entries: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
struct Entry {
    id: String,
    #[serde(rename = "r", default)]
    rights: Vec<String>,
}

#[derive(Deserialize)]
struct Claims {
    permissions: Option<Value>,
}

impl Permissions {
    /// Reads the claim; the error says why that is not possible.
    pub fn of_token(token: &str) -> Result<Self, &'static str> {
        let claims = token.split('.').nth(1).ok_or("it is not a JSON Web Token")?;
        let claims = URL_SAFE_NO_PAD.decode(claims).map_err(|_| "its claims are not base64")?;
        let claims: Claims = serde_json::from_slice(&claims).map_err(|_| "its claims are not a JSON object")?;
        let packed = match claims.permissions {
            Some(Value::String(packed)) => packed,
            Some(_) => return Err("its claim \"permissions\" is not a string"),
            None => return Err("it has no claim \"permissions\""),
        };
        let packed = STANDARD.decode(packed).map_err(|_| "its claim \"permissions\" is not base64")?;
        let mut text = Vec::new();
        GzDecoder::new(packed.as_slice())
            .take(MAX_UNPACKED as u64 + 1)
            .read_to_end(&mut text)
            .map_err(|_| "its claim \"permissions\" is not gzip")?;
        if text.len() > MAX_UNPACKED {
            return Err("its claim \"permissions\" is larger than 1 MiB");
        }
        let areas =
            serde_json::from_slice(&text).map_err(|_| "its claim \"permissions\" has another form than known")?;
        Ok(Permissions(areas))
    }

    fn entries(&self) -> impl Iterator<Item = (&Area, &Type, &Entry)> {
        self.0.iter().flat_map(|area| {
            area.types.iter().flat_map(move |kind| kind.entries.iter().map(move |entry| (area, kind, entry)))
        })
    }

    /// The area, the type, the object and its rights.
    pub fn rows(&self) -> Vec<[String; 4]> {
        let shown = |text: &str| sanitize(text, &[]);
        let row = |(area, kind, entry): (&Area, &Type, &Entry)| {
            [shown(&area.name), shown(&kind.name), shown(&entry.id), shown(&entry.rights.join(", "))]
        };
        self.entries().map(row).collect()
    }

    pub fn to_json(&self) -> Value {
        let row = |(area, kind, entry): (&Area, &Type, &Entry)| json!({ "area": area.name, "type": kind.name, "object": entry.id, "rights": entry.rights });
        Value::Array(self.entries().map(row).collect())
    }

    /// One line about all of them: the objects for each set of rights.
    pub fn summary(&self) -> String {
        let mut objects: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for (_, _, entry) in self.entries() {
            objects.entry(entry.rights.join("+")).or_default().push(&entry.id);
        }
        if objects.is_empty() {
            return "the token lists none".to_owned();
        }
        let lists: Vec<_> = objects.iter().map(|(rights, ids)| format!("{rights}: {}", ids.join(", "))).collect();
        sanitize(&lists.join("; "), &[])
    }

    /// What the token lists for the kind of object that a request is about, as the explanation of a 403: the end of a
    /// message. `None` if the path names no kind of object.
    pub fn explain(&self, method: &str, path: &str) -> Option<String> {
        let object = object_of(path)?;
        let of_object = self.entries().filter(|(_, _, entry)| entry.id == object);
        let rights: BTreeSet<_> = of_object.flat_map(|(_, _, entry)| &entry.rights).collect();
        if rights.is_empty() {
            return Some(format!("this key has no permission for {object} (amp-token permissions)"));
        }
        let rights: Vec<_> = rights.into_iter().map(|right| sanitize(right, &[])).collect();
        let rights = rights.join(", ");
        let is_reading = matches!(method, "GET" | "HEAD");
        // The names of the rights to change something are not documented.
        match (is_reading, rights.as_str()) {
            (false, "READ") => Some(format!("this key may only READ {object} (amp-token permissions)")),
            _ => Some(format!("this key has {object}: {rights} (amp-token permissions)")),
        }
    }
}

/// The kind of object that the last collection of a path has, as permissions name it: CONTENT_ITEM for content-items.
fn object_of(path: &str) -> Option<String> {
    let path = path.split(['?', '#']).next()?;
    let is_collection = |part: &&str| {
        part.ends_with('s') && part.len() > 2 && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')
    };
    let collection = path.split('/').rfind(is_collection)?;
    let singular = match collection.strip_suffix("ies") {
        Some(stem) => format!("{stem}y"),
        None => collection.trim_end_matches('s').to_owned(),
    };
    Some(singular.to_ascii_uppercase().replace('-', "_"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use std::io::Write;

    fn packed(text: &[u8]) -> String {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(text).unwrap();
        STANDARD.encode(encoder.finish().unwrap())
    }

    fn token(permissions: &Value) -> String {
        let claims = json!({ "sub": "x", "permissions": permissions });
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string()))
    }

    fn problem(token: &str) -> &'static str {
        Permissions::of_token(token).unwrap_err()
    }

    #[test]
    fn the_claim_is_unpacked() {
        let text = r#"[{"n":"CONTENT","t":[{"n":"FUNCTIONAL","e":[{"id":"CONTENT_ITEM","r":["READ"]},{"id":"HUB","r":["READ","EDIT"],"x":1}]}]}]"#;
        let permissions = Permissions::of_token(&token(&packed(text.as_bytes()).into())).unwrap();
        assert_eq!(permissions.rows()[1].join(" "), "CONTENT FUNCTIONAL HUB READ, EDIT");
        assert_eq!(permissions.summary(), "READ: CONTENT_ITEM; READ+EDIT: HUB");
        for (method, path, explained) in [
            (
                "PATCH",
                "/v2/content/content-items/5f",
                Some("this key may only READ CONTENT_ITEM (amp-token permissions)"),
            ),
            ("GET", "/v2/content/hubs?size=1", Some("this key has HUB: EDIT, READ (amp-token permissions)")),
            (
                "POST",
                "/v2/content/content-repositories/1/folders",
                Some("this key has no permission for FOLDER (amp-token permissions)"),
            ),
            (
                "GET",
                "/v2/content/content-repositories",
                Some("this key has no permission for CONTENT_REPOSITORY (amp-token permissions)"),
            ),
            ("POST", "/graphql", None),
            ("GET", "/", None),
        ] {
            assert_eq!(permissions.explain(method, path).as_deref(), explained, "{path}");
        }
    }

    #[test]
    fn what_is_not_a_claim_is_explained() {
        for (token, expected) in [
            ("amp_pat_x".to_owned(), "it is not a JSON Web Token"),
            ("a.!.b".to_owned(), "its claims are not base64"),
            ("e30.W10.x".to_owned(), "its claims are not a JSON object"),
            ("e30.e30.x".to_owned(), "it has no claim \"permissions\""),
            (token(&json!(["a"])), "its claim \"permissions\" is not a string"),
            (token(&json!("*")), "its claim \"permissions\" is not base64"),
            (token(&json!("AAAA")), "its claim \"permissions\" is not gzip"),
            (token(&packed(b"{}").into()), "its claim \"permissions\" has another form than known"),
            (
                token(&packed("[".repeat(100_000).as_bytes()).into()),
                "its claim \"permissions\" has another form than known",
            ),
        ] {
            assert_eq!(problem(&token), expected, "{token}");
        }
    }

    /// 64 MiB of zeros are 65 kB of gzip.
    #[test]
    fn a_bomb_is_not_unpacked() {
        assert_eq!(
            problem(&token(&packed(&vec![b' '; 64 << 20]).into())),
            "its claim \"permissions\" is larger than 1 MiB"
        );
    }
}
