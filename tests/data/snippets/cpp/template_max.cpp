template <typename T>
const T& max_of(const T& a, const T& b) {
    return a < b ? b : a;
}
