namespace util {

std::string join(const std::vector<std::string>& parts, const std::string& sep) {
    std::string out;
    for (auto it = parts.begin(); it != parts.end(); ++it) {
        if (it != parts.begin()) out += sep;
        out += *it;
    }
    return out;
}

}  // namespace util
