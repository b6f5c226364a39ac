interface Tree<T> {
  value: T;
  left?: Tree<T>;
  right?: Tree<T>;
}

function mapTree<T, U>(tree: Tree<T> | undefined, f: (value: T) => U): Tree<U> | undefined {
  if (!tree) return undefined;
  return {
    value: f(tree.value),
    left: mapTree(tree.left, f),
    right: mapTree(tree.right, f),
  };
}
