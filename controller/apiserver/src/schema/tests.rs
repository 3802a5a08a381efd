//! Tests of admission: the words for each fault, pruning, defaults, ratcheting and rules.
#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::{FieldErrorKind, FieldValidation, admit};
use crate::registry::{Kind, Schema};

fn kind(spec: Value) -> Kind {
    Kind {
        group: "example.com".into(),
        version: "v1".into(),
        kind: "Widget".into(),
        plural: "widgets".into(),
        namespaced: true,
        schema: Some(Schema::new(json!({"type": "object", "required": ["spec"], "properties": {
            "spec": spec,
            "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        }}))),
        status: true,
        ..Kind::default()
    }
}

fn widget(spec: Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": spec})
}

/// The errors of admitting a widget, each as it is printed.
fn faults(schema: Value, spec: Value) -> Vec<String> {
    faults_of_change(schema, None, spec)
}

fn faults_of_change(schema: Value, old: Option<Value>, spec: Value) -> Vec<String> {
    let old = old.map(widget);
    match admit(&kind(schema), &mut widget(spec), old.as_ref(), FieldValidation::Strict) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.iter().map(ToString::to_string).collect(),
    }
}

/// What is stored of a widget's spec.
fn admitted(schema: Value, spec: Value) -> Value {
    let mut object = widget(spec);
    admit(&kind(schema), &mut object, None, FieldValidation::Ignore).unwrap();
    object["spec"].take()
}

fn with_field(schema: Value) -> Value {
    json!({"type": "object", "properties": {"x": schema}})
}

#[test]
fn every_fault_has_the_words_of_kubernetes() {
    let string = || json!({"type": "string"});
    let cases = [
        (
            json!({"type": "integer", "minimum": 0}),
            json!(-1),
            "spec.x: Invalid value: -1: spec.x in body should be greater than or equal to 0",
        ),
        (
            json!({"type": "integer", "format": "int32"}),
            json!(2_147_483_648_i64),
            "spec.x: Invalid value: 2147483648: spec.x in body must be of type int32: 2147483648",
        ),
        (
            json!({"type": "integer", "maximum": 3}),
            json!(4),
            "spec.x: Invalid value: 4: spec.x in body should be less than or equal to 3",
        ),
        (
            json!({"type": "number", "minimum": 0, "exclusiveMinimum": true}),
            json!(0),
            "spec.x: Invalid value: 0: spec.x in body should be greater than 0",
        ),
        (
            json!({"type": "number", "exclusiveMaximum": 1.5}),
            json!(1.5),
            "spec.x: Invalid value: 1.5: spec.x in body should be less than 1.5",
        ),
        (
            json!({"type": "integer", "multipleOf": 4}),
            json!(6),
            "spec.x: Invalid value: 6: spec.x in body should be a multiple of 4",
        ),
        (
            json!({"type": "integer"}),
            json!("3"),
            "spec.x: Invalid value: \"string\": spec.x in body must be of type integer: \"string\"",
        ),
        (
            json!({"type": "integer"}),
            json!(1.5),
            "spec.x: Invalid value: \"number\": spec.x in body must be of type integer: \"number\"",
        ),
        (
            json!({"type": "array", "items": string()}),
            json!([null]),
            "spec.x[0]: Invalid value: \"null\": spec.x[0] in body must be of type string: \"null\"",
        ),
        (
            json!({"type": "string", "enum": ["Latency", "Throughput"]}),
            json!("Fast"),
            "spec.x: Unsupported value: \"Fast\": supported values: \"Latency\", \"Throughput\"",
        ),
        (json!({"type": "string", "maxLength": 2}), json!("abc"), "spec.x: Too long: may not be more than 2 bytes"),
        (
            json!({"type": "string", "minLength": 1}),
            json!(""),
            "spec.x: Invalid value: \"\": spec.x in body should be at least 1 chars long",
        ),
        (
            json!({"type": "string", "pattern": "^[a-z]+$"}),
            json!("A"),
            "spec.x: Invalid value: \"A\": spec.x in body should match '^[a-z]+$'",
        ),
        (
            json!({"type": "string", "format": "date-time"}),
            json!("now"),
            "spec.x: Invalid value: \"now\": spec.x in body must be of type date-time: \"now\"",
        ),
        (
            json!({"type": "array", "items": string(), "maxItems": 1}),
            json!(["a", "b"]),
            "spec.x: Too many: 2: must have at most 1 items",
        ),
        (
            json!({"type": "array", "items": string(), "minItems": 1}),
            json!([]),
            "spec.x: Invalid value: 0: spec.x in body should have at least 1 items",
        ),
        (
            json!({"type": "object", "properties": {"y": string()}, "required": ["y"]}),
            json!({}),
            "spec.x.y: Required value",
        ),
        (
            json!({"type": "object", "properties": {"y": string()}, "required": ["y"]}),
            json!({"y": null}),
            "spec.x.y: Required value",
        ),
        (
            json!({"type": "object", "additionalProperties": {"type": "integer"}}),
            json!({"k": true}),
            "spec.x.k: Invalid value: \"boolean\": spec.x.k in body must be of type integer: \"boolean\"",
        ),
        (
            json!({"type": "array", "items": string(), "x-kubernetes-list-type": "set"}),
            json!(["a", "b", "a"]),
            "spec.x[2]: Duplicate value: \"a\"",
        ),
        (
            json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "properties": {"name": string(), "v": string()}}}),
            json!([{"name": "a"}, {"name": "a", "v": "other"}]),
            "spec.x[1]: Duplicate value: {\"name\":\"a\"}",
        ),
        (
            json!({"x-kubernetes-int-or-string": true}),
            json!(true),
            "spec.x: Invalid value: \"boolean\": spec.x in body must be of type integer,string: \"boolean\"",
        ),
        (
            json!({"type": "integer", "not": {"enum": [3]}}),
            json!(3),
            "spec.x: Invalid value: \"\": \"spec.x\" must not validate the schema (not)",
        ),
        (
            json!({"type": "integer", "oneOf": [{"minimum": 1}, {"minimum": 2}]}),
            json!(3),
            "spec.x: Invalid value: \"\": \"spec.x\" must validate one and only one schema (oneOf). Found 2 valid alternatives",
        ),
    ];
    for (schema, value, expected) in cases {
        assert_eq!(faults(with_field(schema.clone()), json!({"x": value})), [expected], "schema {schema}");
    }
}

#[test]
fn right_values_pass_each_check() {
    let cases = [
        (json!({"type": "integer", "minimum": 0, "maximum": 0, "multipleOf": 5}), json!(0)),
        (json!({"type": "integer"}), json!(3.0)),
        (json!({"type": "number"}), json!(3)),
        (json!({"type": "string", "nullable": true}), json!(null)),
        (json!({"type": "string", "maxLength": 2, "minLength": 2}), json!("äö")),
        (json!({"type": "string", "pattern": "^[a-z]+$", "format": "no-such-format"}), json!("a")),
        (json!({"x-kubernetes-int-or-string": true}), json!("50%")),
        (json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]}), json!(3)),
        (
            json!({"type": "object", "oneOf": [{"required": ["a"]}, {"required": ["b"]}],
            "properties": {"a": {"type": "string"}, "b": {"type": "string"}}}),
            json!({"a": "1"}),
        ),
    ];
    for (schema, value) in cases {
        assert_eq!(faults(with_field(schema.clone()), json!({"x": value})), [] as [&str; 0], "schema {schema}");
    }
}

