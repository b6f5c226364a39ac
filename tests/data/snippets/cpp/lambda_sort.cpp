std::sort(people.begin(), people.end(), [](const auto& a, const auto& b) {
    return a.age < b.age;
});
