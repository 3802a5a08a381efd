//! Rewriting: a template's syntax tree with every operation that can grow or read through values handed to the budget first, and with the
//! control tokens that its own text names marked. Runs nothing.
//!
//! What is wrapped goes through filters whose names end in `!`, which no template can write ([`super::filters`]).

use minijinja::Value;
use minijinja::machinery::Span;
use minijinja::machinery::ast::{
    BinOp, BinOpKind, Break, Call, CallArg, CallBlock, Compare, CompareOp, Const, Continue, Do, EmitExpr, Expr, Filter,
    FilterBlock, ForLoop, GetAttr, GetItem, IfCond, IfExpr, List, Macro, Map, Set, SetBlock, Slice, Spanned, Stmt,
    Template, Test, Tuple, UnaryOp, UnaryOpKind, Var, WithBlock,
};

use super::filters::{APPLIED, COMPOSED, COUNTED, INDEXED, KEPT, PRODUCT, SEEN, SHOWN, SUMMAND};
use super::marks::Marks;

/// What chat templates do not do, and what is not built for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsupported {
    #[error("it uses other templates or blocks (`include`, `import`, `extends`, `block`)")]
    OtherTemplates,
    #[error("it sets escaping (`autoescape`)")]
    AutoEscape,
    #[error("it defines a macro, or calls one with a block, within a loop or another macro")]
    MacroWithin,
    #[error("a call has over {MAX_ARGS} arguments")]
    ManyArguments,
}

/// Arguments of one call.
const MAX_ARGS: usize = 1000;

/// Tests that look at the kind of a value alone.
const TESTS_OF_KIND: [&str; 18] = [
    "undefined",
    "defined",
    "none",
    "boolean",
    "odd",
    "even",
    "divisibleby",
    "number",
    "integer",
    "int",
    "float",
    "string",
    "sequence",
    "iterable",
    "mapping",
    "true",
    "false",
    "sameas",
];

type Rewritten<T> = Result<T, Unsupported>;

/// Rewrites one template.
pub(super) struct Rewriter<'m> {
    pub(super) marks: Option<&'m Marks<'m>>,
    /// Whether the statement lies in a loop or a macro.
    pub(super) is_within: bool,
}

// === impl Rewriter ===

