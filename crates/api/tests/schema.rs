//! The published schemas are those of the code. `make docs-schema` writes them anew.

use std::path::Path;

use api::explain::Explained;
use api::listing::{Flow, Page, Template};
use api::request::{Answer, Request};
use api::status::{Status, example};
use schemars::{Schema, schema_for};

fn published(name: &str, schema: &Schema) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let path = folder.join(name);
    let text = format!("{:#}\n", schema.as_value());
    if std::env::var_os("POINTSMAN_WRITE_SCHEMAS").is_some() {
        std::fs::write(&path, &text).expect("written");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == text, "docs/{name} is not what the code says: run `make docs-schema`");
}

#[test]
fn of_the_status_document() {
    published("status.schema.json", &schema_for!(Status));
}

#[test]
fn of_the_control_protocol() {
    published("control-request.schema.json", &schema_for!(Request));
    published("control-answer.schema.json", &schema_for!(Answer<serde_json::Value>));
    published("explain.schema.json", &schema_for!(Answer<Explained>));
    published("flows.schema.json", &schema_for!(Answer<Page<Flow<'_>>>));
    published("persistence.schema.json", &schema_for!(Answer<Page<Template<'_>>>));
}

#[test]
fn states_that_no_machine_knows_cannot_be_expressed() {
    let mut value = serde_json::to_value(example()).expect("JSON");
    for (path, word) in [
        ("/services/0/backends/0/state", "upp"),
        ("/services/0/scheduler", "random"),
        ("/services/0/protocol", "sctp"),
        ("/services/0/backends/1/checks/0/state", "fine"),
    ] {
        let place = value.pointer_mut(path).unwrap_or_else(|| panic!("no {path}"));
        let before = std::mem::replace(place, word.into());
        let error = serde_json::from_value::<Status>(value.clone()).expect_err(path).to_string();
        assert!(error.contains(&format!("unknown variant `{word}`, expected")), "{error}");
        *value.pointer_mut(path).expect(path) = before;
    }
    serde_json::from_value::<Status>(value).expect("as before");
}

#[test]
fn requests_are_the_lines_that_are_documented() {
    let lines = [
        r#"{"version":1,"verb":"status"}"#,
        r#"{"version":1,"verb":"vrrp-resign","arguments":{"instance":"vi1","for_ms":60000}}"#,
        r#"{"version":1,"verb":"vrrp-resign","arguments":{"for_ms":1}}"#,
    ];
    for line in lines {
        let request: Request = serde_json::from_str(line).expect(line);
        assert_eq!(serde_json::to_string(&request).expect("JSON"), line);
    }
    let wrong = r#"{"version":1,"verb":"vrrp-resign","arguments":{"for_ms":1,"force":true}}"#;
    let error = serde_json::from_str::<Request>(wrong).expect_err("a key that does not exist");
    assert!(error.to_string().contains("unknown field `force`"), "{error}");
}
