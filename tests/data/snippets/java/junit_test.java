@Test
void parsesNegativeNumbers() {
    assertEquals(-42, Parser.parse("-42"));
    assertThrows(NumberFormatException.class, () -> Parser.parse("x"));
}
