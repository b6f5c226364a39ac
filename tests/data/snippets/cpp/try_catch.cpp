try {
    auto config = load_config(path);
    server.start(config);
} catch (const std::exception& e) {
    std::cerr << "failed: " << e.what() << '\n';
    return 1;
}
