//! Rules: `x-kubernetes-validations` in CEL, compiled once when a definition is read. Judges no object.

use std::collections::BTreeMap;

use kube_cel::cel::IdedExpr;
use kube_cel::cel::common::ast::{EntryExpr, Expr};
use kube_cel::{CompilationResult, CompiledSchema, compile_schema};
use serde_json::{Map, Value, json};

const RULES: &str = "x-kubernetes-validations";

/// The rules of one node of a schema, and of the nodes below it that have any.
#[derive(Debug, Default)]
pub struct Rules {
    /// Rules that do not look at the old value.
    pub plain: Option<CompiledSchema>,
    /// Rules that compare with `oldSelf`.
    pub transition: Option<CompiledSchema>,
    pub properties: BTreeMap<String, Rules>,
    pub items: Option<Box<Rules>>,
    pub additional: Option<Box<Rules>>,
}

/// A rule that cannot be evaluated; no object passes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleFault {
    /// As in `properties[spec].x-kubernetes-validations[0].rule`.
    pub path: String,
    pub why: RuleFaultKind,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleFaultKind {
    #[error("compilation failed: {detail}")]
    Compilation { detail: String },
    #[error("a rule has at most {MAX_BYTES} bytes: split it")]
    TooLong,
    #[error("a rule lies at most {MAX_DEPTH} operations deep: split it")]
    TooDeep,
    #[error("messages (`Name{{field: value}}`) cannot be made in a rule")]
    Message,
    #[error("it cannot be read: correct or simplify it")]
    Unreadable,
}

// === impl Rules ===

impl Rules {
    /// The rules of a schema, none if no part of it has one; and those among them that cannot be evaluated.
    pub(super) fn compile(schema: &Value) -> (Option<Rules>, Vec<RuleFault>) {
        let mut faults = Vec::new();
        (compile(schema, "", &mut faults), faults)
    }
}

fn compile(schema: &Value, path: &str, faults: &mut Vec<RuleFault>) -> Option<Rules> {
    let within = |below: &str| if path.is_empty() { below.to_owned() } else { format!("{path}.{below}") };
    let mut rules = own(schema, &within(RULES), faults);
    for (name, child) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        if let Some(of_child) = compile(child, &within(&format!("properties[{name}]")), faults) {
            rules.properties.insert(name.clone(), of_child);
        }
    }
    let mut below = |name: &str| {
        let child = schema.get(name).filter(|child| child.is_object())?;
        compile(child, &within(name), faults).map(Box::new)
    };
    rules.items = below("items");
    rules.additional = below("additionalProperties");
    let any = rules.plain.is_some()
        || rules.transition.is_some()
        || !rules.properties.is_empty()
        || rules.items.is_some()
        || rules.additional.is_some();
    any.then_some(rules)
}

/// The rules that stand at the node itself.
fn own(schema: &Value, path: &str, faults: &mut Vec<RuleFault>) -> Rules {
    let (mut plain, mut transition) = (Vec::new(), Vec::new());
    for (i, rule) in schema.get(RULES).and_then(Value::as_array).into_iter().flatten().enumerate() {
        match on_a_deep_stack(|| read(rule)) {
            Ok(compiled) if compiled.is_transition_rule => transition.push(Ok(compiled)),
            Ok(compiled) => plain.push(Ok(compiled)),
            Err(why) => {
                let never = json!({"rule": "false", "message": format!("a rule of the definition is wrong: {why}")});
                plain.extend(compile_schema(&json!({RULES: [never]})).validations);
                faults.push(RuleFault { path: format!("{path}[{i}].rule"), why });
            }
        }
    }
    let with = |validations: Vec<_>| {
        (!validations.is_empty()).then(|| {
            let mut node = compile_schema(&types_of(schema));
            node.validations = validations;
            node
        })
    };
    Rules { plain: with(plain), transition: with(transition), ..Rules::default() }
}

/// Bytes of one expression: its tree may be half as deep, and the parser follows it on the stack.
const MAX_BYTES: usize = 8 << 10;
/// Of an expression's tree, which the evaluator follows on the stack of whoever judges an object.
const MAX_DEPTH: usize = 600;
/// For the deepest tree that so many bytes can be.
const STACK_BYTES: usize = 128 << 20;

/// The stack is deep enough whoever reads a definition. Where the parser meets its own bound on nesting within `a ? b : c`,
/// a build with checked arithmetic panics in it: that ends this thread and nothing else.
fn on_a_deep_stack(
    read: impl FnOnce() -> Result<CompilationResult, RuleFaultKind> + Send,
) -> Result<CompilationResult, RuleFaultKind> {
    std::thread::scope(|scope| {
        let reading = std::thread::Builder::new().name("rule".to_owned()).stack_size(STACK_BYTES);
        let reading = reading.spawn_scoped(scope, read).map_err(|_| RuleFaultKind::Unreadable)?;
        reading.join().unwrap_or(Err(RuleFaultKind::Unreadable))
    })
}