#[test]
fn formats_are_told_apart() {
    let cases = [
        ("date-time", "2026-11-22T10:00:00Z", "2026-11-22 10:00:00Z"),
        ("date-time", "2026-11-22T10:00:00.5+02:00", "2026-11-22T10:00:00"),
        ("date", "2026-11-22", "2026-13-22"),
        ("duration", "1h30m", "1h30"),
        ("duration", "3 days", "99999999999h"),
        ("byte", "aGk=", "a*"),
        ("uuid", "6ba7b810-9dad-11d1-80b4-00c04fd430c8", "6ba7b810"),
        ("uuid4", "6ba7b810-9dad-41d1-80b4-00c04fd430c8", "6ba7b810-9dad-11d1-80b4-00c04fd430c8"),
        ("ipv4", "10.0.0.1", "::1"),
        ("ipv6", "::1", "10.0.0.1"),
        ("cidr", "10.0.0.0/8", "10.0.0.0/33"),
        ("mac", "00:11:22:33:44:55", "00:11:22"),
        ("hostname", "a.example.com", "-a"),
        ("uri", "https://example.com/x", "example"),
        ("email", "a@example.com", "example.com"),
        ("hexcolor", "#fff", "#ggg"),
    ];
    for (format, right, wrong) in cases {
        let schema = with_field(json!({"type": "string", "format": format}));
        assert_eq!(faults(schema.clone(), json!({"x": right})), [] as [&str; 0], "{format} {right}");
        assert_eq!(faults(schema, json!({"x": wrong})).len(), 1, "{format} {wrong}");
    }
}

