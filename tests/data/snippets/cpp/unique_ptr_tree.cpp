struct Node {
    int key;
    std::unique_ptr<Node> left, right;
};

void insert(std::unique_ptr<Node>& node, int key) {
    if (!node) {
        node = std::make_unique<Node>(Node{key});
    } else if (key < node->key) {
        insert(node->left, key);
    } else {
        insert(node->right, key);
    }
}
