//! The table of each outlined language. The kinds' names come from each tree-sitter grammar's `node-types.json`.

use super::grammar::{Body, Grammar};

pub(super) const PYTHON: Grammar = Grammar {
    imports: &["import_statement", "import_from_statement"],
    types: &[("class_definition", "class", Body::Optional)],
    functions: &["function_definition"],
    closures: &["lambda"],
    binders: &[("assignment", "left", "right")],
    loops: &[
        ("for_statement", "for"),
        ("while_statement", "while"),
        ("list_comprehension", "comprehension"),
        ("set_comprehension", "comprehension"),
        ("dictionary_comprehension", "comprehension"),
        ("generator_expression", "comprehension"),
    ],
    raises: &["raise_statement"],
    catches: &["except_clause"],
    calls: &[("call", "function")],
    raising_calls: &[],
    raise_word: "raises",
    marks: &[("async", "async"), ("yield", "generator")],
    members: &[],
    skips: &["decorator"],
    receivers: &["self", "cls"],
    bare_methods: false,
};

pub(super) const RUST: Grammar = Grammar {
    imports: &["use_declaration"],
    types: &[
        ("struct_item", "struct", Body::Optional),
        ("enum_item", "enum", Body::Optional),
        ("union_item", "union", Body::Optional),
        ("trait_item", "trait", Body::Optional),
        ("impl_item", "impl", Body::Optional),
        ("mod_item", "module", Body::Required),
        ("macro_definition", "macro", Body::Optional),
    ],
    functions: &["function_item", "function_signature_item"],
    closures: &["closure_expression"],
    binders: &[("let_declaration", "pattern", "value")],
    loops: &[
        ("for_expression", "for"),
        ("while_expression", "while"),
        ("loop_expression", "endless"),
    ],
    raises: &[],
    catches: &[],
    calls: &[
        ("call_expression", "function"),
        ("macro_invocation", "macro"),
    ],
    raising_calls: &[
        "panic",
        "unreachable",
        "todo",
        "unimplemented",
        "unwrap",
        "expect",
    ],
    raise_word: "may panic",
    marks: &[("async", "async"), ("unsafe_block", "unsafe")],
    members: &["field_declaration", "enum_variant"],
    skips: &[],
    receivers: &["self", "Self"],
    bare_methods: false,
};

pub(super) const JAVASCRIPT: Grammar = Grammar {
    imports: &["import_statement"],
    types: &[
        ("class_declaration", "class", Body::Optional),
        ("class", "class", Body::Required),
    ],
    functions: &[
        "function_declaration",
        "generator_function_declaration",
        "method_definition",
    ],
    closures: &[
        "function_expression",
        "generator_function",
        "arrow_function",
    ],
    binders: &[
        ("variable_declarator", "name", "value"),
        ("assignment_expression", "left", "right"),
        ("pair", "key", "value"),
        ("field_definition", "property", "value"),
    ],
    loops: &[
        ("for_statement", "for"),
        ("for_in_statement", "for"),
        ("while_statement", "while"),
        ("do_statement", "do-while"),
    ],
    raises: &["throw_statement"],
    catches: &["catch_clause"],
    calls: &[
        ("call_expression", "function"),
        ("new_expression", "constructor"),
    ],
    raising_calls: &[],
    raise_word: "throws",
    marks: &[("async", "async"), ("yield_expression", "generator")],
    members: &[],
    skips: &["decorator"],
    receivers: &["this"],
    bare_methods: false,
};

pub(super) const TYPESCRIPT: Grammar = Grammar {
    types: &[
        ("class_declaration", "class", Body::Optional),
        (
            "abstract_class_declaration",
            "abstract class",
            Body::Optional,
        ),
        ("class", "class", Body::Required),
        ("interface_declaration", "interface", Body::Optional),
        ("type_alias_declaration", "type", Body::Optional),
        ("enum_declaration", "enum", Body::Optional),
        ("internal_module", "namespace", Body::Required),
        ("module", "module", Body::Required),
    ],
    functions: &[
        "function_declaration",
        "generator_function_declaration",
        "function_signature",
        "method_definition",
        "method_signature",
        "abstract_method_signature",
    ],
    binders: &[
        ("variable_declarator", "name", "value"),
        ("assignment_expression", "left", "right"),
        ("pair", "key", "value"),
        ("public_field_definition", "name", "value"),
    ],
    members: &["property_signature", "enum_body"],
    ..JAVASCRIPT
};