#[test]
fn an_unknown_field_is_refused_told_or_dropped_by_mode() {
    let kind = kind(json!({"type": "object", "properties": {"replicas": {"type": "integer"},
        "ports": {"type": "array", "items": {"type": "object", "properties": {"name": {"type": "string"}}}}}}));
    let typo = widget(json!({"replica": 3, "ports": [{"name": "a", "zzz": 1}]}));

    let mut object = typo.clone();
    let errors = admit(&kind, &mut object, None, FieldValidation::Strict).unwrap_err();
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        ["unknown field \"spec.ports[0].zzz\"", "unknown field \"spec.replica\" (did you mean \"replicas\"?)"]
    );
    assert!(errors.iter().all(|error| error.is_unknown_field()));

    let mut object = typo.clone();
    assert_eq!(admit(&kind, &mut object, None, FieldValidation::Warn).unwrap(), texts);
    assert_eq!(object["spec"], json!({"ports": [{"name": "a"}]}));

    let mut object = typo;
    assert_eq!(admit(&kind, &mut object, None, FieldValidation::Ignore).unwrap(), [] as [&str; 0]);
    assert_eq!(object["spec"], json!({"ports": [{"name": "a"}]}));
}

#[test]
fn preserved_and_embedded_parts_keep_their_fields() {
    let schema = json!({"type": "object", "properties": {
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
            "properties": {"strict": {"type": "object", "properties": {}}}},
        "resource": {"type": "object", "x-kubernetes-embedded-resource": true,
            "properties": {"spec": {"type": "object", "properties": {}}}},
        "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"a": {"type": "integer"}}}},
    }});
    let spec = json!({
        "free": {"any": {"thing": [1]}, "strict": {"gone": 1}},
        "resource": {"apiVersion": "v1", "kind": "X", "metadata": {"name": "n"}, "spec": {"gone": 1}, "gone": 1},
        "map": {"key": {"a": 1, "gone": 2}},
    });
    assert_eq!(
        admitted(schema, spec),
        json!({
            "free": {"any": {"thing": [1]}, "strict": {}},
            "resource": {"apiVersion": "v1", "kind": "X", "metadata": {"name": "n"}, "spec": {}},
            "map": {"key": {"a": 1}},
        })
    );
}

#[test]
fn defaults_fill_what_is_missing_or_null_at_every_depth() {
    let schema = json!({"type": "object", "properties": {
        "replicas": {"type": "integer", "default": 1},
        "nullable": {"type": "integer", "nullable": true, "default": 7},
        "nested": {"type": "object", "default": {}, "properties": {"mode": {"type": "string", "default": "auto"}}},
        "list": {"type": "array", "items": {"type": "object", "properties": {"p": {"type": "string", "default": "TCP"}}}},
        "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"p": {"type": "string", "default": "x"}}}},
        "plain": {"type": "string"},
    }});
    assert_eq!(
        admitted(
            schema,
            json!({"replicas": null, "nullable": null, "list": [{}], "map": {"a": {}, "b": null}, "plain": null})
        ),
        json!({"replicas": 1, "nullable": null, "nested": {"mode": "auto"}, "list": [{"p": "TCP"}], "map": {"a": {"p": "x"}}})
    );
}

