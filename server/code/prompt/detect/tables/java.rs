//! Features of Java.

use crate::prompt::detect::features::{Feature, Test::*, starts_any};

pub(in crate::prompt::detect) const JAVA: &[Feature] = &[
    (
        4,
        That(|l| {
            starts_any(
                l,
                &[
                    "public class ",
                    "public interface ",
                    "public enum ",
                    "public record ",
                    "public abstract class",
                    "public final class",
                ],
            )
        }),
    ),
    (6, Has("public static void main")),
    (8, Has("System.out.")),
    (4, Has("System.")),
    (
        6,
        That(|l| {
            starts_any(
                l,
                &[
                    "import java.",
                    "import javax.",
                    "import static ",
                    "import org.",
                    "import com.",
                ],
            )
        }),
    ),
    (3, WrapsLacks("import ", ";", " from ")),
    (5, Wraps("package ", ";")),
    (3, That(member)),
    (8, Is("@Override")),
    (4, Has(" throws ")),
    (
        4,
        That(|l| l.contains("new ArrayList<") || l.contains("new HashMap<")),
    ),
    (
        2,
        That(|l| l.contains("List<") || l.contains("Map<") || l.contains("Set<")),
    ),
    (3, Word("String")),
    (2, Starts("final ")),
    (1, Has(" extends ")),
    (2, Has(" implements ")),
    (2, Has("throw new ")),
    (3, Word("boolean")),
    (2, Word("Integer")),
    (
        2,
        That(|l| {
            l.starts_with('@')
                && l[1..].starts_with(|c: char| c.is_ascii_uppercase())
                && !l.contains(';')
        }),
    ),
    (4, Has(".equals(")),
    (1, Has("instanceof ")),
    (1, Has(" -> ")),
    (4, Has(".stream()")),
    (3, Then("catch (", "Exception")),
    (4, Has("String[]")),
    (4, Has("int[] ")),
    (2, That(|l| l.starts_with("for (") && l.contains(" : "))),
    (2, That(typed_local)),
    (1, Has("this.")),
    (3, That(|l| l.starts_with("record ") && l.contains('('))),
    (2, Wraps("interface ", "{")),
    (2, WrapsLacks("class ", "{", ":")),
    (
        2,
        That(|l| {
            starts_any(
                l,
                &[
                    "static int ",
                    "static void ",
                    "static String ",
                    "static long ",
                    "void ",
                    "int ",
                    "double ",
                ],
            ) && l.ends_with('{')
                && !l.contains('*')
        }),
    ),
    (3, Has("assertEquals(")),
    (1, Has(".length")),
];

/// A member of a Java class: `private final int size;`, and not TypeScript's `private size: number;`.
fn member(line: &str) -> bool {
    starts_any(line, &["private ", "protected ", "public "])
        && line.ends_with([';', '{'])
        && !line.contains(": ")
        && !starts_any(
            line,
            &["public function", "private function", "protected function"],
        )
}

/// `Foo bar = …;` or `Foo<Bar> baz = …;`.
fn typed_local(line: &str) -> bool {
    let Some((left, _)) = line.split_once(" = ") else {
        return false;
    };
    let mut words = left.split_whitespace();
    let typed = words.next().is_some_and(|word| {
        word.starts_with(|c: char| c.is_ascii_uppercase()) && !word.contains([':', '.', '*'])
    });
    typed
        && words
            .next()
            .is_some_and(|word| word.starts_with(|c: char| c.is_ascii_lowercase()))
        && line.ends_with(';')
}
