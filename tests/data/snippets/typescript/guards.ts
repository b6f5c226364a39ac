const isString = (x: unknown): x is string => typeof x === "string";
export function assertNever(x: never): never {
  throw new Error("unexpected: " + x);
}