#[test]
fn an_unchanged_fault_is_forgiven_and_a_changed_one_is_not() {
    let schema = || {
        json!({"type": "object", "properties": {
            "x": {"type": "integer", "minimum": 5}, "y": {"type": "integer"},
            "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "properties": {"name": {"type": "string"}, "port": {"type": "integer", "minimum": 1}}}},
            "loose": {"type": "array", "items": {"type": "integer", "minimum": 1}},
        }})
    };
    let old = || Some(json!({"x": 1, "y": 1, "ports": [{"name": "a", "port": 0}], "loose": [0]}));
    let change = |spec| faults_of_change(schema(), old(), spec);
    assert_eq!(change(json!({"x": 1, "y": 2})), [] as [&str; 0]);
    assert_eq!(change(json!({"x": 2, "y": 1})).len(), 1);
    assert_eq!(change(json!({"ports": [{"name": "b", "port": 1}, {"name": "a", "port": 0}]})), [] as [&str; 0]);
    // Items of a list without keys have no old value to be equal to.
    assert_eq!(change(json!({"loose": [0, 1]})).len(), 1);
}

fn ruled(rules: Value) -> Value {
    json!({"type": "object", "properties": {"min": {"type": "integer"}, "max": {"type": "integer"}, "name": {"type": "string"}},
        "x-kubernetes-validations": rules})
}

#[test]
fn a_failed_rule_is_told_with_its_message_reason_and_path() {
    let rule = || json!({"rule": "self.min <= self.max", "message": "min must not exceed max"});
    let spec = || json!({"min": 3, "max": 1});
    let with = |more: Value| {
        let mut rule = rule();
        rule.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        faults(ruled(json!([rule])), spec())
    };
    assert_eq!(with(json!({})), ["spec: Invalid value: \"object\": min must not exceed max"]);
    assert_eq!(with(json!({"fieldPath": ".min"})), ["spec.min: Invalid value: \"object\": min must not exceed max"]);
    assert_eq!(with(json!({"reason": "FieldValueForbidden"})), ["spec: Forbidden: min must not exceed max"]);
    assert_eq!(
        with(json!({"messageExpression": "'min ' + string(self.min) + ' is over max ' + string(self.max)"})),
        ["spec: Invalid value: \"object\": min 3 is over max 1"]
    );
    let unnamed = faults(ruled(json!([{"rule": "self.min <= self.max"}])), spec());
    assert_eq!(unnamed, ["spec: Invalid value: \"object\": failed rule: self.min <= self.max"]);
}

#[test]
fn a_transition_rule_compares_with_the_old_object_only() {
    let schema = || ruled(json!([{"rule": "self.name == oldSelf.name", "message": "name is immutable"}]));
    assert_eq!(faults(schema(), json!({"name": "a"})), [] as [&str; 0]);
    let same = faults_of_change(schema(), Some(json!({"name": "a"})), json!({"name": "a", "min": 1}));
    assert_eq!(same, [] as [&str; 0]);
    let moved = faults_of_change(schema(), Some(json!({"name": "a"})), json!({"name": "b"}));
    assert_eq!(moved, ["spec: Invalid value: \"object\": name is immutable"]);
}

#[test]
fn a_transition_rule_pairs_list_items_by_their_keys() {
    let schema = json!({"type": "object", "properties": {"ports": {"type": "array",
        "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
        "items": {"type": "object", "properties": {"name": {"type": "string"}, "port": {"type": "integer",
            "x-kubernetes-validations": [{"rule": "self >= oldSelf", "message": "a port may only grow"}]}}}}}});
    let old = json!({"ports": [{"name": "a", "port": 10}, {"name": "b", "port": 20}]});
    let swapped = json!({"ports": [{"name": "b", "port": 20}, {"name": "a", "port": 10}]});
    assert_eq!(faults_of_change(schema.clone(), Some(old.clone()), swapped), [] as [&str; 0]);
    let shrunk = json!({"ports": [{"name": "b", "port": 15}, {"name": "a", "port": 10}]});
    assert_eq!(
        faults_of_change(schema, Some(old), shrunk),
        ["spec.ports[0].port: Invalid value: 15: a port may only grow"]
    );
}

#[test]
fn an_unchanged_node_is_forgiven_its_plain_rules() {
    let schema = json!({"type": "object", "properties": {"y": {"type": "integer"},
        "x": {"type": "integer", "x-kubernetes-validations": [{"rule": "self > 5"}]}}});
    let old = Some(json!({"x": 1, "y": 1}));
    assert_eq!(faults_of_change(schema.clone(), old.clone(), json!({"x": 1, "y": 2})), [] as [&str; 0]);
    assert_eq!(
        faults_of_change(schema, old, json!({"x": 2, "y": 1})),
        ["spec.x: Invalid value: 2: failed rule: self > 5"]
    );
}