impl Rewriter<'_> {
    pub(super) fn statement<'a>(&mut self, statement: &Stmt<'a>) -> Rewritten<Stmt<'a>> {
        Ok(match statement {
            Stmt::Template(it) => Stmt::Template(at(it.span(), Template { children: self.body(&it.children)? })),
            Stmt::EmitExpr(it) => Stmt::EmitExpr(at(it.span(), EmitExpr { expr: self.expression(&it.expr)? })),
            // Through the formatter, which pays: a loop in a capture could write without end.
            Stmt::EmitRaw(it) => {
                let value = Value::from(self.marked(it.raw));
                let expr = Expr::Const(at(it.span(), Const { value }));
                Stmt::EmitExpr(at(it.span(), EmitExpr { expr }))
            }
            Stmt::ForLoop(it) => {
                let (iter, target) = (self.through(COUNTED, &it.iter)?, self.target(&it.target)?);
                let filter_expr = it.filter_expr.as_ref().map(|expr| self.expression(expr)).transpose()?;
                let (body, else_body) = (self.within(&it.body)?, self.body(&it.else_body)?);
                let recursive = it.recursive;
                Stmt::ForLoop(at(it.span(), ForLoop { target, iter, filter_expr, recursive, body, else_body }))
            }
            Stmt::IfCond(it) => {
                let expr = self.expression(&it.expr)?;
                let (true_body, false_body) = (self.body(&it.true_body)?, self.body(&it.false_body)?);
                Stmt::IfCond(at(it.span(), IfCond { expr, true_body, false_body }))
            }
            Stmt::WithBlock(it) => {
                let assignments = it.assignments.iter();
                let assignments = assignments.map(|(to, value)| Ok((self.target(to)?, self.assigned(to, value)?)));
                let assignments = assignments.collect::<Rewritten<_>>()?;
                Stmt::WithBlock(at(it.span(), WithBlock { assignments, body: self.body(&it.body)? }))
            }
            Stmt::Set(it) => {
                let (target, expr) = (self.target(&it.target)?, self.assigned(&it.target, &it.expr)?);
                Stmt::Set(at(it.span(), Set { target, expr }))
            }
            Stmt::SetBlock(it) => {
                let filter = it.filter.as_ref().map(|expr| self.expression(expr)).transpose()?;
                Stmt::SetBlock(at(
                    it.span(),
                    SetBlock { target: self.target(&it.target)?, filter, body: self.body(&it.body)? },
                ))
            }
            Stmt::FilterBlock(it) => {
                let filter = self.expression(&it.filter)?;
                Stmt::FilterBlock(at(it.span(), FilterBlock { filter, body: self.body(&it.body)? }))
            }
            Stmt::Macro(it) => Stmt::Macro(at(it.span(), self.macro_of(it)?)),
            Stmt::CallBlock(it) => {
                let call = at(it.call.span(), self.call(&it.call)?);
                let macro_decl = at(it.macro_decl.span(), self.macro_of(&it.macro_decl)?);
                Stmt::CallBlock(at(it.span(), CallBlock { call, macro_decl }))
            }
            Stmt::Continue(it) => Stmt::Continue(at(it.span(), Continue)),
            Stmt::Break(it) => Stmt::Break(at(it.span(), Break)),
            Stmt::Do(it) => Stmt::Do(at(it.span(), Do { call: at(it.call.span(), self.call(&it.call)?) })),
            Stmt::AutoEscape(_) => return Err(Unsupported::AutoEscape),
            Stmt::Block(_) | Stmt::Import(_) | Stmt::FromImport(_) | Stmt::Extends(_) | Stmt::Include(_) => {
                return Err(Unsupported::OtherTemplates);
            }
        })
    }

    fn body<'a>(&mut self, body: &[Stmt<'a>]) -> Rewritten<Vec<Stmt<'a>>> {
        body.iter().map(|statement| self.statement(statement)).collect()
    }

    fn within<'a>(&mut self, body: &[Stmt<'a>]) -> Rewritten<Vec<Stmt<'a>>> {
        let was_within = std::mem::replace(&mut self.is_within, true);
        let body = self.body(body);
        self.is_within = was_within;
        body
    }

    /// Each run of a definition keeps what it closes over, so definitions do not lie where they are run again.
    fn macro_of<'a>(&mut self, it: &Macro<'a>) -> Rewritten<Macro<'a>> {
        if self.is_within {
            return Err(Unsupported::MacroWithin);
        }
        let args = it.args.iter().map(|arg| self.target(arg)).collect::<Rewritten<_>>()?;
        Ok(Macro { name: it.name, args, defaults: self.expressions(&it.defaults)?, body: self.within(&it.body)? })
    }

    /// What is assigned to; never paid for.
    fn target<'a>(&mut self, target: &Expr<'a>) -> Rewritten<Expr<'a>> {
        Ok(match target {
            Expr::Var(it) => Expr::Var(at(it.span(), Var { id: it.id })),
            Expr::GetAttr(it) => Expr::GetAttr(at(it.span(), GetAttr { expr: self.target(&it.expr)?, name: it.name })),
            Expr::List(it) => {
                let items = it.items.iter().map(|item| self.target(item)).collect::<Rewritten<_>>()?;
                Expr::List(at(it.span(), List { items }))
            }
            Expr::Tuple(it) => {
                let items = it.items.iter().map(|item| self.target(item)).collect::<Rewritten<_>>()?;
                Expr::Tuple(at(it.span(), Tuple { items }))
            }
            other => self.expression(other)?,
        })
    }

    fn assigned<'a>(&mut self, target: &Expr<'a>, value: &Expr<'a>) -> Rewritten<Expr<'a>> {
        match target {
            Expr::Var(_) => self.expression(value),
            _ => self.through(KEPT, value),
        }
    }

    fn expressions<'a>(&mut self, expressions: &[Expr<'a>]) -> Rewritten<Vec<Expr<'a>>> {
        expressions.iter().map(|expression| self.expression(expression)).collect()
    }

    fn boxed<'a>(&mut self, expression: Option<&Expr<'a>>) -> Rewritten<Option<Expr<'a>>> {
        expression.map(|expression| self.expression(expression)).transpose()
    }

    /// The expression, its value handed to a filter of ours.
    fn through<'a>(&mut self, name: &'static str, expression: &Expr<'a>) -> Rewritten<Expr<'a>> {
        Ok(filter(name, self.expression(expression)?, Vec::new(), expression.span()))
    }

    fn expression<'a>(&mut self, expression: &Expr<'a>) -> Rewritten<Expr<'a>> {
        Ok(match expression {
            Expr::Var(it) => Expr::Var(at(it.span(), Var { id: it.id })),
            Expr::Const(it) => {
                let value = it.value.as_str().map_or_else(|| it.value.clone(), |text| Value::from(self.marked(text)));
                Expr::Const(at(it.span(), Const { value }))
            }
            Expr::Slice(it) => {
                let expr = self.through(SUMMAND, &it.expr)?;
                let (start, stop) = (self.boxed(it.start.as_ref())?, self.boxed(it.stop.as_ref())?);
                Expr::Slice(at(it.span(), Slice { expr, start, stop, step: self.boxed(it.step.as_ref())? }))
            }
            Expr::UnaryOp(it) => {
                #[expect(clippy::needless_match, reason = "the kind can be neither copied nor cloned")]
                let op = match it.op {
                    UnaryOpKind::Not => UnaryOpKind::Not,
                    UnaryOpKind::Neg => UnaryOpKind::Neg,
                };
                Expr::UnaryOp(at(it.span(), UnaryOp { op, expr: self.expression(&it.expr)? }))
            }
            Expr::BinOp(it) => self.operation(it)?,
            Expr::Compare(it) => {
                let expr = self.through(SEEN, &it.expr)?;
                let ops = it.ops.iter().map(|op| Ok(CompareOp { op: op.op, expr: self.through(SEEN, &op.expr)? }));
                let ops = ops.collect::<Rewritten<_>>()?;
                Expr::Compare(at(it.span(), Compare { expr, ops }))
            }
            Expr::IfExpr(it) => {
                let (test_expr, true_expr) = (self.expression(&it.test_expr)?, self.expression(&it.true_expr)?);
                let false_expr = self.boxed(it.false_expr.as_ref())?;
                Expr::IfExpr(at(it.span(), IfExpr { test_expr, true_expr, false_expr }))
            }
            Expr::Filter(it) => {
                let name = Expr::Const(at(it.span(), Const { value: Value::from(it.name) }));
                let mut args = vec![CallArg::Pos(name)];
                args.extend(self.arguments(&it.args)?);
                Expr::Filter(at(it.span(), Filter { name: APPLIED, expr: self.boxed(it.expr.as_ref())?, args }))
            }
            Expr::Test(it) => {
                let name = it.name.trim();
                let expr = match TESTS_OF_KIND.contains(&name) {
                    true => self.expression(&it.expr)?,
                    false => self.through(SEEN, &it.expr)?,
                };
                Expr::Test(at(it.span(), Test { name: it.name, expr, args: self.arguments(&it.args)? }))
            }
            Expr::GetAttr(it) => {
                Expr::GetAttr(at(it.span(), GetAttr { expr: self.expression(&it.expr)?, name: it.name }))
            }
            Expr::GetItem(it) => {
                let (expr, subscript_expr) =
                    (self.through(INDEXED, &it.expr)?, self.through(SEEN, &it.subscript_expr)?);
                Expr::GetItem(at(it.span(), GetItem { expr, subscript_expr }))
            }
            Expr::Call(it) => Expr::Call(at(it.span(), self.call(it)?)),
            Expr::List(it) => {
                composed(Expr::List(at(it.span(), List { items: self.expressions(&it.items)? })), it.span())
            }
            Expr::Tuple(it) => {
                composed(Expr::Tuple(at(it.span(), Tuple { items: self.expressions(&it.items)? })), it.span())
            }
            Expr::Map(it) => {
                let keys = it.keys.iter().map(|key| self.through(SEEN, key)).collect::<Rewritten<_>>()?;
                composed(Expr::Map(at(it.span(), Map { keys, values: self.expressions(&it.values)? })), it.span())
            }
        })
    }

    fn operation<'a>(&mut self, it: &Spanned<BinOp<'a>>) -> Rewritten<Expr<'a>> {
        use BinOpKind::*;
        let wrapper = match it.op {
            Mul => {
                let (left, right) = (self.expression(&it.left)?, self.expression(&it.right)?);
                return Ok(filter(PRODUCT, left, vec![CallArg::Pos(right)], it.span()));
            }
            ScAnd | ScOr => None,
            Concat => Some(SHOWN),
            Add => Some(SUMMAND),
            Eq | Ne | Lt | Lte | Gt | Gte | In | Sub | Div | FloorDiv | Rem | Pow => Some(SEEN),
        };
        let mut side = |expr: &Expr<'a>| match wrapper {
            Some(name) => self.through(name, expr),
            None => self.expression(expr),
        };
        let (left, right) = (side(&it.left)?, side(&it.right)?);
        Ok(Expr::BinOp(at(it.span(), BinOp { op: it.op, left, right })))
    }

    fn call<'a>(&mut self, it: &Call<'a>) -> Rewritten<Call<'a>> {
        Ok(Call { expr: self.expression(&it.expr)?, args: self.arguments(&it.args)? })
    }

    fn arguments<'a>(&mut self, args: &[CallArg<'a>]) -> Rewritten<Vec<CallArg<'a>>> {
        if args.len() > MAX_ARGS {
            return Err(Unsupported::ManyArguments);
        }
        let argument = |arg: &CallArg<'a>| {
            Ok(match arg {
                CallArg::Pos(expr) => CallArg::Pos(self.through(COMPOSED, expr)?),
                CallArg::Kwarg(name, expr) => CallArg::Kwarg(name, self.through(COMPOSED, expr)?),
                CallArg::PosSplat(expr) => CallArg::PosSplat(self.through(SUMMAND, expr)?),
                CallArg::KwargSplat(expr) => CallArg::KwargSplat(self.through(SUMMAND, expr)?),
            })
        };
        args.iter().map(argument).collect()
    }

    fn marked(&self, text: &str) -> String {
        self.marks.map_or_else(|| text.to_owned(), |marks| marks.mark(text))
    }
}

fn at<T>(span: Span, node: T) -> Spanned<T> {
    Spanned::new(node, span)
}

fn filter<'a>(name: &'static str, expr: Expr<'a>, args: Vec<CallArg<'a>>, span: Span) -> Expr<'a> {
    Expr::Filter(at(span, Filter { name, expr: Some(expr), args }))
}

fn composed<'a>(expr: Expr<'a>, span: Span) -> Expr<'a> {
    filter(COMPOSED, expr, Vec::new(), span)
}