pub(super) const GO: Grammar = Grammar {
    imports: &["import_spec"],
    types: &[
        ("struct_type", "struct", Body::Optional),
        ("interface_type", "interface", Body::Optional),
    ],
    functions: &["function_declaration", "method_declaration", "method_elem"],
    closures: &["func_literal"],
    binders: &[
        ("type_spec", "name", "type"),
        ("short_var_declaration", "left", "right"),
        ("assignment_statement", "left", "right"),
        ("var_spec", "name", "value"),
    ],
    loops: &[("for_statement", "for")],
    raises: &[],
    catches: &[],
    calls: &[("call_expression", "function")],
    raising_calls: &["panic"],
    raise_word: "may panic",
    marks: &[
        ("go_statement", "starts goroutines"),
        ("defer_statement", "defers"),
        ("select_statement", "select"),
    ],
    members: &["field_declaration"],
    skips: &[],
    receivers: &[],
    bare_methods: false,
};

pub(super) const JAVA: Grammar = Grammar {
    imports: &["import_declaration"],
    types: &[
        ("class_declaration", "class", Body::Optional),
        ("interface_declaration", "interface", Body::Optional),
        ("enum_declaration", "enum", Body::Optional),
        ("record_declaration", "record", Body::Optional),
        ("annotation_type_declaration", "annotation", Body::Optional),
    ],
    functions: &[
        "method_declaration",
        "constructor_declaration",
        "compact_constructor_declaration",
    ],
    closures: &["lambda_expression"],
    binders: &[("variable_declarator", "name", "value")],
    loops: &[
        ("for_statement", "for"),
        ("enhanced_for_statement", "for"),
        ("while_statement", "while"),
        ("do_statement", "do-while"),
    ],
    raises: &["throw_statement"],
    catches: &["catch_type"],
    calls: &[
        ("method_invocation", "name"),
        ("object_creation_expression", "type"),
    ],
    raising_calls: &[],
    raise_word: "throws",
    marks: &[("synchronized_statement", "synchronized")],
    members: &["enum_constant"],
    skips: &[],
    receivers: &["this"],
    bare_methods: true,
};

pub(super) const C: Grammar = Grammar {
    imports: &["preproc_include"],
    types: &[
        ("struct_specifier", "struct", Body::Required),
        ("union_specifier", "union", Body::Required),
        ("enum_specifier", "enum", Body::Required),
    ],
    functions: &["function_definition", "declaration", "preproc_function_def"],
    closures: &[],
    binders: &[("type_definition", "declarator", "type")],
    loops: &[
        ("for_statement", "for"),
        ("while_statement", "while"),
        ("do_statement", "do-while"),
    ],
    raises: &[],
    catches: &[],
    calls: &[("call_expression", "function")],
    raising_calls: &["abort", "exit", "_exit", "assert"],
    raise_word: "may exit",
    marks: &[("goto_statement", "goto")],
    members: &["field_declaration", "enumerator"],
    skips: &[],
    receivers: &[],
    bare_methods: false,
};

pub(super) const CPP: Grammar = Grammar {
    types: &[
        ("class_specifier", "class", Body::Required),
        ("struct_specifier", "struct", Body::Required),
        ("union_specifier", "union", Body::Required),
        ("enum_specifier", "enum", Body::Required),
        ("namespace_definition", "namespace", Body::Required),
        ("concept_definition", "concept", Body::Optional),
    ],
    closures: &["lambda_expression"],
    binders: &[
        ("type_definition", "declarator", "type"),
        ("init_declarator", "declarator", "value"),
    ],
    loops: &[
        ("for_statement", "for"),
        ("for_range_loop", "for"),
        ("while_statement", "while"),
        ("do_statement", "do-while"),
    ],
    raises: &["throw_statement"],
    catches: &["catch_clause"],
    raise_word: "throws",
    raising_calls: &[],
    marks: &[
        ("co_await_expression", "coroutine"),
        ("co_yield_statement", "coroutine"),
    ],
    receivers: &["this"],
    bare_methods: true,
    // A method's declaration inside of a class is a field whose declarator is a function's.
    functions: &[
        "function_definition",
        "declaration",
        "field_declaration",
        "preproc_function_def",
    ],
    members: &["enumerator"],
    ..C
};