#[test]
fn rules_see_defaults_and_wait_for_a_right_structure() {
    let schema = json!({"type": "object", "properties": {"a": {"type": "integer", "default": 2}, "b": {"type": "integer"}},
        "x-kubernetes-validations": [{"rule": "self.a == 2 && has(self.b)"}]});
    assert_eq!(faults(schema.clone(), json!({"b": 1})), [] as [&str; 0]);
    let broken = faults(schema, json!({"b": "text"}));
    assert_eq!(broken.len(), 2);
    assert_eq!(
        broken[1],
        "<nil>: Invalid value: \"null\": some validation rules were not checked because the object was invalid; \
         correct the existing errors to complete validation"
    );
}

#[test]
fn a_rule_that_cannot_be_evaluated_refuses_the_object() {
    let errors = faults(ruled(json!([{"rule": "self.name.size() > 0"}])), json!({}));
    assert_eq!(errors.len(), 1);
    assert!(errors[0].contains("evaluating rule: self.name.size() > 0"), "{errors:?}");
}

#[test]
fn metadata_is_checked_for_every_kind() {
    let check = |metadata: Value| -> Vec<String> {
        let mut object = json!({"metadata": metadata, "spec": {}});
        let kind = kind(json!({"type": "object", "properties": {}}));
        let errors = admit(&kind, &mut object, None, FieldValidation::Strict).err().unwrap_or_default();
        errors.into_iter().map(|error| error.path).collect()
    };
    assert_eq!(
        check(
            json!({"name": "a.b-c", "generateName": "a-", "labels": {"app.example.com/x": "A_1"}, "annotations": {"a": "any text"}})
        ),
        [] as [&str; 0]
    );
    assert_eq!(check(json!({"name": "Upper"})), ["metadata.name"]);
    assert_eq!(check(json!({"labels": {"-a": "b"}})), ["metadata.labels"]);
    assert_eq!(check(json!({"labels": {"a": "b c"}})), ["metadata.labels"]);
    assert_eq!(check(json!({"labels": {"a": 1}})), ["metadata.labels"]);
    assert_eq!(check(json!({"labels": []})), ["metadata.labels"]);
    assert_eq!(check(json!({"finalizers": ["a/b/c"]})), ["metadata.finalizers[0]"]);
    assert_eq!(
        check(json!({"ownerReferences": [{"apiVersion": "v1", "kind": "X", "name": "x"}]})),
        ["metadata.ownerReferences[0].uid"]
    );
    assert_eq!(check(json!({"label": {}})), ["metadata.label"]);
    assert_eq!(check(json!("text")), ["metadata"]);

    let mut core =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "../etc"}, "data": {"any": "thing"}});
    assert_eq!(admit(&Kind::default(), &mut core, None, FieldValidation::Strict).unwrap_err()[0].path, "metadata.name");
    core["metadata"]["name"] = json!("kube-root-ca.crt");
    assert!(admit(&Kind::default(), &mut core, None, FieldValidation::Strict).is_ok());
}

#[test]
fn a_cause_carries_reason_words_and_field() {
    let errors = admit(
        &kind(with_field(json!({"type": "integer", "minimum": 0}))),
        &mut widget(json!({"x": -1})),
        None,
        FieldValidation::Strict,
    )
    .unwrap_err();
    assert_eq!(errors[0].kind, FieldErrorKind::Invalid);
    assert_eq!(
        errors[0].cause(),
        json!({"reason": "FieldValueInvalid", "field": "spec.x",
            "message": "Invalid value: -1: spec.x in body should be greater than or equal to 0"})
    );
}

#[test]
fn what_is_no_object_is_refused_without_a_panic() {
    for mut value in [json!(null), json!([]), json!("x"), json!(1)] {
        assert!(admit(&kind(json!({})), &mut value, None, FieldValidation::Strict).is_err());
    }
    // A schema that is nonsense must not bring the server down either.
    for schema in [
        json!(null),
        json!({"type": 3, "enum": 1, "properties": [], "items": 4, "required": {}, "x-kubernetes-validations": [1]}),
    ] {
        let _ = admit(&kind(schema), &mut widget(json!({"x": [1]})), None, FieldValidation::Ignore);
    }
}

