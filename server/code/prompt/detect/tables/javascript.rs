//! Features of JavaScript, and those that TypeScript has beyond them.

use crate::prompt::detect::features::{Feature, Test::*, starts_any};

pub(in crate::prompt::detect) const JAVASCRIPT: &[Feature] = &[
    (2, StartsHas("const ", " = ")),
    (1, StartsHas("let ", " = ")),
    (2, StartsHas("var ", " = ")),
    (2, Has("=> {")),
    (2, That(|l| l.contains(") =>") && !l.starts_with("case "))),
    (1, Has("=> ")),
    (
        3,
        That(|l| starts_any(l, &["function ", "async function "]) && l.contains('(')),
    ),
    (
        4,
        That(|l| l.contains("function (") || l.contains("function(")),
    ),
    (4, Has("function*")),
    (5, Has("console.")),
    (3, Has("===")),
    (3, Has("!==")),
    (3, Has("document.")),
    (2, Has("window.")),
    (3, Has("require('")),
    (3, Has("require(\"")),
    (6, Has("module.exports")),
    (
        3,
        That(|l| {
            starts_any(
                l,
                &[
                    "export default",
                    "export const",
                    "export function",
                    "export class",
                    "export async",
                    "export {",
                ],
            )
        }),
    ),
    (5, StartsHas("import ", " from '")),
    (5, StartsHas("import ", " from \"")),
    (5, Starts("} from ")),
    (1, Has("async ")),
    (1, Has("await ")),
    (2, Word("undefined")),
    (2, Has("typeof ")),
    (1, That(|l| l.contains("${") && l.contains('`'))),
    (4, Has("new Promise")),
    (
        2,
        That(|l| l.contains("new Map(") || l.contains("new Set(") || l.contains("new WeakMap(")),
    ),
    (3, Has("JSON.")),
    (1, Has("Math.")),
    (3, Has("Object.")),
    (3, Has("Array.")),
    (2, Has(".then(")),
    (2, Has(".catch(")),
    (2, Has("fetch(")),
    (1, Has(".map(")),
    (1, Has(".forEach(")),
    (3, Has("addEventListener")),
    (3, Has("setTimeout(")),
    (1, Has("this.")),
    (
        4,
        That(|l| {
            [
                "for (const ",
                "for (let ",
                "for (var ",
                "for(let ",
                "for(var ",
                "for(const ",
            ]
            .iter()
            .any(|s| l.starts_with(s))
        }),
    ),
    (6, That(|l| l.starts_with("'use strict'"))),
    (4, Has(".prototype.")),
    (3, That(|l| l.contains("$(") && !l.contains("$(\"$"))),
    (3, Starts("constructor(")),
    (4, Has("className=")),
    (
        4,
        That(|l| l.contains("useState(") || l.contains("useEffect(")),
    ),
    (1, Has("throw new ")),
    (2, Is("});")),
    (2, Has("(...")),
    (1, Wraps("get ", "{")),
    (
        3,
        That(|l| {
            starts_any(
                l,
                &[
                    "describe(",
                    "it('",
                    "it(\"",
                    "test('",
                    "test(\"",
                    "expect(",
                    "beforeEach(",
                ],
            )
        }),
    ),
    (2, That(|l| l.contains("={") || l.ends_with("/>"))),
    (1, Wraps("return (", "(")),
    (1, That(|l| l.ends_with("({") || l == "})")),
    (
        1,
        That(|l| l.starts_with("const {") || l.starts_with("let {") || l.starts_with("const [")),
    ),
    (
        2,
        That(|l| {
            l.contains("process.argv") || l.contains("process.env") || l.contains("process.exit")
        }),
    ),
];

/// What TypeScript has beyond [`JAVASCRIPT`].
pub(in crate::prompt::detect) const TYPESCRIPT: &[Feature] = &[
    (
        5,
        That(|l| {
            [
                "string", "number", "boolean", "void", "any", "unknown", "never",
            ]
            .iter()
            .any(|t| annotated(l, t))
        }),
    ),
    (3, Wraps("interface ", "{")),
    (
        4,
        That(|l| {
            l.starts_with("type ") && l.contains('=') || l.starts_with("type ") && l.ends_with('=')
        }),
    ),
    (
        5,
        That(|l| {
            starts_any(
                l,
                &[
                    "export interface ",
                    "export type ",
                    "export enum ",
                    "export abstract ",
                    "export declare ",
                ],
            )
        }),
    ),
    (5, Has("as const")),
    (4, Has("Promise<")),
    (3, Has("readonly ")),
    (4, Has("?: ")),
    (8, Starts("import type ")),
    (1, Has("implements ")),
    (2, Wraps("enum ", "{")),
    (5, Starts("declare ")),
    (5, Has("Record<")),
    (2, Has("Array<")),
    (3, That(typed_array)),
    (4, Has("React.FC")),
    (6, Has("keyof ")),
    (2, Has("<T>(")),
    (
        3,
        That(|l| l.contains("): ") && (l.ends_with('{') || l.ends_with("=>") || l.ends_with(';'))),
    ),
    (
        2,
        That(|l| starts_any(l, &["private ", "public ", "protected "]) && l.contains(": ")),
    ),
    (2, Starts("abstract class ")),
    (2, Has("satisfies ")),
    (1, Starts("namespace ")),
    (5, That(annotated_binding)),
    (3, That(|l| type_argument(l) && !l.contains("new "))),
    (
        3,
        That(|l| {
            !starts_any(l, &["import", "export", "}"])
                && l.split(" as ")
                    .skip(1)
                    .any(|rest| rest.starts_with(|c: char| c.is_ascii_uppercase()))
        }),
    ),
];

/// `: string`, as a word.
fn annotated(line: &str, name: &str) -> bool {
    line.split(": ").skip(1).any(|rest| {
        rest.strip_prefix(name)
            .is_some_and(|after| !after.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
    })
}

/// `const name: Type = …`.
fn annotated_binding(line: &str) -> bool {
    let rest = ["const ", "let ", "export const "]
        .iter()
        .find_map(|start| line.strip_prefix(start));
    rest.and_then(|rest| rest.split_once(": "))
        .is_some_and(|(name, value)| {
            !name.is_empty()
                && name
                    .chars()
                    .all(|c| c.is_alphanumeric() || c == '_' || c == '$')
                && !name.starts_with(|c: char| c.is_ascii_uppercase())
                && value.contains('=')
                && !value.ends_with(';')
                && !value.contains("::")
        })
}

/// `call<Type>(…)`.
fn type_argument(line: &str) -> bool {
    line.match_indices('<').any(|(at, _)| {
        let rest = &line[at + 1..];
        line[..at].ends_with(|c: char| c.is_alphanumeric())
            && rest.starts_with(|c: char| c.is_ascii_uppercase())
            && rest.find(">(").is_some_and(|end| {
                rest[..end]
                    .chars()
                    .all(|c| c.is_alphanumeric() || matches!(c, ' ' | ',' | '<' | '>' | '[' | ']'))
            })
    })
}

/// `: Name[]`.
fn typed_array(line: &str) -> bool {
    line.split(": ").skip(1).any(|rest| {
        let name = rest.split("[]").next().unwrap_or_default();
        name.len() < rest.len()
            && !name.is_empty()
            && name
                .chars()
                .all(|c| c.is_alphanumeric() || matches!(c, '_' | '.'))
    })
}