fn read(rule: &Value) -> Result<CompilationResult, RuleFaultKind> {
    let length = |field: &str| rule[field].as_str().map_or(0, str::len);
    if length("rule").max(length("messageExpression")) > MAX_BYTES {
        return Err(RuleFaultKind::TooLong);
    }
    let compiled = match compile_schema(&json!({RULES: [rule]})).validations.pop() {
        Some(Ok(compiled)) => compiled,
        Some(Err(error)) => return Err(RuleFaultKind::Compilation { detail: error.to_string() }),
        None => return Err(RuleFaultKind::Unreadable),
    };
    let programs = [Some(&compiled.program), compiled.message_program.as_ref()];
    for program in programs.into_iter().flatten() {
        check(program.expression(), 0)?;
    }
    Ok(compiled)
}

/// Whether the evaluator can follow a tree: neither too deep nor of a form that it lacks.
fn check(tree: &IdedExpr, depth: usize) -> Result<(), RuleFaultKind> {
    if depth > MAX_DEPTH {
        return Err(RuleFaultKind::TooDeep);
    }
    let all = |mut below: Vec<&IdedExpr>| below.drain(..).try_for_each(|below| check(below, depth + 1));
    match &tree.expr {
        Expr::Unspecified => Err(RuleFaultKind::Unreadable),
        Expr::Struct(_) => Err(RuleFaultKind::Message),
        Expr::Ident(_) | Expr::Literal(_) => Ok(()),
        Expr::Select(select) => all(vec![&select.operand]),
        Expr::Call(call) => all(call.target.iter().map(|target| &**target).chain(&call.args).collect()),
        Expr::List(list) => all(list.elements.iter().collect()),
        Expr::Comprehension(each) => {
            all(vec![&each.iter_range, &each.accu_init, &each.loop_cond, &each.loop_step, &each.result])
        }
        Expr::Map(map) => all(map
            .entries
            .iter()
            .flat_map(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
                EntryExpr::StructField(field) => vec![&field.value],
            })
            .collect()),
    }
}

/// The schema as types alone: no rule at any depth, and no defaults, which were filled in before.
fn types_of(schema: &Value) -> Value {
    let Value::Object(fields) = schema else {
        return schema.clone();
    };
    let map = |children: &Value| -> Value {
        match children {
            Value::Object(children) => {
                children.iter().map(|(name, child)| (name.clone(), types_of(child))).collect::<Map<_, _>>().into()
            }
            other => other.clone(),
        }
    };
    fields
        .iter()
        .filter(|(name, _)| !matches!(name.as_str(), RULES | "default" | "allOf" | "anyOf" | "oneOf" | "not"))
        .map(|(name, child)| {
            let child = match name.as_str() {
                "properties" => map(child),
                "items" | "additionalProperties" => types_of(child),
                _ => child.clone(),
            };
            (name.clone(), child)
        })
        .collect::<Map<_, _>>()
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compiled(rules: Value) -> (Rules, Vec<RuleFault>) {
        let (rules, faults) = Rules::compile(&json!({"type": "object", RULES: rules}));
        (rules.unwrap_or_default(), faults)
    }

    #[test]
    fn a_rule_is_a_transition_by_what_it_means_not_by_its_letters() {
        for (rule, is_transition) in [
            ("self.a == oldSelf.a", true),
            ("self.list.all(x, x in oldSelf.list)", true),
            ("self.a != 'oldSelf'", false),
            ("self.oldSelf == 1", false),
            ("has(self.oldSelf)", false),
        ] {
            let (rules, faults) = compiled(json!([{"rule": rule}]));
            assert_eq!((rules.transition.is_some(), rules.plain.is_some()), (is_transition, !is_transition), "{rule}");
            assert_eq!(faults, []);
        }
        // A message that only speaks of it makes no transition.
        let (rules, _) = compiled(json!([{"rule": "self.a > 1", "message": "oldSelf is not looked at"}]));
        assert!(rules.transition.is_none());
    }

    #[test]
    fn what_cannot_be_evaluated_is_found_when_it_is_compiled() {
        let deep = "1 + ".repeat(2000) + "1 > 0";
        let long = "true && ".repeat(2000) + "true";
        let nested = "self.a == 2 ? false : ".repeat(200) + "true";
        type Expected = fn(&RuleFaultKind) -> bool;
        let table: [(&str, Expected); 9] = [
            ("self.", |why| matches!(why, RuleFaultKind::Compilation { .. })),
            ("", |why| matches!(why, RuleFaultKind::Compilation { .. })),
            ("has(self)", |why| matches!(why, RuleFaultKind::Compilation { .. })),
            (&deep, |why| *why == RuleFaultKind::TooDeep),
            (&long, |why| *why == RuleFaultKind::TooLong),
            ("Widget{a: 1} == self", |why| *why == RuleFaultKind::Message),
            ("[1, {'a': [Widget{}]}] == self", |why| *why == RuleFaultKind::Message),
            // The parser's own bound: refused by it, or by the end of its thread.
            (&nested, |why| matches!(why, RuleFaultKind::Compilation { .. } | RuleFaultKind::Unreadable)),
            (&"(".repeat(8000), |why| matches!(why, RuleFaultKind::Compilation { .. })),
        ];
        for (rule, expected) in table {
            let (rules, faults) = compiled(json!([{"rule": "true"}, {"rule": rule}]));
            let [fault] = faults.as_slice() else { panic!("{rule}: {faults:?}") };
            assert_eq!(fault.path, "x-kubernetes-validations[1].rule");
            assert!(expected(&fault.why), "{rule}: {fault:?}");
            assert_eq!(rules.plain.map(|plain| plain.validations.len()), Some(2), "no object passes {rule}");
        }
    }
}