#[test]
fn rules_on_extreme_values_end_in_an_error_and_never_in_a_panic() {
    let schema = |rule: &str| {
        json!({"type": "object", "x-kubernetes-validations": [{"rule": rule}], "properties": {
            "min": {"type": "integer"}, "max": {"type": "integer"}, "name": {"type": "string"},
            "list": {"type": "array", "items": {"type": "integer"}},
            "time": {"type": "string", "format": "date-time"}, "wait": {"type": "string", "format": "duration"}}})
    };
    let spec = json!({"min": i64::MIN, "max": i64::MAX, "name": "aé", "list": [1],
        "time": "9999-12-31T23:59:59Z", "wait": "2562047h"});
    for rule in [
        "self.max + self.max > 0",
        "self.min - self.max > 0",
        "self.max * self.max > 0",
        "-self.min > 0",
        "self.min / (self.max - self.max) > 0",
        "self.min % (self.max - self.max) > 0",
        "self.min / -1 > 0",
        "self.min % -1 > 0",
        "self.list[9] > 0",
        "self.list[-1] > 0",
        "self.name.substring(7) == ''",
        "self.name.substring(1, 0) == ''",
        "self.name.charAt(-1) == ''",
        "self.name.matches('(')",
        "self.name.find('[') == ''",
        "self.time + self.wait > self.time",
        "self.wait + self.wait > self.wait",
        "self.list.map(x, x + self.max).sum() > 0",
        "self.name.lastIndexOf('a', -1) == 0",
        "int(self.name) > 0",
        "uint(self.min) > 0u",
        "duration('999999999999h') > self.wait",
        "timestamp('nonsense') > self.time",
        "self.nothing.deeper",
        "self",
        "null > 1",
        "self.list.all(x, self.list.all(y, x / 0 == y))",
        "quantity('zz').isGreaterThan(quantity('1'))",
        "url('::').getHost() == ''",
        "self.list.slice(1, 0) == []",
        "'%d'.format(['x']) == ''",
        "self.time.getFullYear('Mars/Base') > 0",
    ] {
        let errors = faults(schema(rule), spec.clone());
        assert!(errors.len() <= 1, "{rule}: {errors:?}");
    }
}

#[test]
fn a_rule_that_cannot_be_evaluated_refuses_every_object() {
    let refused = |rule: String| faults(ruled(json!([{"rule": rule}])), json!({"min": 1}));
    for (rule, expected) in [
        ("(".repeat(100_000), "split it"),
        ("!".repeat(100_000), "split it"),
        ("1 + ".repeat(1500) + "1 > 0", "split it"),
        ("[".repeat(65), "compilation failed"),
    ] {
        let errors = refused(rule);
        assert_eq!(errors.len(), 1);
        assert!(errors[0].contains("a rule of the definition is wrong") && errors[0].contains(expected), "{errors:?}");
    }
    // Just within the bounds, the stack of a test thread is enough.
    assert_eq!(refused(format!("{}self.min{} == 1", "(".repeat(64), ")".repeat(64))), [] as [&str; 0]);
    assert_eq!(refused(format!("{}1 > 0", "1 + ".repeat(512))), [] as [&str; 0]);
    assert_eq!(refused(format!("{}false", "!".repeat(511))), [] as [&str; 0]);
    let chosen = |n| "self.min == 2 ? false : ".repeat(n) + "true";
    assert_eq!(refused(chosen(20)), [] as [&str; 0]);
    assert_eq!(refused(chosen(200)).len(), 1);
}

#[test]
fn numbers_are_doubles_to_a_rule_however_they_are_written() {
    let schema = |rule: &str| {
        json!({"type": "object", "x-kubernetes-validations": [{"rule": rule}],
            "properties": {"x": {"type": "number"}, "n": {"type": "integer"}}})
    };
    for x in [json!(1), json!(1.0)] {
        for rule in [
            "self.x >= 0.5",
            "self.x + 0.5 == 1.5",
            "self.x > 0",
            "self.x < 2",
            "self.x == 1.0",
            "self.x == double(self.n)",
            "self.x <= self.n",
            "self.n >= 0.5",
        ] {
            let spec = json!({"x": x, "n": 1});
            assert_eq!(faults(schema(rule), spec), [] as [&str; 0], "{x} {rule}");
        }
    }
}
