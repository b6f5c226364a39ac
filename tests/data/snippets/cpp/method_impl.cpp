#include "parser.h"

bool Parser::accept(TokenKind kind) {
    if (current_.kind != kind) {
        return false;
    }
    advance();
    return true;
}

void Parser::expect(TokenKind kind) {
    if (!accept(kind)) {
        throw ParseError(current_.line, "unexpected token");
    }
}
