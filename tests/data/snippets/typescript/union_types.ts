type Shape =
  | { kind: "circle"; radius: number }
  | { kind: "square"; size: number };

const area = (s: Shape): number => {
  switch (s.kind) {
    case "circle":
      return Math.PI * s.radius ** 2;
    case "square":
      return s.size ** 2;
  }
};
