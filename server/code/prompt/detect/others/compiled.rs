//! Features of compiled languages.

use crate::prompt::detect::features::{Feature, Test::*, starts_any};

pub(super) const C_SHARP: &[Feature] = &[
    (8, Starts("using System")),
    (
        4,
        That(|l| {
            l.starts_with("using ")
                && l.ends_with(';')
                && !l.contains("namespace")
                && !l.contains('=')
                && !l.contains("::")
        }),
    ),
    (3, That(|l| l.starts_with("namespace ") && l.contains('.'))),
    (6, Has("Console.")),
    (8, Has("{ get;")),
    (
        2,
        That(|l| l.contains("string ") && !l.contains("std::") && !l.contains(": string")),
    ),
    (2, StartsHas("var ", " = new ")),
    (4, Starts("foreach (")),
    (
        3,
        That(|l| {
            starts_any(
                l,
                &[
                    "public class ",
                    "public interface I",
                    "public static class ",
                ],
            )
        }),
    ),
    (5, Has("async Task")),
    (5, Has("static void Main(")),
    (
        2,
        That(|l| {
            starts_any(l, &["public ", "private ", "protected ", "internal "])
                && !l.contains(": ")
                && l.ends_with([')', ';', '}'])
        }),
    ),
    (4, Has("private readonly ")),
    (5, Has("IEnumerable<")),
    (5, Has("internal ")),
    (5, Has("sealed ")),
    (5, Has("out var ")),
    (3, Has("decimal ")),
    (
        3,
        That(|l| {
            l.starts_with('[')
                && l.ends_with(']')
                && l[1..].starts_with(|c: char| c.is_ascii_uppercase())
        }),
    ),
    (
        3,
        That(|l| {
            [".Where(", ".Select(", ".ToList(", ".Add(", ".Count("]
                .iter()
                .any(|m| l.contains(m))
        }),
    ),
    (3, Has("$\"")),
];

pub(super) const KOTLIN: &[Feature] = &[
    (
        6,
        That(|l| {
            starts_any(
                l,
                &[
                    "fun ",
                    "override fun ",
                    "private fun ",
                    "suspend fun ",
                    "inline fun ",
                ],
            )
        }),
    ),
    (4, Starts("val ")),
    (2, That(|l| l.starts_with("var ") && !l.ends_with(';'))),
    (6, Starts("data class ")),
    (2, StartsLacks("println(", ";")),
    (5, That(|l| l.contains("when (") || l == "when {")),
    (2, Has("?: ")),
    (5, That(|l| l.contains("listOf(") || l.contains("mapOf("))),
    (2, Has("{ it.")),
    (8, Has("companion object")),
    (5, That(|l| l.contains("?.let") || l.contains("?.also"))),
    (4, Starts("sealed class ")),
];

pub(super) const SCALA: &[Feature] = &[
    (3, Starts("object ")),
    (
        5,
        That(|l| {
            l.starts_with("def ")
                && (l.contains(" = ") || l.ends_with('='))
                && !l.ends_with([':', ',', '('])
        }),
    ),
    (3, Starts("val ")),
    (6, Starts("case class ")),
    (8, Starts("import scala")),
    (5, Has(": Unit")),
    (3, Ends("match {")),
    (3, That(|l| l.starts_with("case ") && l.contains("=>"))),
    (2, Has("Option[")),
    (2, Has("List[")),
];

pub(super) const SWIFT: &[Feature] = &[
    (5, StartsHas("func ", "->")),
    (3, That(|l| l.starts_with("func ") && l.contains(": "))),
    (2, That(|l| l.starts_with("let ") && !l.ends_with(';'))),
    (6, Starts("guard ")),
    (
        8,
        That(|l| starts_any(l, &["import Foundation", "import UIKit", "import SwiftUI"])),
    ),
    (
        3,
        That(|l| l.starts_with("if let ") && !l.contains("Some(")),
    ),
    (
        3,
        That(|l| l.starts_with("var ") && l.contains(": ") && !l.ends_with(';')),
    ),
    (5, Has("(_ ")),
    (4, Starts("protocol ")),
    (4, Starts("extension ")),
    (3, Starts("init(")),
    (
        4,
        That(|l| starts_any(l, &["@State", "@Published", "@objc", "@IBOutlet"])),
    ),
    (2, Has("?? ")),
];

pub(super) const HASKELL: &[Feature] = &[
    (
        5,
        That(|l| {
            l.split_once(" :: ").is_some_and(|(name, _)| {
                !name.is_empty()
                    && name
                        .chars()
                        .all(|c| c.is_alphanumeric() || c == '_' || c == '\'')
            })
        }),
    ),
    (8, Starts("import qualified ")),
    (6, Wraps("module ", "where")),
    (3, StartsHas("data ", " = ")),
    (5, Starts("deriving ")),
    (4, Wraps("case ", " of")),
    (3, Starts("instance ")),
    (2, Starts("where")),
    (2, Has(" $ ")),
    (3, Has("Map.")),
    (2, That(|l| l.starts_with('|') && l.contains(" = "))),
    (2, StartsHas("import ", " (")),
];

pub(super) const DART: &[Feature] = &[
    (8, Starts("import 'package:")),
    (8, Starts("import 'dart:")),
    (6, Has("Widget build(")),
    (6, Is("@override")),
    (3, Is("void main() {")),
    (3, That(|l| l.starts_with("print(") && l.ends_with(");"))),
    (4, Has("Future<")),
    (3, Has("late ")),
];

pub(super) const OBJECTIVE_C: &[Feature] = &[
    (
        8,
        That(|l| {
            starts_any(
                l,
                &["@interface ", "@implementation ", "@property ", "@end"],
            )
        }),
    ),
    (6, Starts("#import ")),
    (
        6,
        That(|l| l.contains("NSString") || l.contains("NSArray") || l.contains("NSLog(")),
    ),
    (5, Has("[self ")),
    (6, That(|l| starts_any(l, &["- (", "+ ("]))),
];
